//! `fieldgate journal status`.

use std::{path::PathBuf, time::Duration};

use fieldgate_proto::{
    delivery::LostReason,
    journal::{Gap, LaneView},
    time::Now,
};
use serde::Serialize;

use super::{Files, Lane, storage};
use crate::{
    cli::JournalArgs,
    commands::{Failure, print, print_json},
    runtime::journal,
    sinks::json::rfc3339,
    status::bytes,
};

#[derive(Serialize)]
struct Status {
    dir: PathBuf,
    segments: u64,
    bytes: u64,
    waiting: u64,
    set_aside: Vec<String>,
    lanes: Vec<LaneStatus>,
}

/// A lane, as its files tell it. Rates are those of what is on the disk: a running node's own are in `fieldgate status`.
#[derive(Serialize)]
struct LaneStatus {
    class: &'static str,
    encrypted: bool,
    segments: u64,
    bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes_max: Option<u64>,
    oldest: u64,
    next: u64,
    waiting: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    oldest_captured_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    oldest_age_secs: Option<u64>,
    /// Bytes of blocks per day.
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes_per_day: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    full_in_secs: Option<u64>,
    /// Bytes given to the disk per byte of readings, since the lane was begun.
    #[serde(skip_serializing_if = "Option::is_none")]
    write_amplification: Option<f64>,
    /// Bytes the disk will be given in a year.
    #[serde(skip_serializing_if = "Option::is_none")]
    wear_bytes_per_year: Option<u64>,
    discarded: u64,
    expired: u64,
    gaps: Vec<GapStatus>,
    torn: u64,
    locked: bool,
    set_aside: Vec<String>,
}

#[derive(Serialize)]
struct GapStatus {
    first: u64,
    last: u64,
    reason: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<String>,
}

impl GapStatus {
    fn new(gap: &Gap) -> Self {
        let times = gap.captured.times();
        Self {
            first: gap.first,
            last: gap.last,
            reason: match gap.reason {
                LostReason::Discarded => "no room",
                LostReason::Expired => "too old",
                LostReason::Corrupt => "damaged",
                LostReason::Released => "confirmed",
            },
            from: times.map(|(earliest, _)| rfc3339(earliest)),
            to: times.map(|(_, latest)| rfc3339(latest)),
        }
    }
}

pub(super) fn run(args: &JournalArgs) -> Result<(), Failure> {
    let files = Files::open(args)?;
    let now = fieldgate_io::clock::wall().unix_millis;
    let lanes = files.lanes.iter().map(|lane| lane_status(lane, &files, now));
    let lanes: Vec<LaneStatus> = lanes.collect::<Result<_, _>>()?;
    let status = Status {
        dir: files.dir,
        segments: lanes.iter().map(|lane| lane.segments).sum(),
        bytes: lanes.iter().map(|lane| lane.bytes).sum(),
        waiting: lanes.iter().map(|lane| lane.waiting).sum(),
        set_aside: lanes.iter().flat_map(|lane| lane.set_aside.clone()).collect(),
        lanes,
    };
    if args.json {
        return print_json(&status);
    }
    print(&text(&status))
}

