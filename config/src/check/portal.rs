//! `[portal]`.

use std::collections::BTreeMap;
use std::time::Duration;

use fieldgate_proto::identity::Identifier;

use super::collector::{check_registrations, registration};
use super::uplink::{check_relays, check_through, path};
use super::{Place, Unique, values};
use crate::problem::Findings;
use crate::raw;
use crate::reader::{Field, RawTable};
use crate::settings::portal::{
    OutletTarget, Portal, PortalAudit, PortalInlet, PortalOutlet, Rs485, Serial, Socks, SocksUser,
};
use crate::target::{InletAddress, OutletAddress};

/// What the portals have to know of the rest of the file.
pub(super) struct Surroundings {
    pub(super) has_link_listener: bool,
    pub(super) has_trust: bool,
}

pub(super) fn portal(
    raw: raw::Portal,
    surroundings: &Surroundings,
    findings: &mut Findings,
) -> Option<Portal> {
    // Who registers may get outlets by command.
    if !(raw.inlet.is_given() || raw.outlet.is_given() || raw.register.is_given()) {
        let draft = raw
            .header()
            .error("`portal` has neither `[[portal.inlet]]` nor `[[portal.outlet]]`");
        findings.push(
            draft.help(
                "add an inlet, where others connect, or an outlet, which inlets of other nodes lead to",
            ),
        );
    }
    check_reachable(&raw, surroundings, findings);
    check_registrations(raw.register.value.as_deref(), findings);
    check_names(&raw, findings);
    for inlet in raw.inlet.value.iter().flatten() {
        check_relays(inlet.relays.value.as_deref(), findings);
        let relays = inlet
            .relay
            .value
            .iter()
            .chain(inlet.relays.value.iter().flatten());
        check_through(inlet.via.value.as_ref(), relays, findings);
        check_sources(inlet, findings);
        check_kind(inlet, findings);
    }
    check_outlets(&raw, surroundings.has_trust, findings);
    let inlets = inlets(raw.inlet.value.unwrap_or_default(), findings);
    let outlets: Option<Vec<_>> = raw
        .outlet
        .value
        .unwrap_or_default()
        .into_iter()
        .map(outlet)
        .collect();
    let audit = match raw.audit.value {
        Some(raw) => Some(audit(raw)?),
        None => None,
    };
    let registrations = raw.register.value.unwrap_or_default();
    Some(Portal {
        registrations: registrations
            .into_iter()
            .map(registration)
            .collect::<Option<_>>()?,
        pq: raw.pq.value?,
        direct_path: raw.direct_path.value?,
        audit,
        inlets: inlets?,
        outlets: outlets?,
    })
}

fn audit(raw: raw::PortalAudit) -> Option<PortalAudit> {
    Some(PortalAudit {
        file: raw.file.value?,
        bytes_max: raw.bytes_max.value?,
        files_max: raw.files_max.value?,
    })
}

fn check_reachable(raw: &raw::Portal, surroundings: &Surroundings, findings: &mut Findings) {
    if raw.outlet.is_given() && !raw.register.is_given() && !surroundings.has_link_listener {
        let draft = raw.header().error(
            "`portal` has outlets, but neither `register` nor `[link.tcp]`: no inlet could reach them",
        );
        findings.push(draft.help(
            "add register = [{ relay = { address = \"host:port\", identifier = \"fg1…\" }, name = \"gateway-1\" }]; or [link.tcp] \
             for inlets that reach this node without a relay",
        ));
    }
    if raw.register.is_given() && !raw.outlet.is_given() {
        let draft = raw.register.warning(
            "`portal.register` is not used: there is no `[[portal.outlet]]` that anybody would look for",
        );
        findings.push(
            draft.help("take it out: inlets need no name; or add outlets by `fieldgate portal outlet add`"),
        );
    }
}

fn check_names(raw: &raw::Portal, findings: &mut Findings) {
    let mut inlets = Unique::new("a name", "give each inlet a name of its own");
    for inlet in raw.inlet.value.iter().flatten() {
        if let Some(name) = &inlet.name.value {
            inlets.add(name, inlet.name.place(), findings);
        }
    }
    let mut outlets = Unique::new("a name", "give each outlet a name of its own");
    for outlet in raw.outlet.value.iter().flatten() {
        if let Some(name) = &outlet.name.value {
            outlets.add(name, outlet.name.place(), findings);
        }
    }
}

/// Sees to it that somebody can get into an inlet.
fn check_sources(raw: &raw::PortalInlet, findings: &mut Findings) {
    let (Some(InletAddress::Tcp(listen) | InletAddress::Udp(listen)), Some(allow)) =
        (&raw.listen.value, &raw.allow.value)
    else {
        return;
    };
    // `allow` is about whom load balancers speak for then.
    if raw
        .accept_proxy_from
        .value
        .as_ref()
        .is_some_and(|networks| !networks.is_empty())
    {
        return;
    }
    let is_of_family = |network: &crate::address::Network| network.is_ipv4() == listen.is_ipv4();
    let help = "name the networks of those who shall connect: allow = [\"10.77.0.0/24\"]";
    let reaches = allow.iter().any(|item| is_of_family(&item.value));
    // One that was refused may be the network that is missing.
    if !reaches && !findings.has_errors() {
        let draft = raw.allow.warning(format!(
            "`{}` has no network whose addresses could reach {listen}: nobody gets in",
            raw.allow.path
        ));
        findings.push(draft.help(help));
    } else if !raw.allow.is_given() && !listen.ip().is_loopback() {
        let draft = raw.listen.warning(format!(
            "`{}` is {listen}, but without `allow` only this machine itself gets in",
            raw.listen.path
        ));
        findings.push(draft.help(help));
    }
}

