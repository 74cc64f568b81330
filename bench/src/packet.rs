//! The little of MQTT 3.1.1 that a load generator and a counting consumer need.
//!
//! Written apart from fieldgate's own codec, so that a measurement does not share its mistakes.

/// First byte of the packets in use, flags zero (MQTT 3.1.1 §2.2.1).
pub(crate) mod kind {
    pub(crate) const CONNECT: u8 = 0x10;
    pub(crate) const CONNACK: u8 = 0x20;
    pub(crate) const PUBLISH: u8 = 0x30;
    pub(crate) const PUBACK: u8 = 0x40;
    pub(crate) const SUBSCRIBE: u8 = 0x80;
    pub(crate) const SUBACK: u8 = 0x90;
    pub(crate) const PINGREQ: u8 = 0xc0;
    pub(crate) const PINGRESP: u8 = 0xd0;
    pub(crate) const DISCONNECT: u8 = 0xe0;
}

/// A packet in a receive buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Packet<'a> {
    first: u8,
    /// What follows the fixed header.
    pub(crate) body: &'a [u8],
}

impl<'a> Packet<'a> {
    /// Takes the packet at the start of `bytes` off; `None` while it is incomplete.
    ///
    /// # Errors
    ///
    /// When the remaining length takes more than four bytes (§2.2.3).
    pub(crate) fn split(bytes: &'a [u8]) -> Result<Option<(Self, &'a [u8])>, TooLong> {
        let Some((&first, mut rest)) = bytes.split_first() else {
            return Ok(None);
        };
        let mut length = 0;
        for shift in [0, 7, 14, 21] {
            let Some((&byte, after)) = rest.split_first() else {
                return Ok(None);
            };
            rest = after;
            length |= usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(rest
                    .split_at_checked(length)
                    .map(|(body, rest)| (Self { first, body }, rest)));
            }
        }
        Err(TooLong)
    }

    /// Returns the type of the packet, one of [`kind`].
    pub(crate) const fn kind(&self) -> u8 {
        self.first & 0xf0
    }

    /// Returns the packet identifier of a PUBACK, or of a PUBLISH with QoS above 0.
    pub(crate) fn packet_identifier(&self) -> Option<u16> {
        let at = match (self.kind(), self.first & 0x06) {
            (kind::PUBACK, _) => 0,
            (kind::PUBLISH, 0) => return None,
            (kind::PUBLISH, _) => 2 + usize::from(self.u16_at(0)?),
            _ => return None,
        };
        self.u16_at(at)
    }

    fn u16_at(&self, at: usize) -> Option<u16> {
        Some(u16::from_be_bytes([*self.body.get(at)?, *self.body.get(at + 1)?]))
    }
}

/// The remaining length does not end after four bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooLong;

/// Puts packets together that arrive in pieces.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    tail: Vec<u8>,
}

