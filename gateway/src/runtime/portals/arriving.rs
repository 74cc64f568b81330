//! Connections to an inlet before there is a stream for them.
//!
//! ```text
//!  accepted ─▶ allowed? ─▶ PROXY header, from a load balancer ─▶ SOCKS, if the inlet speaks it ─▶ stream
//! ```

use std::net::SocketAddr;

use aws_lc_rs::{constant_time, digest};
use fieldgate_config::settings::portal::Socks;
use fieldgate_io::{ConnectionId, Io};
use fieldgate_proto::{
    portal::{
        Open, proxy,
        socks::{SocksOutput, SocksReply, SocksServer},
    },
    time::Instant,
};

use super::{
    Caller, Ground, OPEN_TIME_MAX, Place, Portals, Progress, SWEEP_EVERY, StartError, Stream, Who, audit,
};
use crate::sinks::open::read_secret;

/// Somebody who may log in, by the hash of the password: what is compared tells nothing of its length.
pub(super) struct Login {
    name: String,
    password: digest::Digest,
}

/// A connection that has not said everything yet.
pub(super) struct Arrival {
    inlet: usize,
    /// Without what is not known yet.
    who: Who,
    /// Where it comes from itself; `None` over a UNIX socket.
    peer: Option<SocketAddr>,
    /// What came of a PROXY header, if there has to be one.
    header: Option<Vec<u8>>,
    socks: Option<SocksServer>,
    since: Instant,
}

/// Reads the passwords of an inlet's users.
pub(super) fn logins(inlet: &str, socks: &Socks) -> Result<Vec<Login>, StartError> {
    let users = socks.users.iter().map(|user| {
        let password = read_secret(&user.password).map_err(|error| {
            StartError::new(format!("password of {} at inlet {inlet}: {error}", user.name))
                .hint("see `socks` of this [[portal.inlet]]")
        })?;
        Ok(Login {
            name: user.name.clone(),
            password: digest::digest(&digest::SHA256, password.as_bytes()),
        })
    });
    users.collect()
}

/// Returns whether somebody may log in. Takes as long whichever of the two is wrong.
fn is_right(logins: &[Login], name: &str, password: &[u8]) -> bool {
    let given = digest::digest(&digest::SHA256, password);
    logins.iter().fold(false, |found, login| {
        let same = constant_time::verify_slices_are_equal(login.password.as_ref(), given.as_ref()).is_ok();
        found | (same && login.name == name)
    })
}

/// Tells a client of SOCKS what became of its wish.
pub(super) fn reply(io: &mut Io, connection: ConnectionId, reply: SocksReply) {
    if let Some(buffer) = io.send_buffer(connection) {
        reply.put(buffer);
    }
}

impl Caller {
    fn who(self) -> Who {
        match self {
            Self::Network(address) => Who {
                origin: address.to_string(),
                ..Who::default()
            },
            Self::Local(peer) => Who {
                origin: format!("unix:process={}", peer.process),
                user: format!("uid:{}", peer.user),
                ..Who::default()
            },
        }
    }
}

impl Portals {
    /// Takes a connection to an inlet.
    pub(crate) fn handle_accepted(
        &mut self,
        ground: &mut Ground<'_>,
        index: usize,
        connection: ConnectionId,
        caller: Caller,
    ) {
        let is_stopping = self.is_stopping;
        let Some(inlet) = self.inlets.get_mut(index) else {
            ground.io.abort(connection);
            return;
        };
        let peer = match caller {
            Caller::Network(peer) => Some(peer),
            Caller::Local(_) => None,
        };
        let is_balancer = peer.is_some_and(|peer| {
            let networks = &inlet.accept_proxy_from;
            networks.iter().any(|network| network.contains(peer.ip()))
        });
        let is_allowed = is_balancer || peer.is_none_or(|peer| inlet.allows(peer));
        let is_full = inlet.portal.open >= inlet.portal.streams_max;
        inlet.portal.open += 1;
        let arrival = Arrival {
            inlet: index,
            who: caller.who(),
            peer,
            header: is_balancer.then(Vec::new),
            socks: inlet
                .socks
                .as_ref()
                .map(|logins| SocksServer::new(!logins.is_empty())),
            since: ground.now.instant,
        };
        let refusal = if is_stopping {
            Some("the node is ending")
        } else if !is_allowed {
            Some(NOT_ALLOWED)
        } else if is_full {
            Some("there are as many streams as may be")
        } else {
            None
        };
        if let Some(refusal) = refusal {
            ground.io.abort(connection);
            self.turn_away(ground, &arrival, refusal);
        } else {
            self.sweep_at.get_or_insert(ground.now.instant + SWEEP_EVERY);
            self.arrivals.insert(connection, arrival);
            self.handle_arriving(ground, connection, &[]);
        }
    }

