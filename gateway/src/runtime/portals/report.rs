//! The portals' part of the status.

use fieldgate_config::settings::portal::OutletTarget;
use fieldgate_proto::{
    node::{Node, PortalKey, PortalView},
    portal::SessionState,
};

use super::{Portal, Portals, serial};
use crate::runtime::trunk::dialling::Neighbour;
use crate::status::{
    PORTAL_REMOVED, PortalDatagrams, PortalLine, PortalSession, PortalStatus, PortalsStatus,
};

impl Portals {
    /// Returns what is shown of portals; `None` on a node without any.
    pub(crate) fn status(&self, node: &Node, neighbours: &[Neighbour]) -> Option<PortalsStatus> {
        let inlets = || self.inlets.iter().filter(|inlet| !inlet.portal.is_vacant());
        let outlets = || self.outlets.iter().filter(|outlet| !outlet.portal.is_vacant());
        if inlets().next().is_none() && outlets().next().is_none() {
            return None;
        }
        let sessions: Vec<PortalSession> = node
            .portals()
            .map(|view| session_status(node, neighbours, &view))
            .collect();
        let inlets = inlets().map(|inlet| {
            let node = node.portals().find(|view| view.key == inlet.session);
            let node = node.map(|view| view.peer.to_string()).unwrap_or_default();
            PortalStatus {
                address: inlet.listen.clone(),
                leads_to: Some(format!("{} at {node}", inlet.outlet)),
                datagrams: inlet.is_udp.then(|| datagrams(&inlet.portal)),
                ..portal_status(&inlet.portal)
            }
        });
        let outlets = outlets().map(|outlet| {
            let failures = outlet.line.as_ref().map(serial::Line::failures);
            PortalStatus {
                address: target_text(&outlet.target),
                datagrams: matches!(outlet.target, OutletTarget::Udp(_)).then(|| datagrams(&outlet.portal)),
                line: failures.map(|failures| PortalLine {
                    failures: failures.total,
                    failure: failures.last,
                }),
                ..portal_status(&outlet.portal)
            }
        });
        Some(PortalsStatus {
            sessions,
            inlets: inlets.collect(),
            outlets: outlets.collect(),
            unknown_outlets: self.unknown_total,
            audit: self.trail.status(),
        })
    }
}

pub(super) fn target_text(target: &OutletTarget) -> String {
    match target {
        OutletTarget::Tcp(address) => address.to_string(),
        OutletTarget::Udp(address) => format!("udp:{address}"),
        OutletTarget::Unix(path) => format!("unix:{}", path.display()),
        OutletTarget::Serial { device, line } => serial::text(device, line),
        OutletTarget::Asked(patterns) => {
            let patterns: Vec<String> = patterns.iter().map(ToString::to_string).collect();
            patterns.join(" ")
        }
    }
}

fn datagrams(portal: &Portal) -> PortalDatagrams {
    PortalDatagrams {
        passed: portal.datagrams.passed,
        dropped: portal.datagrams.dropped,
    }
}

fn portal_status(portal: &Portal) -> PortalStatus {
    PortalStatus {
        name: portal.name.clone(),
        origin: if portal.is_gone {
            PORTAL_REMOVED
        } else {
            portal.origin.text()
        }
        .to_owned(),
        streams: portal.open as u64,
        streams_total: portal.total,
        refused: portal.refused,
        ..PortalStatus::default()
    }
}

fn session_status(node: &Node, neighbours: &[Neighbour], view: &PortalView<'_>) -> PortalSession {
    let session = view.session;
    let stats = session.stats();
    let via = view.neighbour.and_then(|neighbour| neighbours.get(neighbour));
    let rtt = session.round_trip();
    PortalSession {
        peer: view.peer.to_string(),
        member: node.member_name(&view.peer).map(ToOwned::to_owned),
        role: match view.key {
            PortalKey::Inlet(_) => "inlet",
            PortalKey::Outlet(_) => "outlet",
        }
        .to_owned(),
        state: match session.state() {
            SessionState::Up => "up",
            SessionState::Beginning => "beginning",
            SessionState::Down { .. } => "down",
        }
        .to_owned(),
        via: via.map(ToString::to_string),
        rtt_us: rtt.map(|rtt| u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX)),
        streams: session.streams().len() as u64,
        streams_total: stats.streams,
        bytes_sent: stats.bytes_sent,
        bytes_received: stats.bytes_received,
        bytes_kept: session.bytes_kept() as u64,
        resumed: stats.resumed,
        lost: stats.lost,
        went_back: stats.went_back,
    }
}
