//! What the status says of portals.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::bytes;

/// Inlets, outlets, and the sessions that their streams are in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PortalsStatus {
    /// With each node, those that inlets lead to first.
    pub(crate) sessions: Vec<PortalSession>,
    /// In the order of the file.
    pub(crate) inlets: Vec<PortalStatus>,
    /// In the order of the file.
    pub(crate) outlets: Vec<PortalStatus>,
    /// Streams that were asked for by a name that no outlet has.
    pub(crate) unknown_outlets: u64,
    /// The file with every stream, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) audit: Option<PortalAuditStatus>,
}

/// The file in which every stream is written down.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PortalAuditStatus {
    /// Where it is.
    pub(crate) file: String,
    /// Lines written since the start.
    pub(crate) written: u64,
    /// Lines that could not be written.
    pub(crate) lost: u64,
    /// Why the last line could not be written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) failure: Option<String>,
}

/// What this node and another carry for each other.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PortalSession {
    /// The other node.
    pub(crate) peer: String,
    /// The name in its credential.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) member: Option<String>,
    /// Which side this node is on: `inlet` or `outlet`.
    pub(crate) role: String,
    /// `up`, `beginning` or `down`.
    pub(crate) state: String,
    /// Where the way begins; on the inlet's side only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) via: Option<String>,
    /// Smoothed round trip to the other node, in microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) rtt_us: Option<u64>,
    /// Streams now.
    pub(crate) streams: u64,
    /// Streams since the start, with those that were refused.
    pub(crate) streams_total: u64,
    /// Bytes of streams given to the other node since the start.
    pub(crate) bytes_sent: u64,
    /// Bytes of streams that came from it since the start.
    pub(crate) bytes_received: u64,
    /// Bytes that are kept until the other node has taken them.
    pub(crate) bytes_kept: u64,
    /// Times that streams went on in another channel.
    pub(crate) resumed: u64,
    /// Times that streams were lost.
    pub(crate) lost: u64,
    /// Times that packets on their way were sent again.
    pub(crate) went_back: u64,
}

/// An inlet or outlet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PortalStatus {
    /// Its name.
    pub(crate) name: String,
    /// Where it comes from: `file`, `command` (until the node ends), `command, kept`; `removed`, while an inlet's last streams go on.
    #[serde(default)]
    pub(crate) origin: String,
    /// Where an inlet listens; what an outlet leads to.
    pub(crate) address: String,
    /// What an inlet leads to: the name of the outlet, and its node's identifier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) leads_to: Option<String>,
    /// Streams now.
    pub(crate) streams: u64,
    /// Streams since the start, without those that were refused.
    pub(crate) streams_total: u64,
    /// Streams that were refused since the start.
    pub(crate) refused: u64,
    /// Datagrams, where it is for those.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) datagrams: Option<PortalDatagrams>,
    /// The serial line that an outlet leads to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) line: Option<PortalLine>,
}

/// Datagrams of a portal since the start, in both directions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PortalDatagrams {
    /// Given on.
    pub(crate) passed: u64,
    /// Dropped: there was no way, no room or no permission, or the network said so.
    pub(crate) dropped: u64,
}

/// A serial line.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PortalLine {
    /// Streams that did not get it, or lost it, since the start.
    pub(crate) failures: u64,
    /// Why the last stream did not get it, or lost it; nothing if it did neither.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) failure: Option<String>,
}

impl PortalsStatus {
    /// Returns what is wrong.
    pub(super) fn reasons(&self) -> impl Iterator<Item = String> + '_ {
        let down = self
            .sessions
            .iter()
            .filter(|session| session.role == "inlet" && session.state != "up");
        let down = down.map(|session| format!("portals to {}: the node is not reached", session.name()));
        let audit = self.audit.iter().filter_map(|audit| {
            let failure = audit.failure.as_ref()?;
            Some(format!("audit file of portals {}: {failure}", audit.file))
        });
        down.chain(audit)
    }

    /// Writes it for a person.
    ///
    /// # Errors
    /// What `out` says.
    pub(crate) fn write_text(&self, out: &mut String) -> std::fmt::Result {
        for inlet in &self.inlets {
            let leads_to = inlet.leads_to.as_deref().unwrap_or_default();
            let name = &inlet.name;
            let origin = inlet.origin_text();
            writeln!(
                out,
                "  inlet      {name} on {} to {leads_to}{origin}",
                inlet.address
            )?;
            inlet.write_counts(out)?;
        }
        for outlet in &self.outlets {
            let origin = outlet.origin_text();
            writeln!(out, "  outlet     {} to {}{origin}", outlet.name, outlet.address)?;
            outlet.write_counts(out)?;
        }
        if self.unknown_outlets > 0 {
            writeln!(
                out,
                "  outlet     {} streams refused that asked for names there are not",
                self.unknown_outlets
            )?;
        }
        for session in &self.sessions {
            session.write_text(out)?;
        }
        if let Some(audit) = &self.audit {
            let (written, lost) = (audit.written, audit.lost);
            writeln!(
                out,
                "  audit      {}, {written} lines written, {lost} lost",
                audit.file
            )?;
        }
        Ok(())
    }
}

