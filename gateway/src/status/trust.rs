//! What a node tells of its authority, its token and its clock.

use std::fmt::{self, Write as _};

use fieldgate_hsm::process::{Condition, ProcessState};
use fieldgate_proto::{
    node::{AuthorityState, TrustView},
    time::WallTime,
};
use serde::{Deserialize, Serialize};

use super::duration;

/// The authority that the node belongs to.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct TrustStatus {
    /// Who it is, `fg1…`; absent while the node is not enrolled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) authority: Option<String>,
    /// Whether it is this node.
    #[serde(default)]
    pub(crate) is_authority: bool,
    /// Whether the channel to it is up; on the authority itself, true.
    pub(crate) connected: bool,
    /// The node's name in its credential.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) member: Option<String>,
    /// Seconds until the credential ends; 0 if there is none or it has ended.
    pub(crate) credential_secs: u64,
    /// `fresh`, `stale`, `lapsed` or `none`: the list of the revoked.
    pub(crate) list: String,
    /// Its number.
    pub(crate) list_number: u64,
    /// Whether the list names this node itself.
    #[serde(default)]
    pub(crate) self_revoked: bool,
    /// Peers served although their credential has ended.
    pub(crate) peers_in_grace: usize,
    /// Channels closed because the peer was revoked.
    pub(crate) revoked: u64,
    /// Credentials refused.
    pub(crate) credentials_refused: u64,
    /// Lists refused.
    pub(crate) lists_refused: u64,
}

impl TrustStatus {
    /// Takes what the core tells.
    pub(crate) fn new(view: &TrustView, wall: WallTime, is_authority: bool) -> Self {
        let credential = view.credential.as_ref();
        Self {
            authority: view.authority.map(|authority| authority.to_string()),
            is_authority,
            connected: is_authority || view.state == AuthorityState::Up,
            member: credential.map(|credential| credential.name.clone()),
            credential_secs: credential.map_or(0, |credential| {
                credential.not_after.saturating_sub(wall.unix_secs())
            }),
            list: view.freshness.name().to_owned(),
            list_number: view.list_number,
            self_revoked: view.self_revoked,
            peers_in_grace: view.peers_in_grace,
            ..Self::default()
        }
    }

    /// Returns what an operator has to know.
    pub(crate) fn reasons(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        if self.self_revoked {
            reasons.push(
                "this node is revoked: no member serves it any more. If that is a mistake, make it a new identity and enrol that"
                    .to_owned(),
            );
        }
        // An authority that cannot sign yet says so itself.
        if self.member.is_none() && !self.is_authority {
            reasons.push("not enrolled: get a ticket and run `fieldgate enroll`".to_owned());
        } else if self.credential_secs == 0 && !self.connected {
            reasons.push("no credential that is good any more, and the authority is not reached".to_owned());
        }
        match self.list.as_str() {
            "stale" => reasons.push(
                "the list of the revoked is out of date: the authority was not reached; time of grace runs"
                    .to_owned(),
            ),
            "lapsed" => {
                reasons
                    .push("the list of the revoked is out of date, and the time of grace is over".to_owned());
            }
            _ => {}
        }
        if self.peers_in_grace > 0 {
            reasons.push(format!(
                "{} peers are served in their time of grace",
                self.peers_in_grace
            ));
        }
        reasons
    }

    pub(crate) fn write_text(&self, out: &mut String) -> fmt::Result {
        let Some(authority) = &self.authority else {
            return writeln!(out, "  trust      not enrolled");
        };
        let connected = if self.connected { "reached" } else { "NOT REACHED" };
        writeln!(out, "  authority  {authority}, {connected}")?;
        if self.self_revoked {
            writeln!(
                out,
                "             THIS NODE IS REVOKED by list {}",
                self.list_number
            )?;
        }
        if self.member.is_none() && !self.is_authority {
            writeln!(
                out,
                "             not enrolled, list of the revoked {} is {}",
                self.list_number, self.list
            )?;
        }
        if let Some(member) = &self.member {
            writeln!(
                out,
                "             member {member}, credential valid for {}, list of the revoked {} is {}",
                duration(self.credential_secs),
                self.list_number,
                self.list
            )?;
        }
        Ok(())
    }
}

