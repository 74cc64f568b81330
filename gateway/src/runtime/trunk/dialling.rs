//! Dialling neighbours: several addresses race, the first that answers is kept, and what worked comes first the next time.
//!
//! ```text
//!  addresses, the one that worked last first ──resolve──▶ waiting ──one every 250 ms, or when one failed──▶ running ──▶ open
//! ```
//!
//! As RFC 8305 §5 has it. A connection over TCP or a UNIX socket is open when it is there, a WebSocket when its answer has come, one
//! over QUIC after its handshake. The others are
//! dropped then, and the node begins its link. An address that opens and whose link does not come up goes last the next time.

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use fieldgate_config::address::{HostPort, LinkAddress};
use fieldgate_io::{ConnectOptions, ConnectionId, Io};
use fieldgate_proto::{
    node::ConnectionKey,
    time::{Instant, Now},
};

use super::{Resolve, SystemEntropy, Trunk, Wanted};
use crate::{
    runtime::links::{IoWire, Layers},
    status::ONLY_ADDRESS,
};

/// A node that is dialled, by its addresses in the order of the file.
#[derive(Debug)]
pub(crate) struct Neighbour {
    /// At least one, if it is dialled; those that the peer has told, if it tells them.
    pub(crate) addresses: Vec<LinkAddress>,
    /// How it is reached, in words, if the link to it lies in a channel.
    pub(crate) over: Option<String>,
    /// Whether the peer tells its addresses.
    pub(crate) on_demand: bool,
}

impl fmt::Display for Neighbour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.addresses.first(), &self.over) {
            _ if self.on_demand => f.write_str("direct"),
            (Some(address), _) => address.fmt(f),
            (None, Some(over)) => over.fmt(f),
            (None, None) => Ok(()),
        }
    }
}

/// What is being dialled, and what was learned by it.
#[derive(Default)]
pub(super) struct Dialling {
    attempts: BTreeMap<usize, Attempt>,
    /// Connections that are being opened.
    running: BTreeMap<ConnectionId, Target>,
    /// Links that were dialled.
    chosen: BTreeMap<ConnectionKey, Chosen>,
    learned: BTreeMap<usize, Learned>,
    failed: u64,
}

/// One connection to make.
#[derive(Clone, Copy, Debug)]
struct Target {
    neighbour: usize,
    /// Which of its addresses.
    form: usize,
    /// Where that leads first.
    place: Place,
}

#[derive(Clone, Copy, Debug)]
enum Place {
    Network(SocketAddr),
    /// A UNIX socket, whose path the address says.
    Local,
}

/// An attempt to reach one neighbour.
#[derive(Default)]
struct Attempt {
    /// Addresses of the neighbour, the preferred first.
    order: Vec<usize>,
    /// Addresses whose names are not resolved yet.
    resolving: Vec<usize>,
    waiting: Vec<Target>,
    /// The next connection is not begun before this, unless those that run have failed.
    next_at: Instant,
    /// What went wrong last.
    failure: Option<String>,
}

/// What is known of a neighbour's addresses.
#[derive(Default)]
struct Learned {
    worked: Option<usize>,
    /// Opened, but the link did not come up.
    doubtful: Option<usize>,
}

/// How a link came about.
pub(super) struct Chosen {
    target: Target,
    is_up: bool,
    /// In words, for the status.
    pub(super) why: String,
}

impl Attempt {
    /// Takes the next connection to make, if one is due.
    fn next(&mut self, now: Instant, is_running: bool) -> Option<Target> {
        let rank = |form: usize| self.order.iter().position(|other| *other == form);
        let best = self
            .waiting
            .iter()
            .enumerate()
            .min_by_key(|(index, target)| (rank(target.form), *index))
            .map(|(index, target)| (index, rank(target.form)))?;
        // A name that is still being resolved and would come first gets a head start as well.
        let awaited = self.resolving.iter().any(|form| rank(*form) < best.1);
        if (is_running || awaited) && now < self.next_at {
            return None;
        }
        self.next_at = now + HEAD_START;
        Some(self.waiting.remove(best.0))
    }
}

