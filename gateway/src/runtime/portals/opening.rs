//! How streams begin: at an inlet by a connection, at an outlet by the wish of another node.

use std::{
    io::ErrorKind,
    net::{Ipv4Addr, Ipv6Addr},
};

use fieldgate_config::target::TargetPattern;
use fieldgate_policy::StreamFacts;
use fieldgate_proto::portal::{
    flow::FLOW_TARGET,
    proxy::{self, Endpoints},
    socks::SocksReply,
};

use super::{
    BufferClass, ConnectOptions, ConnectionId, DeskRequest, Duration, End, Ground, HostPort, Instant, IpAddr,
    Key, OutletTarget, Place, Portals, Progress, ResetReason, Resolve, SWEEP_EVERY, SocketAddr, Stream,
    Wanted, Who, arriving, audit, serial,
};
use crate::runtime::doorkeeper::PortalWish;

impl Stream {
    pub(super) fn new(ground: &Ground<'_>, place: Place, who: Who, progress: Progress) -> Self {
        Self {
            place,
            who,
            is_socks: false,
            progress,
            reached: None,
            connection: None,
            flow: None,
            pending: Vec::new(),
            pending_taken: 0,
            has_ended: false,
            is_finished: false,
            from_socket: 0,
            to_socket: 0,
            told: 0,
            since: ground.now.instant,
            asked: ground.now.instant,
            active: ground.now.instant,
        }
    }
}

impl Portals {
    pub(super) fn insert(&mut self, ground: &Ground<'_>, key: Key, stream: Stream) {
        self.streams.insert(key, stream);
        self.sweep_at.get_or_insert(ground.now.instant + SWEEP_EVERY);
    }

    /// The other end of an inlet's stream is there.
    pub(super) fn handle_opened(&mut self, ground: &mut Ground<'_>, key: Key) {
        let Some(stream) = self.streams.get(&key) else {
            return;
        };
        let connection = stream.connection;
        if connection.is_none() && stream.flow.is_none() {
            return;
        }
        self.open(ground, key);
        let (Some(stream), Some(session)) = (self.streams.get_mut(&key), ground.node.portal(key.0)) else {
            return;
        };
        if let Some(connection) = connection.filter(|_| stream.is_socks) {
            arriving::reply(ground.io, connection, SocksReply::Succeeded);
        }
        // What came with the wish.
        let written = session.write(key.1, &stream.pending);
        stream.pending.drain(..written);
        if let Some(connection) = connection.filter(|_| stream.pending.is_empty()) {
            ground.io.resume_receive(connection);
        }
    }

    /// Bytes may flow.
    fn open(&mut self, ground: &Ground<'_>, key: Key) {
        let Some(stream) = self.streams.get_mut(&key) else {
            return;
        };
        stream.progress = Progress::Open;
        stream.active = ground.now.instant;
        let portal = match stream.place {
            Place::Inlet(index) => self.inlets.get_mut(index).map(|inlet| &mut inlet.portal),
            Place::Outlet(index) => self.outlets.get_mut(index).map(|outlet| &mut outlet.portal),
        };
        if let Some(portal) = portal {
            portal.total += 1;
            audit::begun(ground, portal, key, stream);
        }
    }

    /// Another node wants a stream to an outlet.
    pub(super) fn handle_requested(&mut self, ground: &mut Ground<'_>, key: Key, name: &str, who: &Who) {
        let found = self
            .outlets
            .iter_mut()
            .enumerate()
            .find(|(_, outlet)| outlet.portal.name == name && !outlet.portal.is_gone);
        let Some((index, outlet)) = found else {
            self.unknown_total += 1;
            audit::unknown(ground, (&mut self.unknown, &self.trail), key.0, name, who);
            if let Some(session) = ground.node.portal(key.0) {
                session.reset(key.1, ResetReason::NotAllowed);
            }
            return;
        };
        // A line that is in use may be free in a moment: its client has gone, and this is the next.
        let waiting_max = if outlet.line.is_some() {
            serial::WAITING_MAX
        } else {
            0
        };
        let is_full = outlet.portal.open >= outlet.portal.streams_max + waiting_max;
        outlet.portal.open += 1;
        let place = Place::Outlet(index);
        let is_allowed = may_lead_to(&outlet.target, &who.target);
        let is_udp = matches!(outlet.target, OutletTarget::Udp(_));
        // By the word of the peer: it may contain anything.
        let who = Who {
            origin: who.origin.escape_debug().to_string(),
            user: who.user.escape_debug().to_string(),
            // Of a flow it says what it is, and not where it leads.
            target: if is_udp {
                String::new()
            } else {
                who.target.escape_debug().to_string()
            },
        };
        let question = self.next_question();
        let stream = Stream::new(ground, place, who, Progress::Asking { question });
        self.insert(ground, key, stream);
        if self.is_stopping {
            self.end(ground, key, End::Here(ResetReason::Closed));
        } else if is_full {
            self.end(ground, key, End::Here(ResetReason::Limit));
        } else if !is_allowed {
            self.end(ground, key, End::Here(ResetReason::NotAllowed));
        } else {
            self.ask_policy(ground, key, index, question);
        }
    }