impl Inbox {
    /// Takes received bytes and shows every packet they complete to `see`.
    ///
    /// # Errors
    ///
    /// What `see` returns, or its conversion of [`TooLong`].
    pub(crate) fn feed<E: From<TooLong>>(
        &mut self,
        bytes: &[u8],
        see: impl FnMut(Packet<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        if self.tail.is_empty() {
            let rest = drain(bytes, see)?;
            self.tail.extend_from_slice(rest);
        } else {
            self.tail.extend_from_slice(bytes);
            let rest = drain(&self.tail, see)?.len();
            self.tail.drain(..self.tail.len() - rest);
        }
        Ok(())
    }
}

fn drain<E: From<TooLong>>(
    mut bytes: &[u8],
    mut see: impl FnMut(Packet<'_>) -> Result<(), E>,
) -> Result<&[u8], E> {
    while let Some((packet, rest)) = Packet::split(bytes)? {
        see(packet)?;
        bytes = rest;
    }
    Ok(bytes)
}

/// Appends CONNECT with a clean session (§3.1).
pub(crate) fn put_connect(out: &mut Vec<u8>, client_identifier: &str, keep_alive_secs: u16) {
    let mut body = Vec::new();
    put_text(&mut body, "MQTT");
    body.extend_from_slice(&[4, 0x02]);
    body.extend_from_slice(&keep_alive_secs.to_be_bytes());
    put_text(&mut body, client_identifier);
    put_packet(out, kind::CONNECT, &body);
}

/// Appends PUBLISH with QoS 1 (§3.3) and returns where its packet identifier stands, from the packet's start.
pub(crate) fn put_publish(out: &mut Vec<u8>, topic: &str, packet_identifier: u16, payload: &[u8]) -> usize {
    let start = out.len();
    let mut body = Vec::new();
    put_text(&mut body, topic);
    let in_body = body.len();
    body.extend_from_slice(&packet_identifier.to_be_bytes());
    body.extend_from_slice(payload);
    put_packet(out, kind::PUBLISH | 0x02, &body);
    out.len() - start - body.len() + in_body
}

/// Appends SUBSCRIBE to one topic filter with a maximum QoS (§3.8).
pub(crate) fn put_subscribe(out: &mut Vec<u8>, packet_identifier: u16, filter: &str, qos: u8) {
    let mut body = packet_identifier.to_be_bytes().to_vec();
    put_text(&mut body, filter);
    body.push(qos);
    put_packet(out, kind::SUBSCRIBE | 0x02, &body);
}

/// Appends PUBACK (§3.4); with no reason code it is the same in MQTT 5.0.
pub(crate) fn put_puback(out: &mut Vec<u8>, packet_identifier: u16) {
    let [high, low] = packet_identifier.to_be_bytes();
    out.extend_from_slice(&[kind::PUBACK, 2, high, low]);
}

/// Appends the CONNACK that lets a client in, in the version its CONNECT asks for.
pub(crate) fn put_connack(out: &mut Vec<u8>, connect: &Packet<'_>) {
    // The level follows the 2 + 4 bytes of the protocol's name; 5.0 adds an empty list of properties.
    if connect.body.get(6) == Some(&5) {
        out.extend_from_slice(&[kind::CONNACK, 3, 0, 0, 0]);
    } else {
        out.extend_from_slice(&[kind::CONNACK, 2, 0, 0]);
    }
}

/// Appends PINGRESP (§3.13).
pub(crate) fn put_pingresp(out: &mut Vec<u8>) {
    out.extend_from_slice(&[kind::PINGRESP, 0]);
}

fn put_packet(out: &mut Vec<u8>, first: u8, body: &[u8]) {
    out.push(first);
    let mut length = body.len();
    loop {
        let low = u8::try_from(length & 0x7f).unwrap_or(0);
        length >>= 7;
        if length == 0 {
            out.push(low);
            break;
        }
        out.push(low | 0x80);
    }
    out.extend_from_slice(body);
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    let length = u16::try_from(text.len()).expect("names made here are short");
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn packets(pieces: &[&[u8]]) -> Result<Vec<(u8, Vec<u8>)>, TooLong> {
        let mut inbox = Inbox::default();
        let mut seen = Vec::new();
        for piece in pieces {
            inbox.feed(piece, |packet| {
                seen.push((packet.kind(), packet.body.to_vec()));
                Ok::<(), TooLong>(())
            })?;
        }
        Ok(seen)
    }

    #[test]
    fn a_connect_is_the_one_of_the_standard() {
        let mut out = Vec::new();
        put_connect(&mut out, "a", 60);
        assert_eq!(
            out,
            [0x10, 13, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 60, 0, 1, b'a']
        );
    }

    #[test]
    fn the_packet_identifier_can_be_replaced_where_put_publish_says() {
        let mut out = vec![0xff];
        let at = put_publish(&mut out, "topic", 0x0102, &[b'x'; 200]);
        assert_eq!(out[1 + at..][..2], [1, 2]);
        let (packet, rest) = Packet::split(&out[1..]).unwrap().unwrap();
        assert_eq!(packet.packet_identifier(), Some(0x0102));
        assert!(rest.is_empty());
    }

    #[test]
    fn a_qos_0_publish_has_no_packet_identifier() {
        let (packet, _) = Packet::split(&[0x30, 3, 0, 1, b'a']).unwrap().unwrap();
        assert_eq!(packet.packet_identifier(), None);
    }

    #[test]
    fn a_length_of_five_bytes_is_refused() {
        assert_eq!(Packet::split(&[0x30, 0x80, 0x80, 0x80, 0x80, 1]), Err(TooLong));
    }

    #[test]
    fn the_connack_has_the_version_of_the_connect() {
        for (level, expected) in [(4, &[0x20, 2, 0, 0][..]), (5, &[0x20, 3, 0, 0, 0])] {
            let bytes = [0x10, 7, 0, 4, b'M', b'Q', b'T', b'T', level];
            let (packet, _) = Packet::split(&bytes).unwrap().unwrap();
            let mut out = Vec::new();
            put_connack(&mut out, &packet);
            assert_eq!(out, expected);
        }
    }

    proptest! {
        #[test]
        fn pieces_give_the_same_packets_as_the_whole(sizes in prop::collection::vec(0..300usize, 1..6), cut: prop::sample::Index) {
            let mut bytes = Vec::new();
            for size in &sizes {
                put_publish(&mut bytes, "t", 1, &vec![7; *size]);
            }
            put_puback(&mut bytes, 9);
            let (one, two) = bytes.split_at(cut.index(bytes.len()));
            prop_assert_eq!(packets(&[one, two]), packets(&[&bytes]));
            prop_assert_eq!(packets(&[one, two]).unwrap().len(), sizes.len() + 1);
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes: Vec<u8>) {
            let _ = packets(&[&bytes]);
            if let Ok(Some((packet, _))) = Packet::split(&bytes) {
                let _ = packet.packet_identifier();
            }
        }
    }
}