impl Dialling {
    /// Attempts to open a connection that failed, all neighbours together.
    pub(super) const fn failed(&self) -> u64 {
        self.failed
    }

    /// Forgets what was learned of a neighbour's addresses, which are others now.
    pub(super) fn forget(&mut self, neighbour: usize) {
        self.learned.remove(&neighbour);
    }

    pub(super) fn chosen(&self, key: ConnectionKey) -> Option<&Chosen> {
        self.chosen.get(&key)
    }

    /// Notes that a link is up.
    pub(super) fn link_up(&mut self, key: ConnectionKey) {
        if let Some(chosen) = self.chosen.get_mut(&key) {
            chosen.is_up = true;
            let learned = self.learned.entry(chosen.target.neighbour).or_default();
            learned.worked = Some(chosen.target.form);
            learned.doubtful = None;
        }
    }

    /// Notes that a link is gone.
    pub(super) fn link_gone(&mut self, key: ConnectionKey) {
        if let Some(chosen) = self.chosen.remove(&key)
            && !chosen.is_up
        {
            let learned = self.learned.entry(chosen.target.neighbour).or_default();
            learned.doubtful = Some(chosen.target.form);
            if learned.worked == learned.doubtful {
                learned.worked = None;
            }
        }
    }

    /// Returns when the next connection is to be begun.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let waiting = self
            .attempts
            .values()
            .filter(|attempt| !attempt.waiting.is_empty());
        waiting.map(|attempt| attempt.next_at).min()
    }

    /// Returns whether a connection is one that is being opened to a neighbour.
    pub(super) fn is_dialling(&self, id: ConnectionId) -> bool {
        self.running.contains_key(&id)
    }

    fn is_running(&self, neighbour: usize) -> bool {
        self.running.values().any(|target| target.neighbour == neighbour)
    }

    /// Returns the addresses of a neighbour, the preferred first.
    fn order(&self, neighbour: usize, count: usize) -> Vec<usize> {
        let learned = self.learned.get(&neighbour);
        let mut order: Vec<usize> = (0..count).collect();
        order.sort_by_key(|form| {
            let doubtful = learned.is_some_and(|learned| learned.doubtful == Some(*form));
            let worked = learned.is_some_and(|learned| learned.worked == Some(*form));
            (doubtful, !worked, *form)
        });
        order
    }

    /// Says why an address was kept.
    fn why(&self, target: Target, neighbour: &Neighbour) -> String {
        let others = self
            .running
            .values()
            .filter(|other| other.neighbour == target.neighbour && other.form != target.form);
        let slower: Vec<String> = others
            .filter_map(|other| neighbour.addresses.get(other.form))
            .map(ToString::to_string)
            .collect();
        let attempt = self.attempts.get(&target.neighbour);
        let failure = attempt.and_then(|attempt| attempt.failure.as_ref());
        let learned = self.learned.get(&target.neighbour);
        if let Some(failure) = failure {
            format!("another failed: {failure}")
        } else if let Some(slower) = slower.first() {
            format!("answered before {slower}")
        } else if neighbour.addresses.len() == 1 {
            ONLY_ADDRESS.to_owned()
        } else if learned.is_some_and(|learned| learned.worked == Some(target.form)) {
            "worked the last time".to_owned()
        } else {
            "answered first".to_owned()
        }
    }
}

/// Returns the host to connect to for an address, its own or that of a proxy; `None` if it is this machine's file.
fn first_hop<'a>(layers: &'a Layers, address: &'a LinkAddress) -> Option<&'a HostPort> {
    match address {
        LinkAddress::Tcp(address) | LinkAddress::Quic(address) => Some(address),
        LinkAddress::WebSocket(url) => Some(layers.connector().first_hop(url)),
        LinkAddress::Unix(_) => None,
    }
}