/// Sees to it that what is written has a meaning for what the inlet is.
fn check_kind(raw: &raw::PortalInlet, findings: &mut Findings) {
    let Some(listen) = &raw.listen.value else {
        return;
    };
    let (allow, mode) = (given(&raw.allow), given(&raw.mode));
    let proxy = given(&raw.accept_proxy_from);
    let useless = match listen {
        InletAddress::Unix(_) => {
            let help = "take it out: `mode` says who may connect to a UNIX socket";
            vec![(allow, help), (proxy, help)]
        }
        InletAddress::Tcp(_) => vec![(mode, "take it out: `allow` says who may connect over TCP")],
        InletAddress::Udp(_) => {
            let help = "take it out: datagrams have neither a header before them nor a connection";
            vec![
                (mode, "take it out: `allow` says who may send datagrams"),
                (proxy, help),
                (given(&raw.socks), help),
                (given(&raw.keep_alive_secs), help),
            ]
        }
    };
    refuse_useless(useless, "listen", findings);
    let mut users = Unique::new("a name", "give each user a name of its own");
    let logins = raw.socks.value.iter();
    let logins = logins.filter_map(|socks| socks.users.value.as_ref());
    for user in logins.flatten() {
        if let Some(name) = &user.name.value {
            users.add(name, user.name.place(), findings);
        }
    }
}

fn check_outlets(raw: &raw::Portal, has_trust: bool, findings: &mut Findings) {
    for outlet in raw.outlet.value.iter().flatten() {
        check_target(outlet, findings);
        let mut allowed = Unique::new("an identifier", "take one of the two out");
        for item in outlet.allow.value.iter().flatten() {
            allowed.add(item.value, item.place(), findings);
        }
        let is_empty = outlet.allow.value.as_ref().is_some_and(Vec::is_empty);
        if is_empty && !has_trust {
            let draft = outlet.header().warning(
                "an outlet without `allow`, and there is no `[trust]`: nobody may open streams to it",
            );
            findings.push(draft.help(
                "add allow = [\"fg1…\"] with the identifiers of the nodes whose inlets shall lead here; or [trust] with a policy \
                 that permits openPortal",
            ));
        }
    }
}

/// Builds the inlets; those that lead to one node share the ways to it.
fn inlets(raws: Vec<raw::PortalInlet>, findings: &mut Findings) -> Option<Vec<PortalInlet>> {
    let mut first: BTreeMap<Identifier, PortalInlet> = BTreeMap::new();
    let mut built = Some(Vec::new());
    for raw in raws {
        let place = (raw.node.path.clone(), raw.node.span.clone());
        let Some(inlet) = inlet(raw) else {
            built = None;
            continue;
        };
        let other = first.entry(inlet.node).or_insert_with(|| inlet.clone());
        let others = (&other.path, other.pq, other.live_proof, other.direct_path);
        if others != (&inlet.path, inlet.pq, inlet.live_proof, inlet.direct_path) {
            let message = format!(
                "`{}` is the node that inlet `{}` leads to, but the ways to it, `pq`, `live_proof` or `direct_path` differ",
                place.0, other.name
            );
            let draft = crate::problem::Draft::error(message)
                .key(place.0)
                .at(place.1, "this value");
            findings.push(
                draft.help("write the same ways, pq, live_proof and direct_path: all streams to a node go by one channel"),
            );
        }
        if let Some(built) = &mut built {
            built.push(inlet);
        }
    }
    built
}

fn inlet(raw: raw::PortalInlet) -> Option<PortalInlet> {
    let path = path(raw.direct.value, raw.via.value, raw.relay.value, raw.relays.value)?;
    let is_udp = matches!(raw.listen.value, Some(InletAddress::Udp(_)));
    Some(PortalInlet {
        name: raw.name.value?,
        listen: raw.listen.value?,
        mode: raw.mode.value?,
        node: raw.node.value?,
        outlet: raw.outlet.value?,
        path,
        pq: raw.pq.value?,
        live_proof: raw.live_proof.value?,
        direct_path: raw.direct_path.value.unwrap_or(false),
        allow: values(raw.allow.value?),
        accept_proxy_from: values(raw.accept_proxy_from.value?),
        socks: match raw.socks.value {
            Some(raw) => Some(socks(raw)?),
            None => None,
        },
        keep_alive: raw
            .keep_alive_secs
            .value
            .map(|idle| (!idle.is_zero()).then_some(idle))?,
        streams_max: raw.streams_max.value?,
        idle: idle(&raw.idle_secs, is_udp)?,
    })
}

