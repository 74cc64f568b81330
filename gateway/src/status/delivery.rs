//! Journal, uplinks and sources: where readings are on their way.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::{bytes, duration};

/// The journal.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct JournalStatus {
    /// `ready`, `full`, `failed`: the worst of all lanes.
    pub(crate) state: String,
    /// Bytes of all segments.
    pub(crate) bytes: u64,
    /// Bound on `bytes`.
    pub(crate) bytes_max: u64,
    /// Readings that some collector still needs.
    pub(crate) readings: u64,
    /// Block writes since the start.
    pub(crate) commits: u64,
    /// Readings lost to corruption since the start.
    pub(crate) lost: u64,
    /// Whether a reading is on stable storage before its device is acknowledged.
    pub(crate) durable: bool,
    /// The lanes, alarms first.
    pub(crate) lanes: Vec<LaneStatus>,
}

/// One lane of the journal.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct LaneStatus {
    /// `alarm`, `normal`, `bulk`.
    pub(crate) class: String,
    /// `ready`, `full`, `failed`.
    pub(crate) state: String,
    /// Bytes of its segments.
    pub(crate) bytes: u64,
    /// Bound on `bytes`.
    pub(crate) bytes_max: u64,
    /// Readings that some collector still needs.
    pub(crate) readings: u64,
    /// When the oldest of them was captured, in milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) oldest_captured: Option<u64>,
    /// Highest sequence on stable storage.
    pub(crate) committed: u64,
    /// Block writes since the start.
    pub(crate) commits: u64,
    /// Readings lost to corruption since the start.
    pub(crate) lost: u64,
    /// Readings discarded since there was no room, since the lane was begun.
    pub(crate) discarded: u64,
    /// Readings discarded since they were too old, since the lane was begun.
    pub(crate) expired: u64,
    /// Seconds until it is full, as things go; absent while it drains.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) full_in_secs: Option<u64>,
    /// Bytes given to the disk per day, as things go.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) written_per_day: Option<u64>,
    /// Bytes given to the disk per 1,000 bytes of readings.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) write_amplification_milli: Option<u64>,
    /// What was discarded and is not known to every collector.
    pub(crate) gaps: Vec<GapStatus>,
}

/// Readings that were discarded together.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct GapStatus {
    /// First sequence.
    pub(crate) first: u64,
    /// Last sequence.
    pub(crate) last: u64,
    /// `discarded`, `expired`.
    pub(crate) reason: String,
}

/// One uplink.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct UplinkStatus {
    /// Name from the file.
    pub(crate) name: String,
    /// `delivering`, or what it does instead.
    pub(crate) state: String,
    /// Where the way begins: address of relay or collector.
    pub(crate) via: String,
    /// Readings confirmed by the collector, over all lanes.
    pub(crate) confirmed: u64,
    /// Readings sent and not confirmed.
    pub(crate) in_flight: u64,
    /// Readings committed and not sent.
    pub(crate) waiting: u64,
    /// What happened that an operator should know of, though it goes on.
    pub(crate) notes: Vec<String>,
    /// The lanes, alarms first.
    pub(crate) lanes: Vec<UplinkLaneStatus>,
}

/// One lane of an uplink.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct UplinkLaneStatus {
    /// `alarm`, `normal`, `bulk`.
    pub(crate) class: String,
    /// `down`, `offering`, `delivering`, `set-back`.
    pub(crate) state: String,
    /// Highest sequence confirmed by the collector.
    pub(crate) confirmed: u64,
    /// Readings sent and not confirmed.
    pub(crate) in_flight: u64,
    /// Readings committed and not sent.
    pub(crate) waiting: u64,
    /// Readings sent since the start, repetitions included.
    pub(crate) sent: u64,
    /// Readings that the collector was told are lost, since the start.
    pub(crate) lost: u64,
}

/// One lane of one gateway that delivers here.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct SourceStatus {
    /// Name from the file.
    pub(crate) gateway: String,
    /// `alarm`, `normal`, `bulk`.
    pub(crate) class: String,
    /// Its journal, 32 hexadecimal digits.
    pub(crate) journal: String,
    /// Whether the gateway offers it in a channel that is up.
    pub(crate) connected: bool,
    /// Highest sequence received in order.
    pub(crate) received: u64,
    /// Highest sequence that every sink confirmed.
    pub(crate) confirmed: u64,
    /// Copies dropped.
    pub(crate) duplicates: u64,
    /// Readings that the gateway could not deliver any more.
    pub(crate) lost: u64,
    /// The same, by reason.
    pub(crate) lost_by: Vec<(String, u64)>,
    /// Gap records that they are in.
    pub(crate) gaps: u64,
    /// What happened to its position.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) trouble: Option<String>,
    /// Whether nothing comes because of that.
    pub(crate) stopped: bool,
}