impl Trunk {
    /// Begins to dial a neighbour.
    pub(super) fn dial(&mut self, io: &mut Io, now: Now, neighbour: usize) {
        let Some(known) = self.names.neighbours.get(neighbour) else {
            return;
        };
        let mut attempt = Attempt {
            order: self.dialling.order(neighbour, known.addresses.len()),
            next_at: now.instant + HEAD_START,
            ..Attempt::default()
        };
        for (form, address) in known.addresses.iter().enumerate() {
            let hop = first_hop(&self.layers, address);
            let place = match hop.map(|hop| (hop.host().parse::<IpAddr>(), hop.port())) {
                None => Some(Place::Local),
                Some((Ok(ip), port)) => Some(Place::Network(SocketAddr::new(ip, port))),
                Some((Err(_), _)) => None,
            };
            if let Some(place) = place {
                attempt.waiting.push(Target {
                    neighbour,
                    form,
                    place,
                });
            }
            let Some(hop) = hop.filter(|_| place.is_none()) else {
                continue;
            };
            let wanted = Wanted::Neighbour { neighbour, form };
            let address = hop.clone();
            if self.resolve.try_send(Resolve { wanted, address }).is_ok() {
                attempt.resolving.push(form);
            }
        }
        self.dialling.attempts.insert(neighbour, attempt);
        self.dial_on(io, now, neighbour);
    }

    /// Takes addresses for one of a neighbour's.
    pub(super) fn handle_resolved(
        &mut self,
        io: &mut Io,
        now: Now,
        (neighbour, form): (usize, usize),
        addresses: Result<Vec<SocketAddr>, String>,
    ) {
        let Some(attempt) = self.dialling.attempts.get_mut(&neighbour) else {
            // Another address was faster.
            return;
        };
        attempt.resolving.retain(|other| *other != form);
        match addresses {
            Ok(addresses) => attempt
                .waiting
                .extend(addresses.into_iter().take(TARGETS_MAX).map(|address| Target {
                    neighbour,
                    form,
                    place: Place::Network(address),
                })),
            Err(error) => self.not_reached(neighbour, form, &error),
        }
        self.dial_on(io, now, neighbour);
        self.drain(io, now);
    }

    /// Takes the end of an attempt to connect; says whether it was one of a neighbour.
    pub(super) fn handle_dialled(
        &mut self,
        io: &mut Io,
        now: Now,
        id: ConnectionId,
        result: std::io::Result<()>,
    ) -> bool {
        let Some(target) = self.dialling.running.get(&id).copied() else {
            return false;
        };
        let key = ConnectionKey(id.as_u64());
        let url = match self.address(target) {
            Some(LinkAddress::WebSocket(url)) => Some(url.clone()),
            Some(LinkAddress::Tcp(_) | LinkAddress::Quic(_) | LinkAddress::Unix(_)) | None => None,
        };
        match (result, url) {
            (Ok(()), None) => self.opened(io, now, id),
            (Ok(()), Some(url)) => {
                if let Err(error) = self.layers.dial(io, now.instant, key, &url) {
                    io.abort(id);
                    self.lost(io, now, id, &error);
                }
            }
            (Err(error), _) => {
                self.lost(io, now, id, &error.to_string());
            }
        }
        true
    }

    /// Takes a connection that was dialled and can carry a link. Those that are slower are dropped.
    pub(super) fn opened(&mut self, io: &mut Io, now: Now, id: ConnectionId) {
        let Some(target) = self.dialling.running.remove(&id) else {
            return;
        };
        let why = match self.names.neighbours.get(target.neighbour) {
            Some(neighbour) => self.dialling.why(target, neighbour),
            None => String::new(),
        };
        self.dialling.attempts.remove(&target.neighbour);
        let slower: Vec<ConnectionId> = self
            .dialling
            .running
            .iter()
            .filter(|(_, other)| other.neighbour == target.neighbour)
            .map(|(id, _)| *id)
            .collect();
        for other in slower {
            self.dialling.running.remove(&other);
            self.layers.forget(now.instant, ConnectionKey(other.as_u64()));
            self.peers.remove(&ConnectionKey(other.as_u64()));
            io.abort(other);
        }
        let key = ConnectionKey(id.as_u64());
        self.dialling.chosen.insert(
            key,
            Chosen {
                target,
                is_up: false,
                why,
            },
        );
        let layers = &mut self.layers;
        self.node
            .handle_connected(now, key, Some(target.neighbour), &mut IoWire { io, layers });
    }

