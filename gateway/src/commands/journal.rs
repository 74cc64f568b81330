//! `fieldgate journal status|verify|dump`: a look at the files, while the node runs or not.

use std::path::PathBuf;

use fieldgate_adapters::reading::Reading;
use fieldgate_io::storage::{Directory, StorageError};
use fieldgate_proto::{
    delivery::PerLane,
    journal::{Damage, JournalSettings, Scanned, scan_segment},
    link::Class,
};
use serde::Serialize;

use super::{Failure, check, print, print_json};
use crate::{
    cli::{JournalArgs, JournalCommand},
    runtime::journal,
    sinks::json,
    status::bytes,
};

pub(super) fn run(command: JournalCommand) -> Result<(), Failure> {
    match command {
        JournalCommand::Status(args) => status(&args),
        JournalCommand::Verify(args) => verify(&args),
        JournalCommand::Dump { journal, from, limit } => dump(&journal, from, limit),
    }
}

/// A lane's files and bounds.
struct Lane {
    class: Class,
    directory: Directory,
    settings: JournalSettings,
}

/// Opens the lanes of the journal, alarms first, and returns the directory that they are in.
fn open(args: &JournalArgs) -> Result<(PathBuf, Vec<Lane>), Failure> {
    let (dir, config) = match &args.dir {
        Some(dir) => (dir.clone(), None),
        None => {
            let config = check::settings(&args.config)?.journal.ok_or_else(|| {
                Failure::input("the file describes no journal")
                    .hint("a node has one if it has [mqtt] or an [[uplink]]")
            })?;
            (config.dir.clone(), Some(config))
        }
    };
    let lanes = Class::ALL.into_iter().map(|class| {
        Ok(Lane {
            class,
            directory: Directory::open_read_only(&journal::lane_dir(&dir, class)).map_err(storage)?,
            settings: config.as_ref().map_or_else(JournalSettings::default, |config| {
                journal::settings(config, class)
            }),
        })
    });
    let lanes = lanes.collect::<Result<_, Failure>>()?;
    Ok((dir, lanes))
}

fn storage(error: StorageError) -> Failure {
    Failure::new(journal::describe(&error)).hint(error.hint())
}

#[derive(Serialize)]
struct Status {
    dir: PathBuf,
    segments: u64,
    bytes: u64,
    waiting: u64,
    set_aside: Vec<String>,
    lanes: Vec<LaneStatus>,
}

#[derive(Serialize)]
struct LaneStatus {
    class: &'static str,
    segments: u64,
    bytes: u64,
    oldest: u64,
    next: u64,
    waiting: u64,
    torn: u64,
    set_aside: Vec<String>,
}

fn lane_status(lane: &Lane) -> Result<LaneStatus, Failure> {
    let (_, report) = journal::recover(&lane.directory, lane.class, lane.settings, &[]).map_err(storage)?;
    let entries = lane.directory.list().map_err(storage)?;
    let segments = entries
        .iter()
        .filter(|entry| journal::segment_number(&entry.name).is_some());
    let kept = entries
        .iter()
        .filter(|entry| entry.name.contains(".bad"))
        .map(|entry| entry.name.clone());
    let now = report
        .quarantined
        .iter()
        .map(|number| journal::segment_name(*number));
    let class = lane.class.name();
    Ok(LaneStatus {
        class,
        segments: segments.clone().count() as u64,
        bytes: segments.map(|entry| entry.length).sum(),
        oldest: report.first,
        next: report.next,
        waiting: report.next - report.first,
        torn: report.torn,
        set_aside: kept.chain(now).map(|name| format!("{class}/{name}")).collect(),
    })
}

fn status(args: &JournalArgs) -> Result<(), Failure> {
    let (dir, lanes) = open(args)?;
    let lanes: Vec<LaneStatus> = lanes.iter().map(lane_status).collect::<Result<_, _>>()?;
    let status = Status {
        dir,
        segments: lanes.iter().map(|lane| lane.segments).sum(),
        bytes: lanes.iter().map(|lane| lane.bytes).sum(),
        waiting: lanes.iter().map(|lane| lane.waiting).sum(),
        set_aside: lanes.iter().flat_map(|lane| lane.set_aside.clone()).collect(),
        lanes,
    };
    if args.json {
        return print_json(&status);
    }
    let mut text = format!(
        "{}\n  {} readings wait in {} segments, {}\n",
        status.dir.display(),
        status.waiting,
        status.segments,
        bytes(status.bytes)
    );
    for lane in &status.lanes {
        text.push_str(&format!(
            "  {:<7} {} readings wait, from {} up to before {}; {} segments, {}\n",
            lane.class,
            lane.waiting,
            lane.oldest,
            lane.next,
            lane.segments,
            bytes(lane.bytes)
        ));
    }
    for name in &status.set_aside {
        text.push_str(&format!("  ! {name} cannot be read and is set aside\n"));
    }
    print(&text)
}

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
}

