//! `fieldgate journal verify`.

use fieldgate_proto::{
    delivery::PerLane,
    journal::{Damage, LaneView, RecordOpener, Scanned, scan_segment},
    time::Now,
};
use serde::Serialize;

use super::{Files, Segment, storage};
use crate::{
    cli::JournalArgs,
    commands::{Failure, print, print_json},
    runtime::journal,
};

/// What `verify` says about one piece of damage.
#[derive(Serialize)]
struct Found {
    segment: String,
    offset: u64,
    damage: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    first: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last: Option<u64>,
    cure: &'static str,
}

#[derive(Default, Serialize)]
struct Summary {
    segments: u64,
    blocks: u64,
    readings: u64,
    /// Readings whose encryption was verified as well.
    opened: u64,
    /// Gaps that not every collector knows of: policy discarded them.
    gaps: u64,
    damaged: u64,
}

/// What is found in the segments of a journal.
struct Verification {
    summary: Summary,
    found: Vec<Found>,
    /// The sequence that should come next, by lane.
    expected: PerLane<Option<u64>>,
}

pub(super) fn run(args: &JournalArgs) -> Result<(), Failure> {
    let files = Files::open(args)?;
    let mut views = Vec::new();
    for lane in &files.lanes {
        let (recovered, _) = journal::recover(
            &lane.directory,
            lane.class,
            lane.settings,
            (&[], files.key.as_ref()),
        )
        .map_err(storage)?;
        views.push((lane.class, recovered.view(Now::default())));
    }
    let mut verification = Verification {
        summary: Summary::default(),
        found: Vec::new(),
        expected: PerLane::default(),
    };
    for (class, view) in &views {
        verification.summary.gaps += view.gaps.len() as u64;
        // What was released or discarded may be there or not; what comes then has to be.
        verification.expected[*class] = Some(view.oldest);
    }
    files.for_each_segment(|lane, segment| {
        let view = views.iter().find(|(class, _)| *class == lane.class);
        let opener = if files.key.is_some() {
            files.opener(segment)?
        } else {
            None
        };
        let expected = &mut verification.expected[lane.class];
        let gone = view.map_or(0, |(_, view)| gone(view));
        look(
            segment,
            opener.as_ref(),
            (expected, gone),
            (&mut verification.summary, &mut verification.found),
        );
        Ok(true)
    })?;
    // A torn write at the very end was never acknowledged: it is what a power cut leaves, and no loss.
    verification.summary.damaged = verification
        .found
        .iter()
        .filter(|found| found.damage != TORN)
        .count() as u64;
    say(args.json, &verification)?;
    if verification.summary.damaged == 0 {
        Ok(())
    } else {
        Err(Failure::silent(1))
    }
}

/// Returns up to where nothing is needed any more.
const fn gone(view: &LaneView) -> u64 {
    view.oldest.saturating_sub(1)
}

/// Looks at everything in a segment.
fn look(
    segment: &Segment,
    opener: Option<&RecordOpener>,
    (expected, gone): (&mut Option<u64>, u64),
    (summary, found): (&mut Summary, &mut Vec<Found>),
) {
    summary.segments += 1;
    let mut block_offset = 0;
    let mut report = |scanned: Scanned<'_>| match scanned {
        Scanned::Block { offset, header } => {
            summary.blocks += 1;
            block_offset = offset;
            let missing = expected.filter(|expected| header.first > *expected);
            if let Some(first) = missing {
                found.push(Found {
                    first: Some(first),
                    last: Some(header.first - 1),
                    ..damage(segment, offset, MISSING)
                });
            }
            let next = header.last() + 1;
            *expected = Some(expected.map_or(next, |expected| expected.max(next)));
        }
        Scanned::Record {
            sequence,
            class,
            body,
        } => match opener {
            Some(opener) if opener.open(sequence, class, body).is_none() => found.push(Found {
                first: Some(sequence),
                last: Some(sequence),
                ..damage(segment, block_offset, FORGED)
            }),
            _ => {
                summary.readings += 1;
                summary.opened += u64::from(opener.is_some());
            }
        },
        Scanned::Damage(kind) => match kind {
            Damage::SegmentHeader => found.push(damage(segment, 0, NO_SEGMENT)),
            // Nobody will ever ask for them.
            Damage::Records { last, .. } if last <= gone => {}
            Damage::Records { offset, first, last } => found.push(Found {
                first: Some(first),
                last: Some(last),
                ..damage(segment, offset, RECORDS)
            }),
            Damage::Block { offset, .. } => found.push(damage(segment, offset, BLOCK)),
            Damage::Tail { offset } => found.push(damage(segment, offset, TORN)),
        },
    };
    scan_segment(&segment.bytes, &mut report);
}

fn damage(segment: &Segment, offset: u64, damage: &'static str) -> Found {
    let cure = match damage {
        TORN => "nothing to do: a power cut leaves this",
        NO_SEGMENT => "restart the node, which sets the file aside and goes on without it",
        FORGED => "somebody changed the file: keep a copy, and find out who can write to the disk",
        _ => {
            "nothing to restore it from: collectors are told what is lost. Replace a disk on which this happens again"
        }
    };
    Found {
        segment: segment.name.clone(),
        offset,
        damage,
        first: None,
        last: None,
        cure,
    }
}

fn say(is_json: bool, verification: &Verification) -> Result<(), Failure> {
    let summary = &verification.summary;
    for found in &verification.found {
        if is_json {
            print_json(found)?;
            continue;
        }
        let range = match (found.first, found.last) {
            (Some(first), Some(last)) => format!(", readings {first} to {last}"),
            _ => String::new(),
        };
        print(&format!(
            "{} at byte {}: {}{range}\n  {}\n",
            found.segment, found.offset, found.damage, found.cure
        ))?;
    }
    if is_json {
        return print_json(summary);
    }
    print(&format!(
        "{} segments, {} blocks, {} readings intact; {} damaged places\n",
        summary.segments, summary.blocks, summary.readings, summary.damaged
    ))?;
    if summary.gaps > 0 {
        print(&format!(
            "{} ranges were discarded by policy; `fieldgate journal status` shows them\n",
            summary.gaps
        ))?;
    }
    Ok(())
}

/// What a power cut leaves behind the last block.
const TORN: &str = "the rest of a write that was never acknowledged";
const NO_SEGMENT: &str = "not a segment of a journal";
const RECORDS: &str = "readings do not verify";
const BLOCK: &str = "a block does not verify";
const MISSING: &str = "readings missing before";
const FORGED: &str = "a reading does not decrypt, although its checksum is right";
