//! Relays that this one dials.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

/// A relay that this one dials to forward there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RelayStatus {
    /// Name under which members of this relay reach it.
    pub(crate) name: String,
    /// Its address.
    pub(crate) address: String,
    /// `forwarding`, `connecting`, `not connected`, or `refused` where the link cannot be used for forwarding.
    pub(crate) state: String,
    /// Names that this relay holds there.
    pub(crate) registered: Vec<String>,
    /// Names that it does not get, and why.
    pub(crate) refused: Vec<String>,
}

impl RelayStatus {
    /// Returns whether members reach it.
    pub(crate) fn is_up(&self) -> bool {
        self.state == "forwarding"
    }

    /// Returns what is wrong, in words.
    pub(super) fn reason(&self) -> Option<String> {
        let (name, address) = (&self.name, &self.address);
        if !self.is_up() {
            return Some(format!("relay {name} at {address}: {}", self.state));
        }
        let refused = (!self.refused.is_empty()).then(|| self.refused.join(", "));
        refused.map(|refused| format!("relay {name} at {address} refuses {refused}"))
    }

    pub(super) fn write_text(&self, out: &mut String) -> std::fmt::Result {
        let names = match self.registered.as_slice() {
            [] => String::new(),
            names => format!(", this relay is {} there", names.join(", ")),
        };
        writeln!(
            out,
            "  relay      {} at {}, {}{names}",
            self.name, self.address, self.state
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_a_relay_is_said() {
        let mut status = RelayStatus {
            name: "b".to_owned(),
            address: "b:1".to_owned(),
            state: "not connected".to_owned(),
            ..RelayStatus::default()
        };
        assert_eq!(status.reason().as_deref(), Some("relay b at b:1: not connected"));
        status.state = "forwarding".to_owned();
        assert_eq!(status.reason(), None);
        status.refused = vec!["a (not authorised)".to_owned()];
        assert_eq!(
            status.reason().as_deref(),
            Some("relay b at b:1 refuses a (not authorised)")
        );
        status.registered = vec!["c".to_owned()];
        let mut text = String::new();
        status.write_text(&mut text).expect("memory");
        assert_eq!(text, "  relay      b at b:1, forwarding, this relay is c there\n");
    }
}