impl JournalStatus {
    pub(super) fn reasons(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        for lane in &self.lanes {
            match lane.state.as_str() {
                "ready" => {}
                "full" => reasons.push(format!(
                    "journal full for {} readings ({} of {} bytes): devices are not acknowledged until the collector has taken some",
                    lane.class, lane.bytes, lane.bytes_max
                )),
                state => reasons.push(format!(
                    "journal {state} for {} readings: devices are not acknowledged; see the log",
                    lane.class
                )),
            }
        }
        if self.lost > 0 {
            reasons.push(format!("journal: {} readings lost to corruption", self.lost));
        }
        reasons
    }

    pub(super) fn write_text(&self, out: &mut String) -> std::fmt::Result {
        writeln!(
            out,
            "  journal    {}, {} readings, {} of {}{}",
            self.state,
            self.readings,
            bytes(self.bytes),
            bytes(self.bytes_max),
            if self.durable { "" } else { ", NOT DURABLE" }
        )?;
        self.lanes.iter().try_for_each(|lane| lane.write_text(out))
    }
}

impl LaneStatus {
    fn write_text(&self, out: &mut String) -> std::fmt::Result {
        write!(
            out,
            "    {:<8} {}, {} readings, {} of {}, committed up to {}",
            self.class,
            self.state,
            self.readings,
            bytes(self.bytes),
            bytes(self.bytes_max),
            self.committed
        )?;
        if let Some(secs) = self.full_in_secs {
            write!(out, ", full in {}", duration(secs))?;
        }
        for (count, why) in [
            (self.discarded, "discarded"),
            (self.expired, "expired"),
            (self.lost, "LOST"),
        ] {
            if count > 0 {
                write!(out, ", {count} {why}")?;
            }
        }
        writeln!(out)
    }
}

impl UplinkStatus {
    pub(super) fn reason(&self) -> Option<String> {
        (self.state != "delivering").then(|| {
            format!(
                "uplink {}: {} (by {}); {} readings wait in the journal",
                self.name, self.state, self.via, self.waiting
            )
        })
    }

    pub(super) fn write_text(&self, out: &mut String) -> std::fmt::Result {
        writeln!(
            out,
            "  uplink     {}: {} by {}, {} confirmed, {} on the way, {} waiting",
            self.name, self.state, self.via, self.confirmed, self.in_flight, self.waiting
        )?;
        for lane in self.lanes.iter().filter(|lane| lane.waiting + lane.in_flight > 0) {
            writeln!(
                out,
                "    {:<8} confirmed up to {}, {} on the way, {} waiting",
                lane.class, lane.confirmed, lane.in_flight, lane.waiting
            )?;
        }
        self.notes
            .iter()
            .try_for_each(|note| writeln!(out, "    ! {note}"))
    }
}

impl SourceStatus {
    pub(super) fn reason(&self) -> Option<String> {
        let trouble = self.trouble.as_ref().filter(|_| self.stopped)?;
        Some(format!(
            "gateway {}, {} readings: {trouble}",
            self.gateway, self.class
        ))
    }

    pub(super) fn write_text(&self, out: &mut String) -> std::fmt::Result {
        write!(
            out,
            "  gateway    {}, {}: received up to {}, confirmed up to {}, {} duplicates dropped, {} lost",
            self.gateway, self.class, self.received, self.confirmed, self.duplicates, self.lost
        )?;
        for (reason, count) in &self.lost_by {
            write!(out, ", {count} {reason}")?;
        }
        writeln!(out)?;
        match &self.trouble {
            Some(trouble) => writeln!(out, "    ! {trouble}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::status::{Health, JournalStatus, LaneStatus, NodeStatus, SourceStatus};

    #[test]
    fn a_full_lane_is_a_reason_and_a_forecast_is_shown() {
        let lane = |class: &str, state: &str, full_in_secs| LaneStatus {
            class: class.to_owned(),
            state: state.to_owned(),
            full_in_secs,
            ..LaneStatus::default()
        };
        let mut status = NodeStatus {
            journal: Some(JournalStatus {
                lanes: vec![lane("alarm", "ready", None), lane("normal", "full", Some(7_200))],
                ..JournalStatus::default()
            }),
            ..NodeStatus::default()
        };
        status.judge();
        assert_eq!(status.health, Health::Degraded);
        let text = status.to_text();
        assert!(text.contains("journal full for normal readings"), "{text}");
        assert!(text.contains("full in 2 h 0 min"), "{text}");
    }

    #[test]
    fn a_collector_that_was_set_back_says_so_and_is_healthy_unless_nothing_comes() {
        for (stopped, health) in [(false, Health::Healthy), (true, Health::Degraded)] {
            let mut status = NodeStatus {
                sources: vec![SourceStatus {
                    trouble: Some("it was set back".to_owned()),
                    stopped,
                    ..SourceStatus::default()
                }],
                ..NodeStatus::default()
            };
            status.judge();
            assert_eq!(status.health, health);
            assert!(status.to_text().contains("! it was set back"));
        }
    }
}