    /// A connection that was dialled came to nothing; says whether it was one.
    pub(super) fn lost(&mut self, io: &mut Io, now: Now, id: ConnectionId, error: &str) -> bool {
        let Some(target) = self.dialling.running.remove(&id) else {
            return false;
        };
        self.peers.remove(&ConnectionKey(id.as_u64()));
        self.layers.forget(now.instant, ConnectionKey(id.as_u64()));
        self.not_reached(target.neighbour, target.form, error);
        self.dial_on(io, now, target.neighbour);
        true
    }

    fn not_reached(&mut self, neighbour: usize, form: usize, error: &str) {
        self.dialling.failed += 1;
        let known = self.names.neighbours.get(neighbour);
        let Some(address) = known.and_then(|known| known.addresses.get(form)) else {
            return;
        };
        tracing::debug!(%address, error, "not reached");
        if let Some(attempt) = self.dialling.attempts.get_mut(&neighbour) {
            attempt.failure = Some(format!("{address}: {error}"));
        }
    }

    /// Begins the connections that are due, or reports that there is none left.
    fn dial_on(&mut self, io: &mut Io, now: Now, neighbour: usize) {
        loop {
            let is_running = self.dialling.is_running(neighbour);
            let Some(attempt) = self.dialling.attempts.get_mut(&neighbour) else {
                return;
            };
            let Some(target) = attempt.next(now.instant, is_running) else {
                if !is_running && attempt.waiting.is_empty() && attempt.resolving.is_empty() {
                    self.dialling.attempts.remove(&neighbour);
                    self.node.handle_dial_failed(now, &mut SystemEntropy, neighbour);
                }
                return;
            };
            match self.connect(io, now, target) {
                Ok(id) => {
                    self.dialling.running.insert(id, target);
                    let shown = self.shown(target);
                    self.peers.insert(ConnectionKey(id.as_u64()), shown);
                }
                Err(error) => self.not_reached(neighbour, target.form, &error),
            }
        }
    }

    /// Begins one connection, over what its address says.
    fn connect(&mut self, io: &mut Io, now: Now, target: Target) -> Result<ConnectionId, String> {
        let options = ConnectOptions {
            timeout: DIAL_TIME_MAX,
            ..ConnectOptions::default()
        };
        let neighbour = self.names.neighbours.get(target.neighbour);
        let address = neighbour.and_then(|neighbour| neighbour.addresses.get(target.form));
        let begun = match (address, target.place) {
            (Some(LinkAddress::Quic(_)), Place::Network(remote)) => {
                return self.layers.dial_quic(io, now.instant, remote);
            }
            (Some(LinkAddress::Unix(path)), _) => io.connect_local(path, &options),
            (_, Place::Network(address)) => io.connect(address, &options),
            (_, Place::Local) => Err(std::io::ErrorKind::AddrNotAvailable.into()),
        };
        begun.map_err(|error| error.to_string())
    }

    /// Begins the connections that are due, of all neighbours.
    pub(super) fn dial_due(&mut self, io: &mut Io, now: Now) {
        let waiting = self.dialling.attempts.iter();
        let due: Vec<usize> = waiting
            .filter(|(_, attempt)| !attempt.waiting.is_empty() && now.instant >= attempt.next_at)
            .map(|(neighbour, _)| *neighbour)
            .collect();
        for neighbour in due {
            self.dial_on(io, now, neighbour);
        }
    }

    fn address(&self, target: Target) -> Option<&LinkAddress> {
        let neighbour = self.names.neighbours.get(target.neighbour)?;
        neighbour.addresses.get(target.form)
    }

    /// Returns the address of a connection for status and log.
    fn shown(&self, target: Target) -> String {
        let Place::Network(at) = target.place else {
            return self.address(target).map(ToString::to_string).unwrap_or_default();
        };
        match self.address(target) {
            Some(address @ LinkAddress::WebSocket(url)) if self.layers.connector().has_proxy(url) => {
                format!("{address} by proxy {at}")
            }
            Some(address @ (LinkAddress::WebSocket(_) | LinkAddress::Quic(_))) => {
                format!("{address} at {at}")
            }
            Some(LinkAddress::Tcp(_) | LinkAddress::Unix(_)) | None => at.to_string(),
        }
    }
}