    /// Takes bytes of a connection for which there is no stream yet.
    pub(super) fn handle_arriving(
        &mut self,
        ground: &mut Ground<'_>,
        connection: ConnectionId,
        bytes: &[u8],
    ) {
        let Some(mut arrival) = self.arrivals.remove(&connection) else {
            return;
        };
        let Some(header) = &mut arrival.header else {
            return self.handle_wish(ground, connection, arrival, bytes);
        };
        header.extend_from_slice(bytes);
        match proxy::decode(header) {
            Ok(None) => {
                self.arrivals.insert(connection, arrival);
            }
            Ok(Some(read)) => {
                let rest = header.split_off(read.len);
                arrival.header = None;
                // What a load balancer says for itself comes from itself.
                let source = read.endpoints.map(|endpoints| endpoints.source).or(arrival.peer);
                if let Some(source) = source {
                    arrival.who.origin = source.to_string();
                }
                let inlet = self.inlets.get(arrival.inlet);
                if !source.is_some_and(|source| inlet.is_some_and(|inlet| inlet.allows(source))) {
                    ground.io.abort(connection);
                    return self.turn_away(ground, &arrival, NOT_ALLOWED);
                }
                self.handle_wish(ground, connection, arrival, &rest);
            }
            Err(error) => {
                tracing::debug!(%error, hint = error.hint(), "PROXY header refused");
                ground.io.abort(connection);
                self.turn_away(
                    ground,
                    &arrival,
                    "what the load balancer sends begins with no PROXY header",
                );
            }
        }
    }

    /// Takes bytes of a connection of which it is known for whom it is.
    fn handle_wish(
        &mut self,
        ground: &mut Ground<'_>,
        connection: ConnectionId,
        mut arrival: Arrival,
        bytes: &[u8],
    ) {
        let Some(socks) = &mut arrival.socks else {
            return self.begin(ground, connection, arrival, bytes);
        };
        let inlet = self.inlets.get(arrival.inlet);
        let logins = inlet.and_then(|inlet| inlet.socks.as_deref()).unwrap_or_default();
        let mut outputs = Vec::new();
        let taken = socks.handle_bytes(
            bytes,
            &mut |name, password| is_right(logins, name, password),
            &mut |output| outputs.push(output),
        );
        let rest = bytes.get(taken..).unwrap_or_default();
        for output in outputs {
            match output {
                SocksOutput::Send(answer) => {
                    if let Some(buffer) = ground.io.send_buffer(connection) {
                        buffer.extend_from_slice(&answer);
                    }
                }
                SocksOutput::Connect(request) => {
                    arrival.who.user = request.user.unwrap_or(arrival.who.user);
                    arrival.who.target = if request.host.contains(':') {
                        format!("[{}]:{}", request.host, request.port)
                    } else {
                        format!("{}:{}", request.host, request.port)
                    };
                    return self.begin(ground, connection, arrival, rest);
                }
                SocksOutput::Refused(refusal) => {
                    tracing::debug!(%refusal, "client of SOCKS refused");
                    ground.io.close(connection);
                    return self.turn_away(ground, &arrival, "what it says in SOCKS is not accepted");
                }
            }
        }
        self.arrivals.insert(connection, arrival);
    }

