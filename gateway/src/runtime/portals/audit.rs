//! What the log says of streams: who, whereto, how much, how long, why it ended. Target `audit`. Of each line there is a
//! record in the audit file, if there is one.

use std::time::Duration;

use fieldgate_proto::{node::PortalKey, time::Instant};

use serde_json::json;

use super::{End, Ground, Key, Place, Portal, Stream, Who, trail::Trail};
use crate::sinks::json::rfc3339;

/// When refusals of a portal were spoken of, so that whoever knocks at it all day does not fill the log.
#[derive(Debug, Default)]
pub(super) struct Complaint {
    said: Option<Instant>,
    /// How many were not spoken of since.
    unsaid: u64,
}

impl Complaint {
    /// Takes note of one; returns how many were not spoken of, if this one is to be.
    fn note(&mut self, now: Instant) -> Option<u64> {
        if self.said.is_some_and(|said| now.saturating_since(said) < EVERY) {
            self.unsaid += 1;
            return None;
        }
        self.said = Some(now);
        Some(std::mem::take(&mut self.unsaid))
    }
}

impl Place {
    const fn kind(self) -> &'static str {
        match self {
            Self::Inlet(_) => "inlet",
            Self::Outlet(_) => "outlet",
        }
    }
}

/// Returns who is at the other end of a session: identifier, and the name in its credential.
fn peer_of(ground: &Ground<'_>, session: PortalKey) -> (String, String) {
    let view = ground.node.portals().find(|view| view.key == session);
    view.map_or_else(Default::default, |view| {
        let name = ground.node.member_name(&view.peer).unwrap_or_default();
        (view.peer.to_string(), name.to_owned())
    })
}

fn time(ground: &Ground<'_>) -> String {
    rfc3339(ground.now.wall.unix_millis)
}

/// An inlet or outlet was added or removed by command.
pub(super) fn changed(ground: &Ground<'_>, portal: &Portal, kind: &str, event: &str, address: &str) {
    tracing::info!(target: "audit", kind, portal = portal.name, address, event, "portal changed");
    portal.trail.note(&json!({
        "time": time(ground),
        "event": event,
        "kind": kind,
        "portal": portal.name,
        "address": address,
    }));
}

/// A stream is open.
pub(super) fn begun(ground: &Ground<'_>, portal: &Portal, key: Key, stream: &Stream) {
    let (peer, member) = peer_of(ground, key.0);
    tracing::info!(
        target: "audit",
        kind = stream.place.kind(),
        portal = portal.name,
        peer,
        member,
        origin = stream.who.origin,
        user = stream.who.user,
        destination = stream.who.target,
        stream = key.1.number(),
        "portal stream open"
    );
    portal.trail.note(&json!({
        "time": time(ground),
        "event": "opened",
        "kind": stream.place.kind(),
        "portal": portal.name,
        "peer": peer,
        "member": member,
        "origin": stream.who.origin,
        "user": stream.who.user,
        "destination": stream.who.target,
        "stream": key.1.number(),
    }));
}

/// A stream that was open is no more.
pub(super) fn ended(ground: &Ground<'_>, portal: &Portal, key: Key, stream: &Stream, end: End) {
    let (peer, member) = peer_of(ground, key.0);
    let (by, reason) = match end {
        End::Over => ("both", "finished"),
        End::Here(reason) => ("this side", reason.name()),
        End::There(reason) => ("other side", reason.name()),
    };
    let secs = ground.now.instant.saturating_since(stream.since).as_secs_f64();
    let secs = (secs * 1000.0).round() / 1000.0;
    tracing::info!(
        target: "audit",
        kind = stream.place.kind(),
        portal = portal.name,
        peer,
        member,
        origin = stream.who.origin,
        user = stream.who.user,
        destination = stream.who.target,
        stream = key.1.number(),
        bytes_from_socket = stream.from_socket,
        bytes_to_socket = stream.to_socket,
        secs,
        by,
        reason,
        "portal stream ended"
    );
    portal.trail.note(&json!({
        "time": time(ground),
        "event": "ended",
        "kind": stream.place.kind(),
        "portal": portal.name,
        "peer": peer,
        "member": member,
        "origin": stream.who.origin,
        "user": stream.who.user,
        "destination": stream.who.target,
        "stream": key.1.number(),
        "bytes_from_socket": stream.from_socket,
        "bytes_to_socket": stream.to_socket,
        "secs": secs,
        "by": by,
        "reason": reason,
    }));
}

/// A stream that never opened.
pub(super) fn refused(
    ground: &Ground<'_>,
    portal: &mut Portal,
    (place, session): (Place, PortalKey),
    who: &Who,
    reason: &'static str,
) {
    if let Some(unsaid) = portal.complaint.note(ground.now.instant) {
        let (peer, member) = peer_of(ground, session);
        tracing::warn!(
            target: "audit",
            kind = place.kind(),
            portal = portal.name,
            peer,
            member,
            origin = who.origin,
            user = who.user,
            destination = who.target,
            reason,
            unsaid,
            "portal stream refused"
        );
        portal.trail.note(&json!({
            "time": time(ground),
            "event": "refused",
            "kind": place.kind(),
            "portal": portal.name,
            "peer": peer,
            "member": member,
            "origin": who.origin,
            "user": who.user,
            "destination": who.target,
            "reason": reason,
            "unsaid": unsaid,
        }));
    }
}

/// A stream to an outlet that does not exist.
pub(super) fn unknown(
    ground: &Ground<'_>,
    (complaint, trail): (&mut Complaint, &Trail),
    session: PortalKey,
    outlet: &str,
    who: &Who,
) {
    if let Some(unsaid) = complaint.note(ground.now.instant) {
        let (peer, member) = peer_of(ground, session);
        tracing::warn!(
            target: "audit",
            kind = "outlet",
            // By the word of the peer: it may contain anything.
            portal = ?outlet,
            peer,
            member,
            origin = ?who.origin,
            reason = "there is no such outlet",
            unsaid,
            "portal stream refused"
        );
        trail.note(&json!({
            "time": time(ground),
            "event": "refused",
            "kind": "outlet",
            "portal": outlet,
            "peer": peer,
            "member": member,
            "origin": who.origin,
            "user": who.user,
            "destination": who.target,
            "reason": "there is no such outlet",
            "unsaid": unsaid,
        }));
    }
}

/// Between two lines about refusals of one portal.
const EVERY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_spoken_of_once_a_second() {
        let mut complaint = Complaint::default();
        let at = |millis| Instant::START + Duration::from_millis(millis);
        assert_eq!(complaint.note(at(0)), Some(0));
        for millis in [1, 500, 999] {
            assert_eq!(complaint.note(at(millis)), None);
        }
        assert_eq!(complaint.note(at(1_000)), Some(3));
        assert_eq!(complaint.note(at(1_001)), None);
        assert_eq!(complaint.note(at(9_000)), Some(1));
    }
}