fn lane_status(lane: &Lane, files: &Files, now: u64) -> Result<LaneStatus, Failure> {
    let recovered = journal::recover(
        &lane.directory,
        lane.class,
        lane.settings,
        (&[], files.key.as_ref()),
    );
    let (recovered, report) = recovered.map_err(storage)?;
    let view = recovered.view(Now::default());
    let entries = lane.directory.list().map_err(storage)?;
    let segments = entries
        .iter()
        .filter(|entry| journal::segment_number(&entry.name).is_some());
    let kept = entries
        .iter()
        .filter(|entry| entry.name.contains(".bad"))
        .map(|entry| entry.name.clone());
    let unreadable = report
        .quarantined
        .iter()
        .map(|number| journal::segment_name(*number));
    let class = lane.class.name();
    let per_day = bytes_per_day(&view);
    let amplification = view.write_amplification_milli;
    Ok(LaneStatus {
        class,
        encrypted: recovered.is_encrypted() || !report.locked.is_empty(),
        segments: segments.clone().count() as u64,
        bytes: segments.map(|entry| entry.length).sum(),
        bytes_max: lane.is_configured.then_some(view.bytes_max),
        oldest: view.oldest,
        next: view.committed + 1,
        waiting: view.waiting,
        oldest_captured_at: view.oldest_captured.map(rfc3339),
        oldest_age_secs: view
            .oldest_captured
            .map(|captured| now.saturating_sub(captured) / 1000),
        bytes_per_day: per_day,
        full_in_secs: per_day.filter(|_| lane.is_configured).and_then(|per_day| {
            (view.bytes_max.saturating_sub(view.bytes) * SECS_PER_DAY).checked_div(per_day)
        }),
        #[expect(clippy::cast_precision_loss, reason = "thousandths of a small number")]
        write_amplification: amplification.map(|milli| milli as f64 / 1000.0),
        wear_bytes_per_year: per_day.map(|per_day| per_day.saturating_mul(365)),
        discarded: view.totals.discarded,
        expired: view.totals.expired,
        gaps: view.gaps.iter().map(GapStatus::new).collect(),
        torn: report.torn,
        locked: !report.locked.is_empty(),
        set_aside: kept
            .chain(unreadable)
            .map(|name| format!("{class}/{name}"))
            .collect(),
    })
}

/// Returns how many bytes of blocks a day brings, by what is on the disk; `None` if that spans less than a minute.
fn bytes_per_day(view: &LaneView) -> Option<u64> {
    let (earliest, latest) = view.captured?;
    let millis = latest.saturating_sub(earliest);
    if millis < SPAN_MILLIS_MIN {
        return None;
    }
    let bytes = u128::from(view.block_bytes) * u128::from(SECS_PER_DAY * 1000) / u128::from(millis);
    u64::try_from(bytes).ok()
}

fn text(status: &Status) -> String {
    let mut text = format!(
        "{}\n  {} readings wait in {} segments, {}\n",
        status.dir.display(),
        status.waiting,
        status.segments,
        bytes(status.bytes)
    );
    for lane in &status.lanes {
        let of = lane
            .bytes_max
            .map_or_else(String::new, |bytes_max| format!(" of {}", bytes(bytes_max)));
        text.push_str(&format!(
            "  {:<7} {} readings wait, from {} up to before {}; {} segments, {}{of}{}\n",
            lane.class,
            lane.waiting,
            lane.oldest,
            lane.next,
            lane.segments,
            bytes(lane.bytes),
            if lane.encrypted { ", encrypted" } else { "" },
        ));
        if let (Some(at), Some(age)) = (&lane.oldest_captured_at, lane.oldest_age_secs) {
            let age = humantime::format_duration(Duration::from_secs(age));
            text.push_str(&format!("          the oldest is of {at}, {age} old\n"));
        }
        if let Some(per_day) = lane.bytes_per_day {
            let full = lane.full_in_secs.map_or_else(String::new, |secs| {
                format!("; with no collector full in {} h", secs / 3600)
            });
            text.push_str(&format!(
                "          {} a day, {} a year on the disk{full}\n",
                bytes(per_day),
                bytes(lane.wear_bytes_per_year.unwrap_or_default())
            ));
        }
        if let Some(amplification) = lane.write_amplification {
            text.push_str(&format!(
                "          {amplification:.2} bytes written per byte of readings\n"
            ));
        }
        if lane.discarded + lane.expired > 0 {
            text.push_str(&format!(
                "          {} readings discarded since there was no room, {} since they were too old\n",
                lane.discarded, lane.expired
            ));
        }
        for gap in &lane.gaps {
            text.push_str(&format!(
                "  ! {} to {} are gone ({}), and not every collector knows\n",
                gap.first, gap.last, gap.reason
            ));
        }
        if lane.locked {
            text.push_str(&format!(
                "  ! {} holds segments that are encrypted with another key\n",
                lane.class
            ));
        }
    }
    for name in &status.set_aside {
        text.push_str(&format!("  ! {name} cannot be read and is set aside\n"));
    }
    text
}

const SECS_PER_DAY: u64 = 86_400;
/// Readings of a shorter time say nothing about a day.
const SPAN_MILLIS_MIN: u64 = 60_000;