#[derive(Default, Serialize)]
struct Summary {
    segments: u64,
    blocks: u64,
    readings: u64,
    damaged: u64,
}

fn verify(args: &JournalArgs) -> Result<(), Failure> {
    let (_, lanes) = open(args)?;
    let mut summary = Summary::default();
    let mut found = Vec::new();
    let mut expected = PerLane::<Option<u64>>::default();
    for_each_segment(&lanes, |class, name, bytes| {
        let expected = &mut expected[class];
        summary.segments += 1;
        let mut report = |scanned: Scanned<'_>| match scanned {
            Scanned::Block { offset, header } => {
                summary.blocks += 1;
                let gap = expected.filter(|expected| header.first > *expected);
                if let Some(first) = gap {
                    let last = Some(header.first - 1);
                    found.push(Found {
                        segment: name.to_owned(),
                        offset,
                        damage: "readings missing before",
                        first: Some(first),
                        last,
                    });
                }
                *expected = Some(header.last() + 1);
            }
            Scanned::Record { .. } => summary.readings += 1,
            Scanned::Damage(damage) => found.push(describe(name, &damage)),
        };
        scan_segment(bytes, &mut report);
        Ok(true)
    })?;
    // A torn write at the very end was never acknowledged: it is what a power cut leaves, and no loss.
    summary.damaged = found.iter().filter(|found| found.damage != TORN).count() as u64;
    for found in &found {
        if args.json {
            print_json(found)?;
        } else {
            let range = match (found.first, found.last) {
                (Some(first), Some(last)) => format!(", readings {first} to {last}"),
                _ => String::new(),
            };
            print(&format!(
                "{} at byte {}: {}{range}\n",
                found.segment, found.offset, found.damage
            ))?;
        }
    }
    if args.json {
        print_json(&summary)?;
    } else {
        print(&format!(
            "{} segments, {} blocks, {} readings intact; {} damaged places\n",
            summary.segments, summary.blocks, summary.readings, summary.damaged
        ))?;
    }
    if summary.damaged == 0 {
        Ok(())
    } else {
        Err(Failure::silent(1))
    }
}

fn describe(segment: &str, damage: &Damage) -> Found {
    let found = |offset, damage| Found {
        segment: segment.to_owned(),
        offset,
        damage,
        first: None,
        last: None,
    };
    match damage {
        Damage::SegmentHeader => found(0, "not a segment of a journal"),
        Damage::Records { offset, first, last } => Found {
            first: Some(*first),
            last: Some(*last),
            ..found(*offset, "readings do not verify")
        },
        Damage::Block { offset, .. } => found(*offset, "a block does not verify"),
        Damage::Tail { offset } => found(*offset, TORN),
    }
}

fn dump(args: &JournalArgs, from: u64, limit: Option<u64>) -> Result<(), Failure> {
    let (_, lanes) = open(args)?;
    let mut left = limit.unwrap_or(u64::MAX);
    for_each_segment(&lanes, |_, _, bytes| {
        let mut text = Vec::new();
        scan_segment(bytes, &mut |scanned| {
            let Scanned::Record { sequence, body, .. } = scanned else {
                return;
            };
            if sequence < from || left == 0 {
                return;
            }
            left -= 1;
            match (Reading::decode(body), args.json) {
                (Ok(reading), true) => json::journal_line(&mut text, sequence, &reading),
                (Ok(reading), false) => json::journal_text(&mut text, sequence, &reading),
                (Err(error), _) => {
                    text.extend_from_slice(format!("{sequence}: not a reading: {error}\n").as_bytes())
                }
            }
        });
        print(&String::from_utf8_lossy(&text))?;
        Ok(left > 0)
    })
}

/// Gives every segment to `look`, lane by lane and in order, until it says that is enough.
fn for_each_segment(
    lanes: &[Lane],
    mut look: impl FnMut(Class, &str, &[u8]) -> Result<bool, Failure>,
) -> Result<(), Failure> {
    for lane in lanes {
        for entry in lane.directory.list().map_err(storage)? {
            if journal::segment_number(&entry.name).is_none() {
                continue;
            }
            let name = format!("{}/{}", lane.class.name(), entry.name);
            let length = usize::try_from(entry.length).map_err(|error| Failure::chain(&name, &error))?;
            let bytes = lane.directory.read(&entry.name, 0, length).map_err(storage)?;
            if !look(lane.class, &name, &bytes)? {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// What a power cut leaves behind the last block.
const TORN: &str = "the rest of a write that was never acknowledged";
