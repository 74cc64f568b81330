//! Links over QUIC: the sockets of an [`Endpoint`], and what the node writes in a turn.
//!
//! The driver counts connections of its own; those here have names that it never gives away, so that whoever asks it about one
//! hears that there is none.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io as std_io,
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    time::Duration,
};

use fieldgate_config::settings::Settings;
use fieldgate_io::{ConnectionId, DatagramId, DatagramOptions, DatagramPath, Io};
use fieldgate_proto::{entropy::Entropy as _, node::ConnectionKey, time::Instant};
use fieldgate_quic::{Datagram, Dial, Endpoint, LinkId, Output, Stats};

use crate::runtime::{StartError, entropy::SystemEntropy};

/// Everything over QUIC.
pub(crate) struct Quic {
    endpoint: Endpoint,
    /// By the number that the endpoint knows them by.
    sockets: Vec<Socket>,
    /// What the node wrote in this turn.
    plain: BTreeMap<ConnectionKey, Vec<u8>>,
    dirty: BTreeSet<ConnectionKey>,
    /// When the addresses of the sockets are to be looked at; `None` if nobody is told them.
    look_at: Option<Instant>,
    /// Who may connect until then, whatever the socket.
    expected: BTreeMap<IpAddr, Instant>,
}

struct Socket {
    id: DatagramId,
    local: SocketAddr,
    listens: bool,
}

impl Quic {
    /// Prepares for as many connections of others as there may be links.
    ///
    /// # Errors
    /// [`StartError`]: TLS does not work, or the secret in the state directory cannot be read or made.
    pub(super) fn load(settings: &Settings, links_max: u32) -> Result<Self, StartError> {
        let reset_key = match &settings.link_quic {
            Some(_) => {
                let path = settings.node.state_dir.join(RESET_KEY_FILE);
                reset_key(&path).map_err(|error| StartError::file(&path, &error))?
            }
            // Whom this node dials, it tells nothing after a restart: it was not dialled.
            None => random(),
        };
        let endpoint = Endpoint::new(&fieldgate_quic::Settings {
            accepted_max: usize::try_from(links_max).unwrap_or(usize::MAX),
            reset_key,
            epoch: fieldgate_io::clock::epoch(),
        });
        Ok(Self {
            endpoint: endpoint.map_err(|error| StartError::new(format!("links over QUIC: {error}")))?,
            sockets: Vec::new(),
            plain: BTreeMap::new(),
            dirty: BTreeSet::new(),
            look_at: settings.has_direct_paths().then_some(Instant::START),
            expected: BTreeMap::new(),
        })
    }

    pub(super) const fn poll_addresses(&self) -> Option<Instant> {
        self.look_at
    }

    /// Returns the addresses of the sockets, with those of all interfaces for one that is bound to none.
    pub(super) fn look_at_addresses(&mut self, io: &mut Io, again_at: Instant) -> Vec<SocketAddr> {
        self.look_at = Some(again_at);
        for any in [IpAddr::from(Ipv4Addr::UNSPECIFIED), Ipv6Addr::UNSPECIFIED.into()] {
            // A machine without IPv6 has no use for its addresses.
            if let Err(error) = self.dialling_socket(io, any.is_ipv4()) {
                tracing::debug!(%any, %error, "no socket for direct paths");
            }
        }
        let interfaces = fieldgate_io::interfaces::addresses().unwrap_or_else(|error| {
            tracing::warn!(%error, "the addresses of this machine are not known; direct paths need them");
            Vec::new()
        });
        let mut addresses = Vec::new();
        for socket in &self.sockets {
            if socket.local.ip().is_unspecified() {
                let own = interfaces
                    .iter()
                    .filter(|ip| ip.is_ipv4() == socket.local.is_ipv4());
                addresses.extend(own.map(|ip| SocketAddr::new(*ip, socket.local.port())));
            } else {
                addresses.push(socket.local);
            }
        }
        addresses
    }

    /// Sends something to each address, and takes connections from there for a while.
    pub(super) fn punch(&mut self, io: &mut Io, now: Instant, addresses: &[SocketAddr]) {
        self.expected.retain(|_, until| now < *until);
        for address in addresses {
            if self.expected.len() < EXPECTED_MAX || self.expected.contains_key(&address.ip()) {
                self.expected.insert(address.ip(), now + EXPECTED_FOR);
            }
            for socket in &self.sockets {
                if socket.local.is_ipv4() == address.is_ipv4() {
                    // One that is lost is followed by another.
                    let _ = io.send_datagram(socket.id, DatagramPath::from(*address), &PUNCH);
                }
            }
        }
    }

