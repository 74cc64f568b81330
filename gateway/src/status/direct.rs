//! Direct paths.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

/// The direct path of an uplink, or to a node that inlets lead to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DirectPathStatus {
    /// `up`, `waiting`, `asking`, `dialling`, `opening`.
    pub(crate) state: String,
    /// Address of the other end, once it is connected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) peer: Option<String>,
    /// How long it is up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) up_secs: Option<u64>,
    /// When it is tried again, if it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) retry_in_secs: Option<u64>,
    /// Why it is not: `no_answer`, `no_address`, `not_reached`, `not_there`, `broken`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) failure: Option<String>,
    /// What an operator can do about that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) hint: Option<String>,
}

/// Direct paths, all together, since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DirectStatus {
    /// Addresses of this node that peers are told.
    pub(crate) addresses: Vec<String>,
    /// Times that a peer was asked for its addresses.
    pub(crate) attempts: u64,
    /// Attempts and paths that failed, by reason.
    pub(crate) failed: Vec<(String, u64)>,
    /// Times that a peer that asked was told the addresses of this node.
    pub(crate) answered: u64,
    /// Times that it was not, since too many asked.
    pub(crate) unanswered: u64,
}

impl DirectPathStatus {
    pub(super) fn write_text(&self, out: &mut String) -> std::fmt::Result {
        write!(out, "    direct path {}", self.state)?;
        if let Some(peer) = &self.peer {
            write!(out, ", {peer}")?;
        }
        if let Some(secs) = self.up_secs {
            write!(out, ", for {secs} s")?;
        }
        if let Some(secs) = self.retry_in_secs {
            write!(out, ", tried again in {secs} s")?;
        }
        if let (Some(failure), Some(hint)) = (&self.failure, &self.hint) {
            write!(out, "; failed: {failure} (help: {hint})")?;
        }
        writeln!(out)
    }
}

impl DirectStatus {
    pub(super) fn write_text(&self, out: &mut String) -> std::fmt::Result {
        let addresses = if self.addresses.is_empty() {
            "no address".to_owned()
        } else {
            self.addresses.join(", ")
        };
        writeln!(
            out,
            "  direct     told peers: {addresses}; asked {} times, answered {}",
            self.attempts, self.answered
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_read_well() {
        let up = DirectPathStatus {
            state: "up".to_owned(),
            peer: Some("quic://10.0.0.2:4433 at 10.0.0.2:4433".to_owned()),
            up_secs: Some(7),
            ..DirectPathStatus::default()
        };
        let waiting = DirectPathStatus {
            state: "waiting".to_owned(),
            retry_in_secs: Some(9),
            failure: Some("not_reached".to_owned()),
            hint: Some("let UDP pass".to_owned()),
            ..DirectPathStatus::default()
        };
        let mut text = String::new();
        up.write_text(&mut text).expect("memory");
        waiting.write_text(&mut text).expect("memory");
        assert_eq!(
            text,
            "    direct path up, quic://10.0.0.2:4433 at 10.0.0.2:4433, for 7 s\n    direct path waiting, tried again in 9 s; \
             failed: not_reached (help: let UDP pass)\n"
        );
    }
}
