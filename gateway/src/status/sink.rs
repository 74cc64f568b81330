//! What a collector tells of its sinks.

use std::fmt::{self, Write as _};

use serde::{Deserialize, Serialize};

use super::{bytes, duration};

/// One sink.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct SinkStatus {
    /// Kind and target.
    pub(crate) name: String,
    /// `starting`, `taking`, `away`, `refused` or `ended`.
    #[serde(default)]
    pub(crate) state: String,
    /// Seconds since it is so.
    #[serde(default)]
    pub(crate) for_secs: u64,
    /// Whether it takes readings.
    pub(crate) reachable: bool,
    /// What went wrong last, also if that is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) last_error: Option<String>,
    /// What an operator should know though the sink works as it can.
    #[serde(default)]
    pub(crate) notices: Vec<String>,
    /// What an operator has to look after.
    #[serde(default)]
    pub(crate) warnings: Vec<String>,
    /// Readings confirmed since the start.
    pub(crate) confirmed: u64,
    /// Sequences recorded as missing since the start.
    #[serde(default)]
    pub(crate) missing: u64,
    /// Readings it had already.
    pub(crate) duplicates: u64,
    /// Readings that did not decode.
    #[serde(default)]
    pub(crate) undecodable: u64,
    /// Readings refused for good and put aside since the start.
    #[serde(default)]
    pub(crate) set_aside: u64,
    /// Failures since the start.
    pub(crate) errors: u64,
    /// Bytes of readings that wait for it.
    pub(crate) waiting_bytes: u64,
    /// Seconds in which readings waited and none was confirmed.
    #[serde(default)]
    pub(crate) still_secs: u64,
}

impl SinkStatus {
    /// Returns why the node is not healthy because of this sink.
    pub(super) fn reasons(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        let name = &self.name;
        let error = self
            .last_error
            .as_ref()
            .map_or_else(String::new, |error| format!(": {error}"));
        match self.state.as_str() {
            "taking" if self.still_secs >= STILL_SECS => reasons.push(format!(
                "sink {name}: nothing confirmed for {}, {} wait; gateways keep their readings",
                duration(self.still_secs),
                bytes(self.waiting_bytes)
            )),
            "taking" => {}
            "refused" => reasons.push(format!(
                "sink {name}: refuses for {}{error}; gateways keep their readings",
                duration(self.for_secs)
            )),
            "ended" => reasons.push(format!("sink {name}: ended; restart the collector")),
            _ => reasons.push(format!(
                "sink {name}: not reachable for {}{error}; gateways keep their readings",
                duration(self.for_secs)
            )),
        }
        reasons.extend(self.warnings.iter().map(|text| format!("sink {name}: {text}")));
        reasons
    }

    /// Writes the sink for a person.
    pub(super) fn write_text(&self, out: &mut String) -> fmt::Result {
        let state = match self.state.as_str() {
            "taking" => "reachable",
            "refused" => "REFUSES",
            "ended" => "ENDED",
            _ => "NOT REACHABLE",
        };
        write!(
            out,
            "  sink       {}: {state} for {}, {} confirmed, {} waiting",
            self.name,
            duration(self.for_secs),
            self.confirmed,
            bytes(self.waiting_bytes)
        )?;
        for (count, what) in [
            (self.missing, "recorded as missing"),
            (self.duplicates, "copies left out"),
            (self.set_aside, "PUT ASIDE"),
            (self.undecodable, "NOT READABLE"),
            (self.errors, "failures"),
        ] {
            if count > 0 {
                write!(out, ", {count} {what}")?;
            }
        }
        writeln!(out)?;
        for notice in &self.notices {
            writeln!(out, "             {notice}")?;
        }
        if let Some(error) = &self.last_error {
            writeln!(out, "             last failure: {error}")?;
        }
        Ok(())
    }
}

/// Seconds without confirmation after which a sink that is there counts as stuck.
const STILL_SECS: u64 = 30;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_state_has_its_reason() {
        let mut sink = SinkStatus {
            name: "nats a:1".to_owned(),
            state: "taking".to_owned(),
            waiting_bytes: 2048,
            ..SinkStatus::default()
        };
        assert_eq!(sink.reasons(), Vec::<String>::new());
        sink.still_secs = 90;
        assert_eq!(
            sink.reasons(),
            ["sink nats a:1: nothing confirmed for 1 min 30 s, 2.0 KiB wait; gateways keep their readings"]
        );
        sink.state = "away".to_owned();
        sink.for_secs = 5;
        sink.last_error = Some("connection refused".to_owned());
        assert_eq!(
            sink.reasons(),
            ["sink nats a:1: not reachable for 5 s: connection refused; gateways keep their readings"]
        );
        sink.state = "refused".to_owned();
        sink.warnings = vec!["x".to_owned()];
        assert_eq!(
            sink.reasons(),
            [
                "sink nats a:1: refuses for 5 s: connection refused; gateways keep their readings",
                "sink nats a:1: x"
            ]
        );
        let mut text = String::new();
        sink.write_text(&mut text).unwrap();
        assert!(text.contains("REFUSES for 5 s") && text.contains("last failure: connection refused"));
    }
}