    pub(crate) const fn stats(&self) -> Stats {
        self.endpoint.stats()
    }

    /// Takes links at an address; returns which it is.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn listen(&mut self, io: &mut Io, address: SocketAddr) -> std_io::Result<SocketAddr> {
        self.bind(io, address, true).map(|(_, local)| local)
    }

    fn bind(&mut self, io: &mut Io, address: SocketAddr, listens: bool) -> std_io::Result<(u64, SocketAddr)> {
        let options = DatagramOptions {
            // RFC 9000 §14: packets find out what the path takes by getting lost, not by being cut.
            never_fragment: true,
            kernel_buffer: SOCKET_BUFFER,
            ..DatagramOptions::default()
        };
        let (id, local) = io.bind_datagrams(address, &options)?;
        self.sockets.push(Socket { id, local, listens });
        Ok((self.sockets.len() as u64 - 1, local))
    }

    /// Begins to connect.
    ///
    /// # Errors
    /// In words: there is no socket, or can be nobody at that address.
    pub(super) fn dial(
        &mut self,
        io: &mut Io,
        now: Instant,
        remote: SocketAddr,
    ) -> Result<ConnectionId, String> {
        let socket = self
            .dialling_socket(io, remote.is_ipv4())
            .map_err(|error| error.to_string())?;
        self.endpoint.dial(now, Dial { socket, remote }).map(connection)
    }

    /// Returns the socket from which this node dials.
    fn dialling_socket(&mut self, io: &mut Io, is_ipv4: bool) -> std_io::Result<u64> {
        let own = self
            .sockets
            .iter()
            .position(|socket| !socket.listens && socket.local.is_ipv4() == is_ipv4);
        if let Some(socket) = own {
            return Ok(socket as u64);
        }
        let any: IpAddr = if is_ipv4 {
            Ipv4Addr::UNSPECIFIED.into()
        } else {
            Ipv6Addr::UNSPECIFIED.into()
        };
        Ok(self.bind(io, SocketAddr::new(any, 0), false)?.0)
    }

    /// Takes a datagram; says whether its socket is one for links.
    pub(super) fn handle_datagram(
        &mut self,
        now: Instant,
        socket: DatagramId,
        path: DatagramPath,
        bytes: &[u8],
    ) -> bool {
        let Some((number, socket)) = self.socket(socket) else {
            return false;
        };
        let datagram = Datagram {
            socket: number,
            remote: path.remote,
            local: path.local,
            bytes,
        };
        let is_expected = |until: &Instant| now < *until;
        let listens = socket.listens || self.expected.get(&path.remote.ip()).is_some_and(is_expected);
        self.endpoint.handle_datagram(now, &datagram, listens);
        true
    }

    /// The queue of a socket is empty again.
    pub(super) fn handle_drained(&mut self, socket: DatagramId) {
        if let Some((number, _)) = self.socket(socket) {
            self.endpoint.handle_drained(number);
        }
    }

    fn socket(&self, id: DatagramId) -> Option<(u64, &Socket)> {
        let mut sockets = (0..).zip(&self.sockets);
        sockets.find(|(_, socket)| socket.id == id)
    }

    /// Works on what has come.
    pub(super) fn process(&mut self, now: Instant) {
        self.endpoint.process(now);
    }

    /// Returns what that came to.
    pub(super) fn poll_output(&mut self) -> Option<Output> {
        self.endpoint.poll_output()
    }

    pub(super) fn is_open(&self, key: ConnectionKey) -> bool {
        self.endpoint.is_open(link(key))
    }

    /// Returns the buffer for what the node writes in this turn; `None` if nothing can be sent.
    pub(super) fn buffer(&mut self, key: ConnectionKey) -> Option<&mut Vec<u8>> {
        if !self.is_open(key) {
            return None;
        }
        self.dirty.insert(key);
        Some(self.plain.entry(key).or_default())
    }

    pub(super) fn queued_bytes(&self, key: ConnectionKey) -> usize {
        let plain = self.plain.get(&key).map_or(0, Vec::len);
        plain.saturating_add(self.endpoint.queued_bytes(link(key)))
    }

    /// Lets a neighbour that has shown who it is send as fast as the network carries.
    pub(super) fn trust(&mut self, key: ConnectionKey) {
        self.endpoint.trust(link(key));
    }

    fn write(&mut self, key: ConnectionKey) {
        if let Some(plain) = self.plain.get_mut(&key) {
            self.endpoint.write(link(key), plain);
            plain.clear();
            plain.shrink_to(KEPT_BYTES);
        }
    }

    /// Sends what the node has written, and what the connections have to say themselves.
    pub(super) fn flush(&mut self, io: &mut Io, now: Instant) {
        for key in std::mem::take(&mut self.dirty) {
            self.write(key);
        }
        self.endpoint.process(now);
        let sockets = &self.sockets;
        self.endpoint.flush(now, &mut |datagram| {
            let socket = usize::try_from(datagram.socket)
                .ok()
                .and_then(|number| sockets.get(number));
            let path = DatagramPath {
                remote: datagram.remote,
                local: datagram.local,
            };
            // One whose socket is gone is lost, like any other.
            socket.is_none_or(|socket| io.send_datagram(socket.id, path, datagram.bytes))
        });
    }

    /// Sends what is written, and then ends the connection.
    pub(super) fn close(&mut self, now: Instant, key: ConnectionKey) {
        self.write(key);
        self.plain.remove(&key);
        self.dirty.remove(&key);
        self.endpoint.close(now, link(key));
    }

    /// Ends the connection, if it is there, and forgets it.
    pub(super) fn forget(&mut self, now: Instant, key: ConnectionKey) {
        self.plain.remove(&key);
        self.dirty.remove(&key);
        self.endpoint.abort(now, link(key));
    }

    /// The node stops: tells everybody.
    pub(super) fn stop(&mut self, io: &mut Io, now: Instant) {
        self.endpoint.abort_all(now);
        self.flush(io, now);
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        if self.dirty.is_empty() {
            self.endpoint.poll_timeout()
        } else {
            Some(Instant::START)
        }
    }
}