/// Longest time for one connection over TCP.
const DIAL_TIME_MAX: Duration = Duration::from_secs(5);

/// RFC 8305 §8: Connection Attempt Delay.
const HEAD_START: Duration = Duration::from_millis(250);

/// IP addresses of one name that are tried.
const TARGETS_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::START + Duration::from_millis(millis)
    }

    fn target(form: usize) -> Target {
        Target {
            neighbour: 0,
            form,
            place: Place::Network(([127, 0, 0, 1], 1).into()),
        }
    }

    fn attempt(order: &[usize], waiting: &[usize]) -> Attempt {
        Attempt {
            order: order.to_vec(),
            waiting: waiting.iter().map(|form| target(*form)).collect(),
            next_at: at(250),
            ..Attempt::default()
        }
    }

    #[test]
    fn the_preferred_has_a_head_start() {
        let mut attempt = attempt(&[1, 0], &[0, 1, 1]);
        assert_eq!(attempt.next(at(0), false).map(|next| next.form), Some(1));
        assert!(attempt.next(at(249), true).is_none());
        assert_eq!(attempt.next(at(250), true).map(|next| next.form), Some(1));
        // The one before has failed: the next does not wait.
        assert_eq!(attempt.next(at(251), false).map(|next| next.form), Some(0));
        assert!(attempt.next(at(9999), false).is_none());
    }

    #[test]
    fn a_name_that_is_being_resolved_is_waited_for_but_not_long() {
        let mut attempt = attempt(&[0, 1], &[1]);
        attempt.resolving.push(0);
        assert!(attempt.next(at(249), false).is_none());
        assert_eq!(attempt.next(at(250), false).map(|next| next.form), Some(1));
        // One that would come later is not waited for.
        let mut attempt = self::attempt(&[0, 1], &[0]);
        attempt.resolving.push(1);
        assert_eq!(attempt.next(at(0), false).map(|next| next.form), Some(0));
    }

    #[test]
    fn what_worked_comes_first_and_what_opened_in_vain_last() {
        let mut dialling = Dialling::default();
        let key = ConnectionKey(7);
        let chosen = |form| Chosen {
            target: target(form),
            is_up: false,
            why: String::new(),
        };
        assert_eq!(dialling.order(0, 3), [0, 1, 2]);
        dialling.chosen.insert(key, chosen(2));
        dialling.link_up(key);
        dialling.link_gone(key);
        assert_eq!(dialling.order(0, 3), [2, 0, 1]);
        assert_eq!(dialling.order(1, 3), [0, 1, 2], "another neighbour");
        dialling.chosen.insert(key, chosen(2));
        dialling.link_gone(key);
        assert_eq!(dialling.order(0, 3), [0, 1, 2]);
        dialling.chosen.insert(key, chosen(0));
        dialling.link_gone(key);
        assert_eq!(dialling.order(0, 3), [1, 2, 0]);
    }

    #[test]
    fn the_choice_has_a_reason() {
        let addresses = |texts: &[&str]| Neighbour {
            addresses: texts
                .iter()
                .map(|text| text.parse().expect("an address"))
                .collect(),
            on_demand: false,
            over: None,
        };
        let both = addresses(&["relay:4433", "wss://relay/"]);
        let mut dialling = Dialling::default();
        assert_eq!(
            dialling.why(target(0), &addresses(&["relay:4433"])),
            "its only address"
        );
        assert_eq!(dialling.why(target(0), &both), "answered first");
        dialling.learned.entry(0).or_default().worked = Some(1);
        assert_eq!(dialling.why(target(1), &both), "worked the last time");
        dialling.running.insert(ConnectionId::from_u64(1), target(0));
        assert_eq!(dialling.why(target(1), &both), "answered before relay:4433");
        let mut attempt = attempt(&[0, 1], &[]);
        attempt.failure = Some("relay:4433: refused".to_owned());
        dialling.attempts.insert(0, attempt);
        assert_eq!(
            dialling.why(target(1), &both),
            "another failed: relay:4433: refused"
        );
    }
}
