//! `fieldgate proof`: takes the proof for one reading out of a collector's ledger.

use std::{fs::File, io::Write as _, path::PathBuf};

use fieldgate_proto::identity::Identifier;
use serde::Serialize;

use super::{Failure, check, print, print_json};
use crate::{
    cli::ProofArgs,
    ledger::{self, Found},
    sinks::positions::parse_key,
};

#[derive(Serialize)]
struct Written<'a> {
    id: &'a str,
    file: PathBuf,
    bytes: usize,
}

pub(super) fn run(args: &ProofArgs) -> Result<(), Failure> {
    let (gateway, journal, sequence) = parse(&args.id).ok_or_else(|| {
        Failure::input(format!("{:?} is not the id of a reading", args.id)).hint(
            "an id is GATEWAY/JOURNAL/SEQUENCE, as sinks write it: `id` of a line of JSON, `fieldgate-id` of an MQTT message",
        )
    })?;
    let dir = directory(args)?;
    let found = ledger::find(&dir, gateway, journal, sequence).map_err(|error| {
        Failure::chain(&dir.display().to_string(), &error)
            .hint("run this at the collector, as a user who may read its state")
    })?;
    let proof = match found {
        Found::Proof(proof) => proof,
        Found::Nothing { held, damaged } => return Err(nothing(held, damaged)),
    };
    // What is handed out is good, or somebody has to look at this disk.
    proof.verify().map_err(|error| {
        Failure::chain(
            "the ledger holds this reading, but its proof does not hold",
            &error,
        )
        .hint("the ledger was changed; restore it from a backup")
    })?;
    let bytes = proof.encode();
    let out = args
        .out
        .clone()
        .unwrap_or_else(|| PathBuf::from(format!("reading-{sequence}.proof")));
    if out.as_os_str() == "-" {
        return std::io::stdout()
            .lock()
            .write_all(&bytes)
            .map_err(|error| Failure::chain("standard output", &error));
    }
    File::create(&out)
        .and_then(|mut file| file.write_all(&bytes))
        .map_err(|error| Failure::chain(&out.display().to_string(), &error))?;
    if args.json {
        return print_json(&Written {
            id: &args.id,
            file: out,
            bytes: bytes.len(),
        });
    }
    print(&format!(
        "{}: {} bytes\nAnybody can check it, without contact to anyone: fieldgate verify {} --gateway {gateway}\n",
        out.display(),
        bytes.len(),
        out.display(),
    ))
}

fn parse(id: &str) -> Option<(Identifier, [u8; 16], u64)> {
    let mut parts = id.trim().split('/');
    let (gateway, journal) = parse_key(parts.next()?, parts.next()?)?;
    let sequence = parts.next()?.parse().ok()?;
    parts.next().is_none().then_some((gateway, journal, sequence))
}

/// The ledger's directory.
fn directory(args: &ProofArgs) -> Result<PathBuf, Failure> {
    if let Some(dir) = &args.ledger {
        return Ok(dir.clone());
    }
    let settings = check::settings(&args.config)?;
    settings.collector.and_then(|collector| collector.ledger).map_or_else(
        || {
            Err(Failure::input("the file describes no ledger")
                .hint("a collector keeps one if it has [collector.ledger]; only what came since then can be proved"))
        },
        |ledger| Ok(ledger.dir),
    )
}

fn nothing(held: Option<(u64, u64)>, damaged: u64) -> Failure {
    let damage = match damaged {
        0 => String::new(),
        1 => "; one place in it is damaged".to_owned(),
        count => format!("; {count} places in it are damaged"),
    };
    match held {
        None => Failure::new(format!("the ledger has nothing of this journal{damage}")).hint(
            "check the id; a gateway with `verifiable = false` in its [[uplink]] leaves nothing to prove",
        ),
        Some((first, last)) => Failure::new(format!(
            "the ledger does not have this reading; of its journal it has some of {first} to {last}{damage}"
        ))
        .hint("older ones were deleted when `bytes_max` of [collector.ledger] was reached"),
    }
}
