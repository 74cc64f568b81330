//! `fieldgate journal dump`: readings, on standard output.

use fieldgate_adapters::reading::Reading;
use fieldgate_proto::journal::{Scanned, scan_segment};

use super::{Files, Lane, Segment};
use crate::{
    cli::{JournalArgs, JournalFilter},
    commands::{Failure, print},
    sinks::json,
};

pub(super) fn run(args: &JournalArgs, filter: &JournalFilter) -> Result<(), Failure> {
    let files = Files::open(args)?;
    for_each_reading(&files, filter, |_, _, sequence, reading| {
        let mut text = Vec::new();
        match (reading, args.json) {
            (Ok(reading), true) => json::journal_line(&mut text, sequence, &reading),
            (Ok(reading), false) => json::journal_text(&mut text, sequence, &reading),
            (Err(error), _) => text.extend_from_slice(format!("{sequence}: {error}\n").as_bytes()),
        }
        print(&String::from_utf8_lossy(&text))
    })
}

/// Gives every reading that passes the filter to `take`, or why it is none.
pub(super) fn for_each_reading(
    files: &Files,
    filter: &JournalFilter,
    mut take: impl FnMut(&Lane, &Segment, u64, Result<Reading<'_>, String>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut left = filter.limit.unwrap_or(u64::MAX);
    files.for_each_segment(|lane, segment| {
        if filter
            .class
            .as_deref()
            .is_some_and(|class| class != lane.class.name())
        {
            return Ok(true);
        }
        let opener = files.opener(segment)?;
        let mut result = Ok(());
        scan_segment(&segment.bytes, &mut |scanned| {
            let Scanned::Record {
                sequence,
                class,
                body,
            } = scanned
            else {
                return;
            };
            if result.is_err() || left == 0 || !(filter.from..=filter.to).contains(&sequence) {
                return;
            }
            let opened = opener.as_ref().map(|opener| opener.open(sequence, class, body));
            let reading = match &opened {
                Some(None) => Err("does not decrypt".to_owned()),
                Some(Some(body)) => decode(body),
                None => decode(body),
            };
            let is_wanted = match (&filter.device, &reading) {
                (Some(device), Ok(reading)) => reading.device == device,
                (Some(_), Err(_)) => false,
                (None, _) => true,
            };
            if is_wanted {
                left -= 1;
                result = take(lane, segment, sequence, reading);
            }
        });
        result.map(|()| left > 0)
    })
}

fn decode(body: &[u8]) -> Result<Reading<'_>, String> {
    Reading::decode(body).map_err(|error| format!("not a reading: {error}"))
}