/// Returns whether a connection is one over QUIC.
pub(crate) const fn is_quic(key: ConnectionKey) -> bool {
    key.0 & MARK != 0
}

/// Names a connection for the trunk.
pub(crate) const fn connection(link: LinkId) -> ConnectionId {
    ConnectionId::from_u64(((link.0 >> MARK_BIT) << 32) | MARK | (link.0 & (MARK - 1)))
}

const fn link(key: ConnectionKey) -> LinkId {
    LinkId(((key.0 >> 32) << MARK_BIT) | (key.0 & (MARK - 1)))
}

/// Reads the secret of the node, or makes it.
fn reset_key(path: &Path) -> std_io::Result<[u8; 32]> {
    let mut key = [0; 32];
    match fs::File::open(path).and_then(|mut file| file.read_exact(&mut key)) {
        Ok(()) => return Ok(key),
        // One that is too short was cut off while it was made.
        Err(error)
            if matches!(
                error.kind(),
                std_io::ErrorKind::NotFound | std_io::ErrorKind::UnexpectedEof
            ) => {}
        Err(error) => return Err(error),
    }
    let key = random();
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(&key)?;
    Ok(key)
}

fn random() -> [u8; 32] {
    let mut key = [0; 32];
    SystemEntropy.fill(&mut key);
    key
}

/// In the state directory; whoever has it can end connections of this node, and nothing else.
const RESET_KEY_FILE: &str = "quic-reset.key";

/// The driver counts its connections from 0, and never has as many as this.
const MARK: u64 = 1 << MARK_BIT;
const MARK_BIT: u32 = 31;

/// Bytes that the kernel keeps for a socket while the trunk does something else, as far as it lets us.
const SOCKET_BUFFER: usize = 4 << 20;

/// What opens a router: no packet of QUIC is that short (RFC 9000 §10.3), so whoever gets it drops it.
const PUNCH: [u8; 1] = [0];

/// Addresses whose nodes may connect for a while, and how long.
const EXPECTED_MAX: usize = 512;
const EXPECTED_FOR: Duration = Duration::from_secs(30);

/// Memory that a link keeps for its next turn.
const KEPT_BYTES: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_connections_are_told_from_the_drivers_and_lead_back() {
        for number in [0, 1, MARK - 1, MARK, MARK + 1, u64::MAX >> 1] {
            let key = ConnectionKey(connection(LinkId(number)).as_u64());
            assert!(is_quic(key));
            assert_eq!(link(key), LinkId(number));
        }
        assert!(!is_quic(ConnectionKey(0)) && !is_quic(ConnectionKey((7 << 32) | 999_999)));
    }

    #[test]
    fn the_secret_stays_and_one_that_was_cut_off_is_made_anew() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join(RESET_KEY_FILE);
        let key = reset_key(&path).expect("it is made");
        assert_eq!(reset_key(&path).expect("it is read"), key);
        fs::write(&path, [1, 2, 3]).expect("it can be written");
        let other = reset_key(&path).expect("it is made");
        assert_ne!(other, key);
        assert_eq!(reset_key(&path).expect("it is read"), other);
        assert!(reset_key(&dir.path().join("none/of/this")).is_err());
    }
}
