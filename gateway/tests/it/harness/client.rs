//! A small MQTT client that publishes and shows exactly what comes back.

use std::{
    io::{self, ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
};

use fieldgate_mqtt::{
    frame::{Split, split},
    packet::{Packet, PacketIdentifier, Qos, connect::Connect, publish::Publish},
    property::Properties,
    reason::ReasonCode,
    version::ProtocolVersion,
};

use super::wait::PATIENCE;

/// A connection to a gateway.
pub(crate) struct Client {
    stream: TcpStream,
    version: ProtocolVersion,
    received: Vec<u8>,
}

/// What came from the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Received {
    /// CONNACK.
    ConnAck(ReasonCode),
    /// PUBACK.
    PubAck(u16, ReasonCode),
    /// DISCONNECT.
    Disconnect(ReasonCode),
    /// PINGRESP.
    PingResp,
    /// The connection was closed.
    End,
}

impl Client {
    /// Connects the socket, and sends nothing.
    ///
    /// # Errors
    /// Those of the socket.
    pub(crate) fn dial(to: SocketAddr, version: ProtocolVersion) -> io::Result<Self> {
        let stream = TcpStream::connect(to)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self {
            stream,
            version,
            received: Vec::new(),
        })
    }

    /// Connects and waits for CONNACK.
    ///
    /// # Errors
    /// Those of the socket; `ConnectionRefused` if the gateway says no.
    pub(crate) fn connect(
        to: SocketAddr,
        version: ProtocolVersion,
        client_id: &str,
        login: Option<(&str, &str)>,
    ) -> io::Result<Self> {
        let mut client = Self::dial(to, version)?;
        match client.log_in(client_id, login)? {
            Received::ConnAck(ReasonCode::Success) => Ok(client),
            other => Err(io::Error::new(ErrorKind::ConnectionRefused, format!("{other:?}"))),
        }
    }

    /// Sends CONNECT and returns what comes back.
    ///
    /// # Errors
    /// Those of the socket.
    pub(crate) fn log_in(&mut self, client_id: &str, login: Option<(&str, &str)>) -> io::Result<Received> {
        self.send(&Packet::Connect(Connect {
            version: self.version,
            clean_start: true,
            keep_alive_secs: 0,
            client_id,
            will: None,
            username: login.map(|(username, _)| username),
            password: login.map(|(_, password)| password.as_bytes()),
            properties: Properties::EMPTY,
        }))?;
        self.receive()
    }

    /// Publishes at QoS 1.
    ///
    /// # Errors
    /// Those of the socket.
    pub(crate) fn publish(&mut self, id: u16, topic: &str, payload: &[u8], dup: bool) -> io::Result<()> {
        self.send(&Packet::Publish(Publish {
            dup,
            qos: Qos::AtLeastOnce,
            retain: false,
            topic,
            packet_id: PacketIdentifier::new(id),
            properties: Properties::EMPTY,
            payload,
        }))
    }

    /// Publishes at QoS 1 and returns what comes back.
    ///
    /// # Errors
    /// Those of the socket.
    pub(crate) fn publish_and_wait(&mut self, id: u16, topic: &str, payload: &[u8]) -> io::Result<Received> {
        self.publish(id, topic, payload, false)?;
        self.receive()
    }

    /// Sends PINGREQ and returns what comes back.
    ///
    /// # Errors
    /// Those of the socket.
    pub(crate) fn ping(&mut self) -> io::Result<Received> {
        self.send(&Packet::PingReq)?;
        self.receive()
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// Those of the socket.
    pub(crate) fn send_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    fn send(&mut self, packet: &Packet<'_>) -> io::Result<()> {
        let mut bytes = Vec::new();
        packet
            .encode(self.version, &mut bytes)
            .map_err(io::Error::other)?;
        self.stream.write_all(&bytes)
    }

    /// Waits for the next packet.
    ///
    /// # Errors
    /// Those of the socket, a reset by the gateway left out, which is an end; `InvalidData` for bytes that are no packet.
    pub(crate) fn receive(&mut self) -> io::Result<Received> {
        loop {
            if let Some(received) = self.take()? {
                return Ok(received);
            }
            let mut bytes = [0; 4096];
            match self.stream.read(&mut bytes) {
                Ok(0) => return Ok(Received::End),
                Ok(count) => self.received.extend_from_slice(&bytes[..count]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(Received::End),
                Err(error) => return Err(error),
            }
        }
    }

    fn take(&mut self) -> io::Result<Option<Received>> {
        let invalid = |what: String| io::Error::new(ErrorKind::InvalidData, what);
        let (received, left) = match split(&self.received, PACKET_BYTES_MAX).map_err(io::Error::other)? {
            Split::Incomplete { .. } => return Ok(None),
            Split::Complete { frame, rest } => {
                let packet = Packet::decode(&frame, self.version).map_err(io::Error::other)?;
                let received = if let Packet::ConnAck(packet) = packet {
                    Received::ConnAck(packet.reason)
                } else if let Packet::PubAck(packet) = packet {
                    Received::PubAck(packet.packet_id.get(), packet.reason)
                } else if let Packet::Disconnect(packet) = packet {
                    Received::Disconnect(packet.reason)
                } else if packet == Packet::PingResp {
                    Received::PingResp
                } else {
                    return Err(invalid(format!("nobody asked for {packet:?}")));
                };
                (received, rest.len())
            }
        };
        self.received.drain(..self.received.len() - left);
        Ok(Some(received))
    }
}

/// Largest packet that a gateway sends to a client that subscribes to nothing, with room.
const PACKET_BYTES_MAX: u32 = 64 << 10;
