//! `fieldgate verify`: does a reading come from the gateway it is said to come from? Needs the file and nothing else.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use fieldgate_adapters::reading::Reading;
use fieldgate_proof::{PROOF_LEN_MAX, Proof, Verified};
use fieldgate_proto::identity::{Identifier, IdentifierError};
use serde::Serialize;

use super::{Failure, print, print_json};
use crate::{
    cli::VerifyArgs,
    sinks::{JournalText, json},
};

/// What `--json` prints.
#[derive(Serialize)]
struct Shown<'a> {
    gateway: String,
    id: String,
    sealed_at: String,
    key_valid_from: String,
    key_valid_to: String,
    batch_first: u64,
    batch_count: u64,
    device: &'a str,
    resource: &'a str,
    class: &'static str,
    captured_at: String,
    time_quality: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_type: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_base64: Option<String>,
}

pub(super) fn run(args: &VerifyArgs) -> Result<(), Failure> {
    let name = args.file.display().to_string();
    let expected = args
        .gateway
        .as_deref()
        .map(str::parse::<Identifier>)
        .transpose()
        .map_err(|error: IdentifierError| Failure::input(format!("--gateway: {error}")).hint(error.hint()))?;
    let bytes = read(&args.file).map_err(|error| {
        Failure::input(format!("{name}: {error}"))
            .hint("name a file that `fieldgate proof` has written, or - for standard input")
    })?;
    let proof = Proof::decode(&bytes)
        .map_err(|error| Failure::input(format!("{name}: {error}")).hint(error.hint()))?;
    let refused = |error: &dyn std::error::Error, hint| {
        Failure::chain(&format!("{name}: NOT genuine"), error).hint(hint)
    };
    let verified = proof.verify().map_err(|error| refused(&error, error.hint()))?;
    let reading = Reading::decode(&proof.reading).map_err(|error| {
        refused(
            &error,
            "the gateway sealed something that is no reading: ask who runs it",
        )
    })?;
    if let Some(expected) = expected
        && expected != verified.gateway
    {
        return Err(Failure::new(format!(
            "{name}: genuine, but from another gateway: {}",
            verified.gateway
        ))
        .hint("compare with `fieldgate identity show` at the gateway that you mean"));
    }
    let shown = show(&proof, &verified, &reading);
    if args.json {
        return print_json(&shown);
    }
    print(&text(&name, &proof, &shown, expected.is_some()))
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // One byte more than a proof has, so that a longer file is seen to be one.
    let limit = PROOF_LEN_MAX as u64 + 1;
    if path.as_os_str() == "-" {
        io::stdin().lock().take(limit).read_to_end(&mut bytes)?;
    } else {
        File::open(path)?.take(limit).read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}

fn show<'a>(proof: &Proof, verified: &Verified, reading: &Reading<'a>) -> Shown<'a> {
    let text = std::str::from_utf8(reading.payload).ok();
    let time = |secs: u64| json::rfc3339(secs.saturating_mul(1000));
    Shown {
        gateway: verified.gateway.to_string(),
        id: format!(
            "{}/{}/{}",
            verified.gateway,
            JournalText(&proof.extent.journal),
            proof.sequence()
        ),
        sealed_at: time(verified.sealed_at),
        key_valid_from: time(verified.valid.0),
        key_valid_to: time(verified.valid.1),
        batch_first: proof.extent.first,
        batch_count: proof.extent.count,
        device: reading.device,
        resource: reading.resource,
        class: json::class(reading.class),
        captured_at: json::rfc3339(reading.captured_at.unix_millis),
        time_quality: json::quality(reading.captured_at.quality),
        content_type: reading.content_type,
        payload: text,
        payload_base64: text
            .is_none()
            .then(|| data_encoding::BASE64.encode(reading.payload)),
    }
}

fn text(name: &str, proof: &Proof, shown: &Shown<'_>, expected: bool) -> String {
    let payload = shown.payload.map_or_else(
        || format!("{} bytes that are no text", proof.reading.len()),
        |text| {
            text.chars()
                .map(|c| if c.is_control() { ' ' } else { c })
                .collect()
        },
    );
    let who = if expected {
        "as expected"
    } else {
        "is this the gateway you mean? --gateway compares"
    };
    format!(
        "{name}: genuine\n  \
         gateway   {} ({who})\n  \
         reading   {} {}, {}\n  \
         payload   {payload}\n  \
         captured  {} (clock of the gateway: {})\n  \
         sealed    {}, by a key its identity vouched for from {} to {}\n  \
         place     sequence {} of journal {}, {} of {} in its batch\n",
        shown.gateway,
        shown.device,
        shown.resource,
        shown.class,
        shown.captured_at,
        shown.time_quality,
        shown.sealed_at,
        shown.key_valid_from,
        shown.key_valid_to,
        proof.sequence(),
        JournalText(&proof.extent.journal),
        proof.index + 1,
        proof.extent.count,
    )
}