    /// Asks the other node for a stream; `bytes` are its first.
    fn begin(&mut self, ground: &mut Ground<'_>, connection: ConnectionId, arrival: Arrival, bytes: &[u8]) {
        let Some(inlet) = self.inlets.get(arrival.inlet) else {
            return;
        };
        let open = Open {
            outlet: &inlet.outlet,
            origin: &arrival.who.origin,
            user: &arrival.who.user,
            target: &arrival.who.target,
        };
        let key = inlet.session;
        let opened = ground.node.portal(key).and_then(|session| session.open(open));
        let is_socks = arrival.socks.is_some();
        let Some(id) = opened else {
            let reason = if open.fits() {
                "the session has as many streams as may be"
            } else {
                "user or destination is too long"
            };
            if is_socks {
                reply(ground.io, connection, SocksReply::Failure);
                ground.io.close(connection);
            } else {
                ground.io.abort(connection);
            }
            return self.turn_away(ground, &arrival, reason);
        };
        // Until the other end is there nothing is taken: a client that only connected has sent nothing into the void.
        ground.io.pause_receive(connection);
        let key = (key, id);
        let mut stream = Stream::new(
            ground,
            Place::Inlet(arrival.inlet),
            arrival.who,
            Progress::Opening,
        );
        stream.is_socks = is_socks;
        stream.connection = Some(connection);
        stream.from_socket = bytes.len() as u64;
        stream.pending = bytes.to_vec();
        self.by_connection.insert(connection, key);
        self.insert(ground, key, stream);
    }

    /// A connection gets no stream.
    pub(super) fn turn_away(&mut self, ground: &Ground<'_>, arrival: &Arrival, reason: &'static str) {
        if let Some(inlet) = self.inlets.get_mut(arrival.inlet) {
            inlet.portal.open = inlet.portal.open.saturating_sub(1);
            inlet.portal.refused += 1;
            let place = (Place::Inlet(arrival.inlet), inlet.session);
            audit::refused(ground, &mut inlet.portal, place, &arrival.who, reason);
        }
    }

    /// Turns away everybody who has not said to an inlet what they want.
    pub(super) fn turn_all_away(&mut self, ground: &mut Ground<'_>, inlet: usize, reason: &'static str) {
        let gone = self.arrivals.extract_if(.., |_, arrival| arrival.inlet == inlet);
        for (connection, arrival) in gone.collect::<Vec<_>>() {
            ground.io.abort(connection);
            self.turn_away(ground, &arrival, reason);
        }
    }

    /// Ends connections that have not said what they want for too long.
    pub(super) fn sweep_arrivals(&mut self, ground: &mut Ground<'_>) {
        let now = ground.now.instant;
        let late = self.arrivals.iter().filter_map(|(connection, arrival)| {
            (now.saturating_since(arrival.since) >= OPEN_TIME_MAX).then_some(*connection)
        });
        let late: Vec<ConnectionId> = late.collect();
        for connection in late {
            ground.io.abort(connection);
            if let Some(arrival) = self.arrivals.remove(&connection) {
                self.turn_away(ground, &arrival, "it did not say in time what it wants");
            }
        }
    }
}

impl super::Inlet {
    pub(super) fn allows(&self, address: SocketAddr) -> bool {
        let ip = address.ip().to_canonical();
        self.allow.iter().any(|network| network.contains(ip))
    }
}

const NOT_ALLOWED: &str = "its address is in none of the networks that are allowed";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_needs_the_name_and_its_password() {
        let login = |name: &str, password: &str| Login {
            name: name.to_owned(),
            password: digest::digest(&digest::SHA256, password.as_bytes()),
        };
        let logins = [login("ops", "first"), login("maintenance", "second")];
        for (name, password, right) in [
            ("ops", "first", true),
            ("maintenance", "second", true),
            ("ops", "second", false),
            ("maintenance", "first", false),
            ("ops", "", false),
            ("", "first", false),
        ] {
            assert_eq!(
                is_right(&logins, name, password.as_bytes()),
                right,
                "{name} {password}"
            );
        }
        assert!(!is_right(&[], "ops", b"first"));
    }
}