    const fn next_question(&mut self) -> u64 {
        self.last_question += 1;
        self.last_question
    }

    /// Has it decided whether a stream may be; who cannot be asked about is refused.
    fn ask_policy(&mut self, ground: &mut Ground<'_>, key: Key, outlet: usize, question: u64) {
        if let Err(reason) = self.try_ask(ground, key, outlet, question) {
            self.end(ground, key, End::Here(reason));
        }
    }

    fn try_ask(
        &mut self,
        ground: &Ground<'_>,
        key: Key,
        outlet: usize,
        question: u64,
    ) -> Result<(), ResetReason> {
        let (Some(outlet), Some(stream)) = (self.outlets.get(outlet), self.streams.get_mut(&key)) else {
            return Err(ResetReason::Broken);
        };
        stream.asked = ground.now.instant;
        // Of a node that is not there nobody knows what the policy wants to know.
        let access = ground
            .node
            .portal_access(ground.now, key.0)
            .ok_or(ResetReason::Broken)?;
        let wish = PortalWish {
            outlet: outlet.portal.name.clone(),
            kind: match &outlet.target {
                OutletTarget::Unix(_) => "unix",
                OutletTarget::Udp(_) => "udp",
                OutletTarget::Serial { .. } => "serial",
                OutletTarget::Tcp(_) | OutletTarget::Asked(_) => "tcp",
            },
            facts: StreamFacts {
                origin: stream.who.origin.clone(),
                user: stream.who.user.clone(),
                destination: stream.who.target.clone(),
                ..StreamFacts::default()
            },
        };
        let request = DeskRequest::AuthorisePortal {
            question,
            wish: Box::new(wish),
            access: Box::new(access),
        };
        // Who decides may be overwhelmed: nobody is let in, and nobody stays of whom nobody knows.
        let sent = ground.desk.try_send(request);
        sent.map_err(|_| ResetReason::Limit)?;
        self.by_question.insert(question, key);
        Ok(())
    }

    /// Takes the decision about a stream.
    pub(crate) fn handle_permission(&mut self, ground: &mut Ground<'_>, question: u64, is_permitted: bool) {
        let Some(key) = self.by_question.remove(&question) else {
            return;
        };
        let Some(stream) = self.streams.get_mut(&key) else {
            return;
        };
        if !is_permitted {
            // Of an open one the policy has changed.
            let reason = match stream.progress {
                Progress::Open => ResetReason::Closed,
                Progress::Asking { .. } | Progress::Connecting { .. } | Progress::Opening => {
                    ResetReason::NotAllowed
                }
            };
            self.end(ground, key, End::Here(reason));
            return;
        }
        let Place::Outlet(index) = stream.place else {
            return;
        };
        if !matches!(stream.progress, Progress::Asking { .. }) {
            return;
        }
        let Some(outlet) = self.outlets.get(index) else {
            return;
        };
        let address = match &outlet.target {
            OutletTarget::Tcp(address) | OutletTarget::Udp(address) => address.clone(),
            OutletTarget::Unix(_) | OutletTarget::Serial { .. } => {
                let connected = match (&outlet.target, &outlet.line) {
                    (OutletTarget::Unix(path), _) => {
                        ground.io.connect_local(path, &connect_options(outlet.keep_alive))
                    }
                    (_, Some(line)) => line
                        .open()
                        .and_then(|socket| ground.io.adopt(socket, BufferClass::Link)),
                    (_, None) => Err(ErrorKind::NotFound.into()),
                };
                stream.progress = Progress::Connecting {
                    candidates: Vec::new(),
                };
                match connected {
                    Ok(connection) => {
                        stream.connection = Some(connection);
                        self.by_connection.insert(connection, key);
                    }
                    Err(error) => {
                        tracing::debug!(outlet = outlet.portal.name, %error, "not connected");
                        self.end(ground, key, End::Here(ResetReason::Unreachable));
                    }
                }
                return;
            }
            OutletTarget::Asked(_) => match stream.who.target.parse() {
                Ok(address) => address,
                Err(_) => return self.end(ground, key, End::Here(ResetReason::NotAllowed)),
            },
        };
        if let Ok(ip) = address.host().parse::<IpAddr>() {
            let candidates = vec![SocketAddr::new(ip, address.port())];
            stream.progress = Progress::Connecting { candidates };
            self.connect_next(ground, key);
            return;
        }
        let resolve = Resolve {
            wanted: Wanted::Portal(question),
            address,
        };
        self.by_question.insert(question, key);
        if ground.resolve.try_send(resolve).is_err() {
            self.end(ground, key, End::Here(ResetReason::Limit));
        }
    }

