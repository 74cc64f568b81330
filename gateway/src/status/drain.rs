//! What the status says of a relay that is being drained.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

/// A relay that its members are to leave.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DrainStatus {
    /// Since when, in seconds.
    pub(crate) for_secs: u64,
    /// Links of members that have not left.
    pub(crate) left: u64,
    /// How many of them have said that they have no other way.
    pub(crate) stuck: u64,
    /// Whether some of them may still leave by themselves.
    pub(crate) is_waiting: bool,
    /// Labels in use: two for each conversation that goes over this relay.
    pub(crate) labels: u64,
    /// The first 100 of those who have not left.
    pub(crate) members: Vec<LeaverStatus>,
}

/// A member that has not left.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LeaverStatus {
    /// What it is called, or its identifier.
    pub(crate) name: String,
    /// Its identifier.
    pub(crate) identifier: String,
    /// Where it connects from.
    pub(crate) peer: String,
    /// Names it holds.
    pub(crate) names: Vec<String>,
    /// `no_other_way`, `moving`, `peers`; nothing if it has not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
}

impl LeaverStatus {
    /// Says in words why it is there.
    fn why(&self) -> &str {
        match self.reason.as_deref() {
            Some("no_other_way") => "has no other way",
            Some("moving") => "is moving",
            Some("peers") => "is needed by others that are still here",
            Some(_) | None => "has not answered",
        }
    }
}

impl DrainStatus {
    /// Returns what is to be said of it.
    pub(super) fn reason(&self) -> String {
        format!(
            "the relay is being drained: {} members left, {} of them without another way; `fieldgate relay undrain` takes it back",
            self.left, self.stuck
        )
    }

    /// Writes those who are still there.
    ///
    /// # Errors
    /// What `out` says.
    pub(crate) fn write_members(&self, out: &mut String) -> std::fmt::Result {
        for member in &self.members {
            let names = match member.names.as_slice() {
                [] => String::new(),
                names => format!(" as {}", names.join(", ")),
            };
            writeln!(
                out,
                "  {} from {}{names}: {}",
                member.name,
                member.peer,
                member.why()
            )?;
        }
        match self.left.saturating_sub(self.members.len() as u64) {
            0 => Ok(()),
            more => writeln!(out, "  and {more} more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_left_and_why_is_said() {
        let leaver = |name: &str, names: &[&str], reason: Option<&str>| LeaverStatus {
            name: name.to_owned(),
            identifier: "fg1x".to_owned(),
            peer: "10.0.0.7:4711".to_owned(),
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            reason: reason.map(ToOwned::to_owned),
        };
        let status = DrainStatus {
            left: 5,
            stuck: 1,
            members: vec![
                leaver("a", &[], Some("no_other_way")),
                leaver("b", &["plant", "mill"], Some("peers")),
                leaver("c", &[], None),
            ],
            ..DrainStatus::default()
        };
        let mut text = String::new();
        status.write_members(&mut text).expect("memory");
        assert_eq!(
            text,
            "  a from 10.0.0.7:4711: has no other way\n  b from 10.0.0.7:4711 as plant, mill: is needed by others that are \
             still here\n  c from 10.0.0.7:4711: has not answered\n  and 2 more\n"
        );
        assert!(status.reason().contains("5 members left, 1 of them"));
    }
}
