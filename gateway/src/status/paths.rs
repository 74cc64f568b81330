//! The ways to a collector, or to a node that inlets lead to, where there are several.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::direct::DirectPathStatus;

/// The ways to one node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PathsStatus {
    /// `uplink`, or `portals` for the inlets that lead to one node.
    pub(crate) kind: String,
    /// Name of the uplink, or identifier of the node.
    pub(crate) name: String,
    /// How often another way was taken while the node at the other end could be reached.
    pub(crate) switches: u64,
    /// Each way, in the order of the file.
    pub(crate) paths: Vec<PathStatus>,
    /// That without a relay, if there shall be one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) direct: Option<DirectPathStatus>,
}

/// One way.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PathStatus {
    /// Address of the relay or node it begins with.
    pub(crate) by: String,
    /// Names of further relays.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) through: Vec<String>,
    /// `active`, `standby` or `down`.
    pub(crate) state: String,
    /// Smoothed round trip to the other end in microseconds, once measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) rtt_us: Option<u64>,
    /// Lost probes in a thousand, smoothed.
    pub(crate) loss_permille: u16,
    /// Why it is in use: `first`, `closed`, `silent` (the one before was), `better`,
    /// `drained`, `direct`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
}

impl PathsStatus {
    pub(super) fn write_text(&self, out: &mut String) -> std::fmt::Result {
        writeln!(
            out,
            "  paths      {} {}, changed {} times",
            self.kind, self.name, self.switches
        )?;
        self.paths.iter().try_for_each(|path| path.write_text(out))?;
        self.direct.iter().try_for_each(|direct| direct.write_text(out))
    }
}

impl PathStatus {
    fn write_text(&self, out: &mut String) -> std::fmt::Result {
        write!(out, "    {:<8} {}", self.state, self.by)?;
        for relay in &self.through {
            write!(out, " › {relay}")?;
        }
        if let Some(rtt) = self.rtt_us {
            write!(out, ", {}.{:03} ms", rtt / 1000, rtt % 1000)?;
        }
        if self.loss_permille > 0 {
            write!(
                out,
                ", {}.{} % lost",
                self.loss_permille / 10,
                self.loss_permille % 10
            )?;
        }
        match self.reason.as_deref() {
            Some("silent") => writeln!(out, ", taken since the one before was silent"),
            Some("closed") => writeln!(out, ", taken since the one before was closed"),
            Some("better") => writeln!(out, ", taken since it is better"),
            Some("direct") => writeln!(out, ", taken since it needs no relay"),
            Some("drained") => writeln!(out, ", taken since the relay before was about to stop"),
            _ => writeln!(out),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ways_read_well() {
        let status = PathsStatus {
            kind: "uplink".to_owned(),
            name: "plant".to_owned(),
            switches: 1,
            paths: vec![
                PathStatus {
                    by: "a:1".to_owned(),
                    state: "down".to_owned(),
                    loss_permille: 1000,
                    ..PathStatus::default()
                },
                PathStatus {
                    by: "b:1".to_owned(),
                    through: vec!["c".to_owned()],
                    state: "active".to_owned(),
                    rtt_us: Some(12_345),
                    reason: Some("silent".to_owned()),
                    ..PathStatus::default()
                },
            ],
            direct: None,
        };
        let mut text = String::new();
        status.write_text(&mut text).expect("memory");
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines,
            [
                "  paths      uplink plant, changed 1 times",
                "    down     a:1, 100.0 % lost",
                "    active   b:1 › c, 12.345 ms, taken since the one before was silent",
            ]
        );
    }
}