/// Where an inlet comes from that is there for its last streams only.
pub(crate) const PORTAL_REMOVED: &str = "removed";

impl PortalStatus {
    /// Returns whether it is there for its last streams only.
    pub(crate) fn is_removed(&self) -> bool {
        self.origin == PORTAL_REMOVED
    }

    /// Says where it comes from, if that is not the file.
    fn origin_text(&self) -> String {
        match self.origin.as_str() {
            "" | "file" => String::new(),
            origin => format!(" ({origin})"),
        }
    }

    fn write_counts(&self, out: &mut String) -> std::fmt::Result {
        writeln!(
            out,
            "             {} streams, {} since the start, {} refused",
            self.streams, self.streams_total, self.refused
        )?;
        if let Some(PortalDatagrams { passed, dropped }) = self.datagrams {
            writeln!(out, "             {passed} datagrams, {dropped} dropped")?;
        }
        match self.line.as_ref().and_then(|line| line.failure.as_ref()) {
            Some(failure) => writeln!(out, "             line: {failure}"),
            None => Ok(()),
        }
    }
}

impl PortalSession {
    fn name(&self) -> &str {
        self.member.as_deref().unwrap_or(&self.peer)
    }

    fn write_text(&self, out: &mut String) -> std::fmt::Result {
        let rtt = self.rtt_us.map_or_else(String::new, |rtt| {
            format!(", {}.{:03} ms", rtt / 1000, rtt % 1000)
        });
        let via = self
            .via
            .as_ref()
            .map_or_else(String::new, |via| format!(" via {via}"));
        let direction = if self.role == "inlet" { "to" } else { "from" };
        writeln!(
            out,
            "  portals    {direction} {}{via}, {}{rtt}",
            self.name(),
            self.state
        )?;
        writeln!(
            out,
            "             {} streams, {} sent, {} received, {} resumed, {} lost",
            self.streams,
            bytes(self.bytes_sent),
            bytes(self.bytes_received),
            self.resumed,
            self.lost
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_sees_portals_and_who_is_not_reached() {
        let session = |role: &str, state: &str| PortalSession {
            peer: "fg1xyz".to_owned(),
            role: role.to_owned(),
            state: state.to_owned(),
            rtt_us: Some(1_234),
            bytes_sent: 2_048,
            ..PortalSession::default()
        };
        let status = PortalsStatus {
            sessions: vec![session("inlet", "down"), session("outlet", "down")],
            inlets: vec![PortalStatus {
                origin: "command".to_owned(),
                name: "plc".to_owned(),
                address: "127.0.0.1:1502".to_owned(),
                leads_to: Some("plc at fg1xyz".to_owned()),
                streams: 2,
                streams_total: 5,
                refused: 1,
                datagrams: Some(PortalDatagrams {
                    passed: 9,
                    dropped: 4,
                }),
                line: None,
            }],
            outlets: vec![PortalStatus {
                name: "meters".to_owned(),
                address: "serial:/dev/ttyUSB0 19200 8E1".to_owned(),
                line: Some(PortalLine {
                    failures: 3,
                    failure: Some("the device is gone".to_owned()),
                }),
                ..PortalStatus::default()
            }],
            audit: Some(PortalAuditStatus {
                file: "audit.jsonl".to_owned(),
                written: 7,
                lost: 1,
                failure: Some("no space left".to_owned()),
            }),
            ..PortalsStatus::default()
        };
        let mut text = String::new();
        status.write_text(&mut text).expect("memory takes it");
        assert_eq!(
            text,
            "  inlet      plc on 127.0.0.1:1502 to plc at fg1xyz (command)\n             2 streams, 5 since the start, 1 refused\n             9 datagrams, 4 dropped\n  \
             outlet     meters to serial:/dev/ttyUSB0 19200 8E1\n             0 streams, 0 since the start, 0 refused\n             \
             line: the device is gone\n  \
             portals    to fg1xyz, down, 1.234 ms\n             0 streams, 2.0 KiB sent, 0 B received, 0 resumed, 0 lost\n  \
             portals    from fg1xyz, down, 1.234 ms\n             0 streams, 2.0 KiB sent, 0 B received, 0 resumed, 0 lost\n  \
             audit      audit.jsonl, 7 lines written, 1 lost\n"
        );
        let reasons: Vec<_> = status.reasons().collect();
        assert_eq!(
            reasons,
            [
                "portals to fg1xyz: the node is not reached",
                "audit file of portals audit.jsonl: no space left"
            ]
        );
    }
}