/// How long a stream may carry nothing. A flow has no other end.
fn idle(field: &Field<Duration>, is_udp: bool) -> Option<Duration> {
    let usual = if is_udp { FLOW_IDLE } else { STREAM_IDLE };
    if field.is_given() {
        field.value
    } else {
        Some(usual)
    }
}

/// What `idle_secs` is when nothing is said; see the table of keys.
const STREAM_IDLE: Duration = Duration::from_secs(86_400);
const FLOW_IDLE: Duration = Duration::from_secs(60);

fn socks(raw: raw::PortalSocks) -> Option<Socks> {
    let users = raw.users.value.unwrap_or_default().into_iter().map(|user| {
        Some(SocksUser {
            name: user.name.value?,
            password: user.password.value?,
        })
    });
    Some(Socks {
        users: users.collect::<Option<_>>()?,
    })
}

/// Sees to it that what is written has a meaning for what the outlet leads to.
fn check_target(raw: &raw::PortalOutlet, findings: &mut Findings) {
    // One that was refused may have been meant as anything.
    let Some(address) = &raw.address.value else {
        return;
    };
    let is_serial = matches!(address, OutletAddress::Serial(_));
    if is_serial && !raw.serial.is_given() {
        let draft = raw.address.error(format!(
            "`{}` is a serial line, and nothing says how it is set",
            raw.address.path
        ));
        findings
            .push(draft.help(
                "add serial = { baud = 19200, parity = \"even\" }, as the devices on the line have it",
            ));
    }
    let useless = if is_serial {
        let help =
            "take it out: a serial line is for one stream at a time, and tells nobody who is at its end";
        vec![
            (raw.send_proxy.is_given().then(|| raw.send_proxy.place()), help),
            (
                raw.keep_alive_secs
                    .is_given()
                    .then(|| raw.keep_alive_secs.place()),
                help,
            ),
            (raw.streams_max.is_given().then(|| raw.streams_max.place()), help),
        ]
    } else {
        let help = "take it out, or write the device of the line: address = \"serial:/dev/ttyUSB0\"";
        vec![(raw.serial.is_given().then(|| raw.serial.place()), help)]
    };
    refuse_useless(useless, "address", findings);
    if let OutletAddress::Udp(_) = address {
        let help = "take it out: datagrams have neither a header before them nor a connection";
        let useless = [given(&raw.send_proxy), given(&raw.keep_alive_secs)];
        refuse_useless(useless.map(|place| (place, help)).into(), "address", findings);
    }
}

/// Returns where a key is written, if it is.
fn given<V>(field: &Field<V>) -> Option<Place<'_>> {
    field.is_given().then(|| field.place())
}

/// Refuses keys that mean nothing beside what another one says.
fn refuse_useless(useless: Vec<(Option<Place<'_>>, &str)>, beside: &str, findings: &mut Findings) {
    for (place, help) in useless {
        if let Some(place) = place {
            let message = format!("`{}` has no meaning for this `{beside}`", place.path);
            let draft = crate::problem::Draft::error(message)
                .key(place.path)
                .at(place.span.clone(), "this value");
            findings.push(draft.help(help));
        }
    }
}

fn serial(raw: raw::PortalSerial) -> Option<Serial> {
    Some(Serial {
        baud: raw.baud.value?,
        data_bits: u8::try_from(raw.data_bits.value?).ok()?,
        parity: raw.parity.value?,
        stop_bits: u8::try_from(raw.stop_bits.value?).ok()?,
        flow_control: raw.flow_control.value?,
        rs485: match raw.rs485.value {
            Some(raw) => Some(Rs485 {
                rts_on_send: raw.rts_on_send.value?,
                delay_before: raw.delay_before_ms.value?,
                delay_after: raw.delay_after_ms.value?,
            }),
            None => None,
        },
        rfc2217: raw.rfc2217.value?,
    })
}

fn outlet(raw: raw::PortalOutlet) -> Option<PortalOutlet> {
    let target = match raw.targets.value {
        Some(targets) => OutletTarget::Asked(values(targets)),
        None => match raw.address.value? {
            OutletAddress::Tcp(address) => OutletTarget::Tcp(address),
            OutletAddress::Unix(path) => OutletTarget::Unix(path),
            OutletAddress::Udp(address) => OutletTarget::Udp(address),
            OutletAddress::Serial(device) => OutletTarget::Serial {
                device,
                line: serial(raw.serial.value?)?,
            },
        },
    };
    let is_serial = matches!(target, OutletTarget::Serial { .. });
    let is_udp = matches!(target, OutletTarget::Udp(_));
    Some(PortalOutlet {
        name: raw.name.value?,
        target,
        send_proxy: raw.send_proxy.value.flatten(),
        keep_alive: raw
            .keep_alive_secs
            .value
            .map(|idle| (!idle.is_zero()).then_some(idle))?,
        allow: values(raw.allow.value?),
        streams_max: if is_serial { 1 } else { raw.streams_max.value? },
        idle: idle(&raw.idle_secs, is_udp)?,
    })
}