    /// Takes the addresses of what an outlet leads to.
    pub(crate) fn handle_resolved(
        &mut self,
        ground: &mut Ground<'_>,
        question: u64,
        addresses: Result<Vec<SocketAddr>, String>,
    ) {
        let Some(key) = self.by_question.remove(&question) else {
            return;
        };
        let Some(stream) = self.streams.get_mut(&key) else {
            return;
        };
        let mut candidates = addresses.unwrap_or_else(|error| {
            tracing::debug!(error, "name not resolved");
            Vec::new()
        });
        let Place::Outlet(index) = stream.place else {
            return;
        };
        if let Some(outlet) = self.outlets.get(index)
            && let OutletTarget::Asked(patterns) = &outlet.target
        {
            let found = candidates.len();
            keep_allowed(patterns, &stream.who.target, &mut candidates);
            if candidates.is_empty() && found > 0 {
                return self.end(ground, key, End::Here(ResetReason::NotAllowed));
            }
        }
        // Taken from the end.
        candidates.reverse();
        stream.progress = Progress::Connecting { candidates };
        self.connect_next(ground, key);
    }

    /// Connects the next address of what an outlet leads to, or ends the stream if there is none left.
    fn connect_next(&mut self, ground: &mut Ground<'_>, key: Key) {
        if self.is_flow(key) {
            return self.connect_next_flow(ground, key);
        }
        let Some(stream) = self.streams.get_mut(&key) else {
            return;
        };
        let Progress::Connecting { candidates } = &mut stream.progress else {
            return;
        };
        let keep_alive = match stream.place {
            Place::Outlet(index) => self.outlets.get(index).and_then(|outlet| outlet.keep_alive),
            Place::Inlet(_) => None,
        };
        let options = connect_options(keep_alive);
        while let Some(address) = candidates.pop() {
            match ground.io.connect(address, &options) {
                Ok(connection) => {
                    stream.connection = Some(connection);
                    stream.reached = Some(address);
                    self.by_connection.insert(connection, key);
                    return;
                }
                Err(error) => tracing::debug!(%address, %error, "not connected"),
            }
        }
        self.end(ground, key, End::Here(ResetReason::Unreachable));
    }

    /// Returns whether a stream is one of datagrams at an outlet.
    fn is_flow(&self, key: Key) -> bool {
        let place = self.streams.get(&key).map(|stream| stream.place);
        let Some(Place::Outlet(index)) = place else {
            return false;
        };
        let outlet = self.outlets.get(index);
        outlet.is_some_and(|outlet| matches!(outlet.target, OutletTarget::Udp(_)))
    }

    /// As [`Self::connect_next`], for datagrams: the first address to which there is a way is it, whoever listens there.
    fn connect_next_flow(&mut self, ground: &mut Ground<'_>, key: Key) {
        loop {
            let candidate = match self.streams.get_mut(&key).map(|stream| &mut stream.progress) {
                Some(Progress::Connecting { candidates }) => candidates.pop(),
                Some(Progress::Asking { .. } | Progress::Opening | Progress::Open) | None => return,
            };
            let Some(address) = candidate else {
                return self.end(ground, key, End::Here(ResetReason::Unreachable));
            };
            match self.connect_flow(ground, key, address) {
                Ok(()) => {
                    if let Some(session) = ground.node.portal(key.0) {
                        session.accept(key.1);
                    }
                    return self.open(ground, key);
                }
                Err(error) => tracing::debug!(%address, %error, "not connected"),
            }
        }
    }