/// The process that holds the key.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct TokenStatus {
    /// `running`, `restarting`, `pin_refused` or `login_deadly`.
    pub(crate) condition: String,
    /// Its number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pid: Option<u32>,
    /// What confines it: `full`, or `partial: …`.
    pub(crate) sandbox: String,
    /// Description and version of the module.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) module: Option<String>,
    /// Whether the token was there when it was last looked at; absent for a sealed file, and while nobody can look.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) token_present: Option<bool>,
    /// How often it was started anew because it had crashed.
    pub(crate) restarts_crash: u64,
    /// How often because it had hung.
    pub(crate) restarts_hang: u64,
    /// How often because a token that was away did not come back to it.
    pub(crate) restarts_renewal: u64,
}

impl TokenStatus {
    /// Takes what the signer tells; `is_token` says that the key is not in a file.
    pub(crate) fn new(state: &ProcessState, is_token: bool) -> Self {
        let can_look = is_token && state.condition == Condition::Running;
        Self {
            token_present: can_look.then_some(state.token.is_some()),
            condition: state.condition.name().to_owned(),
            pid: state.pid,
            sandbox: state.sandbox.to_string(),
            module: state.module.clone(),
            restarts_crash: state.restarts_crash,
            restarts_hang: state.restarts_hang,
            restarts_renewal: state.restarts_renewal,
        }
    }

    /// Returns what an operator has to do, if anything.
    pub(crate) fn reason(&self) -> Option<String> {
        if self.condition == Condition::PinRefused.name() {
            Some("the token has refused the PIN: correct it and restart the node".to_owned())
        } else if self.condition == Condition::LoginDeadly.name() {
            Some("the token's module died while it logged in: look into it, then restart the node".to_owned())
        } else if self.condition == Condition::Restarting.name() {
            Some("the process that holds the key is gone and will be started again: see the log".to_owned())
        } else if self.token_present == Some(false) {
            Some("the token is not there: plug it in; channels live on until the attestation ends".to_owned())
        } else {
            None
        }
    }

    pub(crate) fn write_text(&self, out: &mut String) -> fmt::Result {
        write!(
            out,
            "             worker {}, sandbox {}",
            self.condition, self.sandbox
        )?;
        if self.token_present == Some(false) {
            write!(out, ", TOKEN AWAY")?;
        }
        let restarts = self.restarts_crash + self.restarts_hang + self.restarts_renewal;
        if restarts > 0 {
            write!(out, ", started anew {restarts} times")?;
        }
        writeln!(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member() -> TrustStatus {
        TrustStatus {
            authority: Some("fg1authority".to_owned()),
            connected: true,
            member: Some("relay-1".to_owned()),
            credential_secs: 3_600,
            list: "fresh".to_owned(),
            list_number: 7,
            ..TrustStatus::default()
        }
    }

    fn text(status: &TrustStatus) -> String {
        let mut out = String::new();
        status
            .write_text(&mut out)
            .expect("writing to memory cannot fail");
        out
    }

    #[test]
    fn a_member_has_nothing_to_say() {
        assert_eq!(member().reasons(), [""; 0]);
    }

    #[test]
    fn whoever_has_no_credential_is_told_to_enrol_even_with_the_authority_in_reach() {
        let status = TrustStatus {
            member: None,
            credential_secs: 0,
            ..member()
        };
        assert_eq!(
            status.reasons(),
            ["not enrolled: get a ticket and run `fieldgate enroll`"]
        );
        assert!(text(&status).contains("not enrolled, list of the revoked 7 is fresh"));
        assert_eq!(TrustStatus::default().reasons(), status.reasons());
        let authority = TrustStatus {
            is_authority: true,
            ..status
        };
        assert_eq!(authority.reasons(), [""; 0]);
    }

    #[test]
    fn a_revoked_node_says_so() {
        let status = TrustStatus {
            self_revoked: true,
            ..member()
        };
        assert!(status.reasons().concat().contains("this node is revoked"));
        assert!(text(&status).contains("THIS NODE IS REVOKED by list 7"));
    }
}