    /// Takes the end of an attempt to connect.
    pub(crate) fn handle_connected(
        &mut self,
        ground: &mut Ground<'_>,
        connection: ConnectionId,
        result: std::io::Result<()>,
    ) {
        let Some((key, stream)) = self.stream_of(connection) else {
            return;
        };
        match result {
            Ok(()) => {
                if let Some(session) = ground.node.portal(key.0) {
                    session.accept(key.1);
                }
                self.introduce(ground, key, connection);
                self.open(ground, key);
            }
            Err(error) => {
                tracing::debug!(%error, "what the outlet leads to is not reached");
                stream.connection = None;
                self.by_connection.remove(&connection);
                self.connect_next(ground, key);
            }
        }
    }

    /// Takes the first byte of a serial line's socket: the line is open.
    pub(super) fn handle_line_open(
        &mut self,
        ground: &mut Ground<'_>,
        connection: ConnectionId,
        bytes: &[u8],
    ) {
        let (Some((key, _)), Some((&serial::READY, rest))) =
            (self.stream_of(connection), bytes.split_first())
        else {
            return;
        };
        if let Some(session) = ground.node.portal(key.0) {
            session.accept(key.1);
        }
        self.open(ground, key);
        if !rest.is_empty() {
            self.handle_received(ground, connection, rest);
        }
    }

    /// Returns whether a stream has waited for a serial line as long as it may.
    pub(super) fn is_line_busy(&self, now: Instant, stream: &Stream) -> bool {
        let Place::Outlet(index) = stream.place else {
            return false;
        };
        matches!(stream.progress, Progress::Connecting { .. })
            && now.saturating_since(stream.since) >= LINE_WAIT_MAX
            && self
                .outlets
                .get(index)
                .is_some_and(|outlet| outlet.line.is_some())
    }

    /// Returns why a stream is over whose serial line has no more to say; `None` if it is none, or all was said.
    pub(super) fn line_lost(&self, key: Key) -> Option<ResetReason> {
        let stream = self.streams.get(&key)?;
        let Place::Outlet(index) = stream.place else {
            return None;
        };
        self.outlets.get(index)?.line.as_ref()?;
        match stream.progress {
            Progress::Open if stream.is_finished => None,
            Progress::Open => Some(ResetReason::Broken),
            Progress::Asking { .. } | Progress::Connecting { .. } | Progress::Opening => {
                Some(ResetReason::Unreachable)
            }
        }
    }

    /// Tells what an outlet leads to for whom the connection is, where it wants to know.
    fn introduce(&self, ground: &mut Ground<'_>, key: Key, connection: ConnectionId) {
        let Some(stream) = self.streams.get(&key) else {
            return;
        };
        let Place::Outlet(index) = stream.place else {
            return;
        };
        let version = self.outlets.get(index).and_then(|outlet| outlet.send_proxy);
        if let Some(version) = version
            && let Some(buffer) = ground.io.send_buffer(connection)
        {
            let source: Option<SocketAddr> = stream.who.origin.parse().ok();
            let endpoints = source.map(|source| {
                let nowhere = SocketAddr::new(
                    if source.is_ipv4() {
                        IpAddr::V4(Ipv4Addr::UNSPECIFIED)
                    } else {
                        IpAddr::V6(Ipv6Addr::UNSPECIFIED)
                    },
                    0,
                );
                Endpoints {
                    source,
                    // A UNIX socket has no address.
                    destination: stream.reached.unwrap_or(nowhere),
                }
            });
            proxy::put(version, endpoints, buffer);
        }
    }

    /// Asks the policy again about streams that are open for a while: what it says may depend on the time of day.
    pub(super) fn ask_again(&mut self, ground: &Ground<'_>) {
        let now = ground.now.instant;
        let due = self.streams.iter().filter_map(|(key, stream)| {
            let Place::Outlet(outlet) = stream.place else {
                return None;
            };
            let is_due = stream.progress == Progress::Open && is_due(now, stream.asked);
            is_due.then_some((*key, outlet))
        });
        let due: Vec<(Key, usize)> = due.take(ASKED_AT_ONCE_MAX).collect();
        for (key, outlet) in due {
            let question = self.next_question();
            // A node without a channel is asked about when it has one; a desk that is full takes the next minute's question.
            let asked = self.try_ask(ground, key, outlet, question);
            if let Err(reason) = asked {
                tracing::debug!(reason = reason.name(), "policy not asked again");
            }
        }
    }

    /// The policy has changed: it is asked again about every stream that leads here.
    pub(crate) fn handle_policy_changed(&mut self, ground: &mut Ground<'_>) {
        let open = self.streams.iter().filter_map(|(key, stream)| {
            let Place::Outlet(outlet) = stream.place else {
                return None;
            };
            (stream.progress == Progress::Open).then_some((*key, outlet))
        });
        let open: Vec<(Key, usize)> = open.collect();
        for (key, outlet) in open {
            // Those of a session without a channel end: of a node that is not there nobody knows what the policy wants to know.
            let question = self.next_question();
            self.ask_policy(ground, key, outlet, question);
        }
    }
}

fn connect_options(keep_alive: Option<Duration>) -> ConnectOptions {
    ConnectOptions {
        class: BufferClass::Link,
        timeout: CONNECT_TIME_MAX,
        keep_alive,
    }
}

/// Returns whether an outlet may be asked for a destination; of a name that may depend on its addresses.
fn may_lead_to(outlet: &OutletTarget, target: &str) -> bool {
    let patterns = match outlet {
        OutletTarget::Tcp(_) | OutletTarget::Unix(_) | OutletTarget::Serial { .. } => {
            return target.is_empty();
        }
        OutletTarget::Udp(_) => return target == FLOW_TARGET,
        OutletTarget::Asked(patterns) => patterns,
    };
    let Ok(target) = target.parse::<HostPort>() else {
        return false;
    };
    let (host, port) = (target.host(), target.port());
    match host.parse::<IpAddr>() {
        Ok(ip) => patterns.iter().any(|pattern| pattern.allows_address(ip, port)),
        Err(_) => patterns
            .iter()
            .any(|pattern| pattern.allows_name(host, port) || pattern.wants_address(port)),
    }
}

/// Takes out the addresses of a name that may not be reached, unless the name itself is allowed.
fn keep_allowed(patterns: &[TargetPattern], target: &str, addresses: &mut Vec<SocketAddr>) {
    let target: Option<HostPort> = target.parse().ok();
    let is_allowed = target.is_some_and(|target| {
        patterns
            .iter()
            .any(|pattern| pattern.allows_name(target.host(), target.port()))
    });
    addresses.retain(|address| {
        is_allowed
            || patterns
                .iter()
                .any(|pattern| pattern.allows_address(address.ip(), address.port()))
    });
}

/// Whether the policy is to be asked again about an open stream.
fn is_due(now: Instant, asked: Instant) -> bool {
    now.saturating_since(asked) >= ASK_AGAIN_EVERY
}

/// Between two questions to the policy about an open stream.
const ASK_AGAIN_EVERY: Duration = Duration::from_secs(60);
/// Streams about which the policy is asked again in one second.
const ASKED_AT_ONCE_MAX: usize = 512;
/// Longest time that a stream waits for a serial line that another one has.
const LINE_WAIT_MAX: Duration = Duration::from_secs(5);
/// Longest time for one attempt to connect what an outlet leads to.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outlet_leads_only_where_its_targets_allow() {
        let patterns = ["10.0.0.0/8:22", "plc-*.local:502"].map(|text| text.parse().expect(text));
        let asked = OutletTarget::Asked(patterns.to_vec());
        for (target, allowed) in [
            ("10.0.0.7:22", true),
            ("10.0.0.7:23", false),
            ("[::ffff:10.0.0.7]:22", true),
            ("192.0.2.1:22", false),
            ("plc-1.local:502", true),
            // Whether it is there decides its address.
            ("somewhere.example:22", true),
            ("somewhere.example:502", false),
            ("somewhere.example", false),
            ("", false),
        ] {
            assert_eq!(may_lead_to(&asked, target), allowed, "{target}");
        }
        let fixed = OutletTarget::Unix("/run/a".into());
        assert!(may_lead_to(&fixed, ""));
        assert!(
            !may_lead_to(&fixed, "10.0.0.7:22"),
            "what was asked for is not what would be reached"
        );
        let udp = OutletTarget::Udp("10.0.0.7:123".parse().expect("it is one"));
        assert!(may_lead_to(&udp, FLOW_TARGET) && !may_lead_to(&udp, ""));
        for other in [&asked, &fixed] {
            assert!(!may_lead_to(other, FLOW_TARGET), "datagrams are not bytes");
        }
        let addresses = ["192.0.2.1:22", "10.0.0.7:22"].map(|text| text.parse().expect(text));
        let kept = |target: &str| {
            let mut addresses = addresses.to_vec();
            keep_allowed(&patterns, target, &mut addresses);
            addresses
        };
        assert_eq!(kept("somewhere.example:22"), addresses[1..]);
        assert_eq!(kept("plc-1.local:502"), addresses);
    }
}
