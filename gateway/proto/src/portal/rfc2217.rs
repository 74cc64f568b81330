//! Serial ports over telnet: the side of whoever has the port (RFC 854, RFC 856, RFC 858, RFC 2217).
//!
//! ```text
//!  client ─▶ bytes, IAC IAC ─────────────────▶ data for the line
//!         ─▶ IAC WILL, DO … option ──────────▶ answer, if something changes
//!         ─▶ IAC SB COM-PORT-OPTION … IAC SE ▶ the line is set ─▶ what it has become
//!  client ◀─ bytes, IAC doubled ◀────────────── data of the line
//! ```
//!
//! Bytes count as binary from the first on: what has come before both sides have agreed is not changed either.
#![cfg_attr(not(test), warn(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

/// The bit that each byte on the line is checked by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ComPortParity {
    /// There is none.
    None,
    /// The number of ones is odd.
    Odd,
    /// The number of ones is even.
    Even,
}

/// Who may hold up the bytes of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ComPortFlow {
    /// Nobody.
    None,
    /// XON and XOFF.
    XonXoff,
    /// RTS and CTS.
    RtsCts,
}

/// How a line is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ComPortState {
    /// Bits per second.
    pub baud: u32,
    /// Bits of a byte, 5 to 8.
    pub data_bits: u8,
    /// The bit to check them by.
    pub parity: ComPortParity,
    /// Bits between two bytes, 1 or 2.
    pub stop_bits: u8,
    /// Who may hold up the bytes.
    pub flow: ComPortFlow,
    /// Data terminal ready.
    pub dtr: bool,
    /// Request to send.
    pub rts: bool,
    /// The line is held at zero.
    pub is_break: bool,
}

/// Levels of the lines from the other side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ComPortLevels {
    /// Clear to send.
    pub cts: bool,
    /// Data set ready.
    pub dsr: bool,
    /// Ring indicator.
    pub ri: bool,
    /// Carrier detect.
    pub cd: bool,
}

/// The line behind a port.
pub trait ComPortLine {
    /// Takes bytes for the line.
    fn data(&mut self, bytes: &[u8]);
    /// Returns how it is set.
    fn state(&self) -> ComPortState;
    /// Sets what it can of this, after what came before has gone out. [`ComPortLine::state`] says what it has become.
    fn set(&mut self, wanted: ComPortState);
    /// Throws away what has come from the line and was not passed on, what is to go out, or both.
    fn purge(&mut self, received: bool, to_send: bool);
}

/// Where a client's next byte belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Data,
    /// Behind IAC.
    Command,
    /// Behind WILL, WONT, DO or DONT.
    Option(u8),
    /// Between SB and SE.
    Within,
    /// There, behind IAC.
    WithinCommand,
}

/// An option on one side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Agreed {
    No,
    /// This side has asked for it.
    Asked,
    Yes,
}

/// A port, for one client.
#[derive(Debug)]
pub struct ComPort {
    place: Place,
    /// What has come of a subnegotiation, its option first; at most [`SUBNEGOTIATION_LEN_MAX`] bytes.
    within: Vec<u8>,
    /// It is longer than that, and passed over.
    is_long: bool,
    /// Options of this side, by their place in [`OPTIONS`].
    ours: [Agreed; OPTIONS.len()],
    /// Options of the client.
    theirs: [Agreed; OPTIONS.len()],
    is_suspended: bool,
    modem_mask: u8,
    /// What the client was told of the lines from the other side.
    told: Option<ComPortLevels>,
    levels: ComPortLevels,
}

impl ComPort {
    /// Expects a client, and appends what is said to it first.
    #[must_use]
    pub fn new(out: &mut Vec<u8>) -> Self {
        for option in [BINARY, SUPPRESS_GO_AHEAD] {
            out.extend_from_slice(&[IAC, WILL, option, IAC, DO, option]);
        }
        out.extend_from_slice(&[IAC, DO, COM_PORT]);
        Self {
            place: Place::Data,
            within: Vec::new(),
            is_long: false,
            ours: [Agreed::Asked, Agreed::Asked, Agreed::No],
            theirs: [Agreed::Asked; OPTIONS.len()],
            is_suspended: false,
            modem_mask: u8::MAX,
            told: None,
            levels: ComPortLevels::default(),
        }
    }

    /// Returns whether the client wants no bytes of the line for now.
    #[must_use]
    pub const fn is_suspended(&self) -> bool {
        self.is_suspended
    }

    /// Takes bytes of the client; what is to be answered is appended to `out`: less than three bytes for each that came.
    pub fn handle_bytes(&mut self, bytes: &[u8], line: &mut dyn ComPortLine, out: &mut Vec<u8>) {
        let mut rest = bytes;
        while let Some((&byte, after)) = rest.split_first() {
            if self.place == Place::Data && byte != IAC {
                let end = rest.iter().position(|byte| *byte == IAC).unwrap_or(rest.len());
                let (data, after) = rest.split_at(end);
                line.data(data);
                rest = after;
                continue;
            }
            rest = after;
            self.handle_byte(byte, line, out);
        }
    }

    fn handle_byte(&mut self, byte: u8, line: &mut dyn ComPortLine, out: &mut Vec<u8>) {
        self.place = match (self.place, byte) {
            (Place::Data, _) => Place::Command,
            (Place::Command, IAC) => {
                line.data(&[IAC]);
                Place::Data
            }
            (Place::Command, WILL | WONT | DO | DONT) => Place::Option(byte),
            (Place::Command, SB) => {
                self.within.clear();
                self.is_long = false;
                Place::Within
            }
            // Of the other commands none is about a serial port.
            (Place::Command, _) => Place::Data,
            (Place::Option(command), option) => {
                self.negotiate(command, option, out);
                Place::Data
            }
            (Place::Within, IAC) => Place::WithinCommand,
            (Place::Within, byte) | (Place::WithinCommand, byte @ IAC) => {
                self.is_long |= self.within.len() >= SUBNEGOTIATION_LEN_MAX;
                if !self.is_long {
                    self.within.push(byte);
                }
                Place::Within
            }
            // Anything but SE ends it too, as if it had come.
            (Place::WithinCommand, _) => {
                if !self.is_long {
                    let within = std::mem::take(&mut self.within);
                    self.handle_subnegotiation(&within, line, out);
                    self.within = within;
                }
                Place::Data
            }
        };
    }

    /// Answers only what changes something (RFC 854, page 3), so that there is no end to nothing.
    fn negotiate(&mut self, command: u8, option: u8, out: &mut Vec<u8>) {
        let is_about_us = matches!(command, DO | DONT);
        let wanted = matches!(command, DO | WILL);
        let (yes, no) = if is_about_us { (WILL, WONT) } else { (DO, DONT) };
        let place = OPTIONS.iter().position(|known| *known == option);
        let side = if is_about_us {
            &mut self.ours
        } else {
            &mut self.theirs
        };
        let Some(agreed) = place.and_then(|place| side.get_mut(place)) else {
            if wanted {
                out.extend_from_slice(&[IAC, no, option]);
            }
            return;
        };
        // The port is on this side: only the client has the option of one.
        let is_taken = wanted && !(is_about_us && option == COM_PORT);
        match (is_taken, *agreed) {
            (true, Agreed::No) => out.extend_from_slice(&[IAC, yes, option]),
            (false, Agreed::Yes) => out.extend_from_slice(&[IAC, no, option]),
            (false, Agreed::No | Agreed::Asked) if wanted => out.extend_from_slice(&[IAC, no, option]),
            (true, Agreed::Asked | Agreed::Yes) | (false, Agreed::No | Agreed::Asked) => {}
        }
        *agreed = if is_taken { Agreed::Yes } else { Agreed::No };
    }

    fn handle_subnegotiation(&mut self, within: &[u8], line: &mut dyn ComPortLine, out: &mut Vec<u8>) {
        let Some((&COM_PORT, [command, value @ ..])) = within.split_first() else {
            return;
        };
        let mut wanted = line.state();
        match (*command, value) {
            (SIGNATURE, []) => put(SIGNATURE, b"fieldgate", out),
            (SET_BAUD, &[a, b, c, d]) => {
                let baud = u32::from_be_bytes([a, b, c, d]);
                if baud != 0 {
                    wanted.baud = baud;
                    line.set(wanted);
                }
                put(SET_BAUD, &line.state().baud.to_be_bytes(), out);
            }
            (SET_DATA_SIZE, &[bits]) => {
                if (5..=8).contains(&bits) {
                    wanted.data_bits = bits;
                    line.set(wanted);
                }
                put(SET_DATA_SIZE, &[line.state().data_bits], out);
            }
            (SET_PARITY, &[code]) => {
                if let Some((_, parity)) = PARITIES.iter().find(|(known, _)| *known == code) {
                    wanted.parity = *parity;
                    line.set(wanted);
                }
                let now = line.state().parity;
                let code = PARITIES.iter().find(|(_, parity)| *parity == now);
                put(SET_PARITY, &[code.map_or(1, |(code, _)| *code)], out);
            }
            (SET_STOP_SIZE, &[bits]) => {
                // 3 would be one and a half.
                if (1..=2).contains(&bits) {
                    wanted.stop_bits = bits;
                    line.set(wanted);
                }
                put(SET_STOP_SIZE, &[line.state().stop_bits], out);
            }
            (SET_CONTROL, &[code]) => {
                let now = set_control(code, line);
                put(SET_CONTROL, &[now], out);
            }
            (FLOW_SUSPEND, []) => self.is_suspended = true,
            (FLOW_RESUME, []) => self.is_suspended = false,
            // What goes wrong on the line is not told: the driver does not say when.
            (SET_LINE_MASK, &[_]) => put(SET_LINE_MASK, &[0], out),
            (SET_MODEM_MASK, &[mask]) => {
                self.modem_mask = mask;
                put(SET_MODEM_MASK, &[mask], out);
            }
            (NOTIFY_MODEM, []) => put(NOTIFY_MODEM, &[self.levels.bits()], out),
            (PURGE, &[which @ 1..=3]) => {
                line.purge(which != 2, which != 1);
                put(PURGE, &[which], out);
            }
            // Of a later version, or malformed: nothing is set, and nothing said.
            _ => {}
        }
    }

    /// Takes the levels of the lines from the other side; appends what the client is to know of them.
    pub fn handle_levels(&mut self, levels: ComPortLevels, out: &mut Vec<u8>) {
        self.levels = levels;
        let is_agreed = self.theirs.get(COM_PORT_PLACE) == Some(&Agreed::Yes);
        if !is_agreed || self.told == Some(levels) {
            return;
        }
        let before = self.told.replace(levels).unwrap_or_default();
        let changed = (before.bits() ^ levels.bits()) >> 4;
        // Of the ring indicator its end alone counts as a change.
        let changed = if levels.ri { changed & !4 } else { changed };
        let state = levels.bits() | changed;
        if state & self.modem_mask != 0 {
            put(NOTIFY_MODEM, &[state & self.modem_mask], out);
        }
    }
}

impl ComPortLevels {
    const fn bits(self) -> u8 {
        (self.cd as u8) << 7 | (self.ri as u8) << 6 | (self.dsr as u8) << 5 | (self.cts as u8) << 4
    }
}

/// Carries out SET-CONTROL; returns the code of what is so afterwards.
fn set_control(code: u8, line: &mut dyn ComPortLine) -> u8 {
    let mut wanted = line.state();
    match code {
        1 | 14 => wanted.flow = ComPortFlow::None,
        2 | 15 => wanted.flow = ComPortFlow::XonXoff,
        3 | 16 => wanted.flow = ComPortFlow::RtsCts,
        5 | 6 => wanted.is_break = code == 5,
        8 | 9 => wanted.dtr = code == 8,
        11 | 12 => wanted.rts = code == 11,
        _ => {}
    }
    if wanted != line.state() {
        line.set(wanted);
    }
    let now = line.state();
    let choose = |is: bool, on: u8, off: u8| if is { on } else { off };
    match code {
        4..=6 => choose(now.is_break, 5, 6),
        7..=9 => choose(now.dtr, 8, 9),
        10..=12 => choose(now.rts, 11, 12),
        // Flow control of what comes from the client, by itself: it is the same in both directions.
        13..=16 => match now.flow {
            ComPortFlow::None => 14,
            ComPortFlow::XonXoff => 15,
            ComPortFlow::RtsCts => 16,
        },
        _ => match now.flow {
            ComPortFlow::None => 1,
            ComPortFlow::XonXoff => 2,
            ComPortFlow::RtsCts => 3,
        },
    }
}

/// Appends data of the line.
pub fn put_data(bytes: &[u8], out: &mut Vec<u8>) {
    for piece in bytes.split_inclusive(|byte| *byte == IAC) {
        out.extend_from_slice(piece);
        if piece.last() == Some(&IAC) {
            out.push(IAC);
        }
    }
}

/// Appends a message of the port.
fn put(command: u8, value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&[IAC, SB, COM_PORT, command.wrapping_add(FROM_PORT)]);
    put_data(value, out);
    out.extend_from_slice(&[IAC, SE]);
}

/// Longest subnegotiation that is looked at, in bytes; those that mean something have at most six.
const SUBNEGOTIATION_LEN_MAX: usize = 16;

const IAC: u8 = 255;
const DONT: u8 = 254;
const DO: u8 = 253;
const WONT: u8 = 252;
const WILL: u8 = 251;
const SB: u8 = 250;
const SE: u8 = 240;

/// TRANSMIT-BINARY (RFC 856), SUPPRESS-GO-AHEAD (RFC 858), COM-PORT-OPTION (RFC 2217 §2).
const BINARY: u8 = 0;
const SUPPRESS_GO_AHEAD: u8 = 3;
const COM_PORT: u8 = 44;
const OPTIONS: [u8; 3] = [BINARY, SUPPRESS_GO_AHEAD, COM_PORT];
const COM_PORT_PLACE: usize = 2;

/// Commands of RFC 2217 §3 from the client; those from the port are 100 higher.
const SIGNATURE: u8 = 0;
const SET_BAUD: u8 = 1;
const SET_DATA_SIZE: u8 = 2;
const SET_PARITY: u8 = 3;
const SET_STOP_SIZE: u8 = 4;
const SET_CONTROL: u8 = 5;
const NOTIFY_MODEM: u8 = 7;
const FLOW_SUSPEND: u8 = 8;
const FLOW_RESUME: u8 = 9;
const SET_LINE_MASK: u8 = 10;
const SET_MODEM_MASK: u8 = 11;
const PURGE: u8 = 12;
const FROM_PORT: u8 = 100;

const PARITIES: [(u8, ComPortParity); 3] = [
    (1, ComPortParity::None),
    (2, ComPortParity::Odd),
    (3, ComPortParity::Even),
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A line that can be set to anything but 300 baud.
    #[derive(Debug, PartialEq, Eq)]
    struct Memory {
        state: ComPortState,
        data: Vec<u8>,
        purged: Vec<(bool, bool)>,
    }

    impl Memory {
        const fn new() -> Self {
            Self {
                state: ComPortState {
                    baud: 9_600,
                    data_bits: 8,
                    parity: ComPortParity::None,
                    stop_bits: 1,
                    flow: ComPortFlow::None,
                    dtr: true,
                    rts: true,
                    is_break: false,
                },
                data: Vec::new(),
                purged: Vec::new(),
            }
        }
    }

    impl ComPortLine for Memory {
        fn data(&mut self, bytes: &[u8]) {
            self.data.extend_from_slice(bytes);
        }

        fn state(&self) -> ComPortState {
            self.state
        }

        fn set(&mut self, wanted: ComPortState) {
            if wanted.baud != 300 {
                self.state = wanted;
            }
        }

        fn purge(&mut self, received: bool, to_send: bool) {
            self.purged.push((received, to_send));
        }
    }

    /// A port to which the client has said that it has the option.
    fn agreed() -> ComPort {
        let mut port = ComPort::new(&mut Vec::new());
        port.handle_bytes(&[IAC, WILL, COM_PORT], &mut Memory::new(), &mut Vec::new());
        port
    }

    fn say(port: &mut ComPort, line: &mut Memory, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        port.handle_bytes(bytes, line, &mut out);
        out
    }

    /// What a client sends for a command.
    fn ask(command: u8, value: &[u8]) -> Vec<u8> {
        let mut bytes = vec![IAC, SB, COM_PORT, command];
        put_data(value, &mut bytes);
        bytes.extend_from_slice(&[IAC, SE]);
        bytes
    }

    fn told(command: u8, value: &[u8]) -> Vec<u8> {
        ask(command + 100, value)
    }

    #[test]
    fn options_are_agreed_upon_once() {
        let mut first = Vec::new();
        let mut port = ComPort::new(&mut first);
        assert_eq!(first.len(), 5 * 3);
        let mut line = Memory::new();
        // Answers to what was asked are not answered.
        let answers = [IAC, DO, BINARY, IAC, WILL, BINARY, IAC, WILL, COM_PORT];
        assert!(say(&mut port, &mut line, &answers).is_empty());
        assert!(say(&mut port, &mut line, &answers).is_empty());
        // Echo is not done here, whoever would do it, and the port is not the client's.
        let strange = [IAC, DO, 1, IAC, WILL, 1, IAC, DO, COM_PORT, IAC, DONT, 1];
        assert_eq!(
            say(&mut port, &mut line, &strange),
            [IAC, WONT, 1, IAC, DONT, 1, IAC, WONT, COM_PORT]
        );
        // What was agreed can be taken back, and agreed upon again.
        assert_eq!(
            say(&mut port, &mut line, &[IAC, DONT, BINARY]),
            [IAC, WONT, BINARY]
        );
        assert!(say(&mut port, &mut line, &[IAC, DONT, BINARY]).is_empty());
        assert_eq!(say(&mut port, &mut line, &[IAC, DO, BINARY]), [IAC, WILL, BINARY]);
        assert!(line.data.is_empty());
    }

    #[test]
    fn a_client_sets_the_line_and_hears_what_it_has_become() {
        let (mut port, mut line) = (agreed(), Memory::new());
        let mut check = |command: u8, value: &[u8], becomes: &[u8]| {
            let answer = say(&mut port, &mut line, &ask(command, value));
            assert_eq!(answer, told(command, becomes), "{command} {value:?}");
        };
        check(SET_BAUD, &19_200_u32.to_be_bytes(), &19_200_u32.to_be_bytes());
        check(SET_BAUD, &0_u32.to_be_bytes(), &19_200_u32.to_be_bytes());
        // The line cannot do that.
        check(SET_BAUD, &300_u32.to_be_bytes(), &19_200_u32.to_be_bytes());
        // A rate with a byte that has to be doubled.
        check(SET_BAUD, &65_280_u32.to_be_bytes(), &65_280_u32.to_be_bytes());
        check(SET_DATA_SIZE, &[7], &[7]);
        check(SET_DATA_SIZE, &[9], &[7]);
        check(SET_PARITY, &[3], &[3]);
        check(SET_PARITY, &[5], &[3]);
        check(SET_STOP_SIZE, &[2], &[2]);
        check(SET_STOP_SIZE, &[3], &[2]);
        for (code, becomes) in [
            (3, 3),
            (0, 3),
            (13, 16),
            (17, 3),
            (1, 1),
            (5, 5),
            (4, 5),
            (6, 6),
            (9, 9),
            (7, 9),
        ] {
            check(SET_CONTROL, &[code], &[becomes]);
        }
        check(SET_CONTROL, &[12], &[12]);
        check(SET_LINE_MASK, &[255], &[0]);
        check(SIGNATURE, &[], b"fieldgate");
        check(PURGE, &[3], &[3]);
        check(PURGE, &[1], &[1]);
        assert_eq!(line.purged, [(true, true), (true, false)]);
        assert_eq!(
            (line.state.data_bits, line.state.parity, line.state.stop_bits),
            (7, ComPortParity::Even, 2)
        );
        assert!(!line.state.dtr && !line.state.rts && !line.state.is_break);
    }

    #[test]
    fn what_means_nothing_sets_nothing() {
        let (mut port, mut line) = (agreed(), Memory::new());
        for bytes in [
            ask(SET_BAUD, &[1, 2, 3]),
            ask(99, &[1]),
            ask(PURGE, &[0]),
            vec![IAC, SB, 31, 0, 80, IAC, SE],
            vec![IAC, SB, IAC, SE],
            // Longer than anything that is looked at.
            ask(SET_BAUD, &[0; 10_000]),
            vec![IAC, 241],
        ] {
            assert!(say(&mut port, &mut line, &bytes).is_empty(), "{bytes:?}");
        }
        assert_eq!(line, Memory::new());
        assert!(port.within.capacity() <= 2 * SUBNEGOTIATION_LEN_MAX);
        // And what follows is understood.
        assert_eq!(
            say(&mut port, &mut line, &ask(SET_STOP_SIZE, &[0])),
            told(SET_STOP_SIZE, &[1])
        );
        assert!(say(&mut port, &mut line, &ask(FLOW_SUSPEND, &[])).is_empty() && port.is_suspended());
        assert!(say(&mut port, &mut line, &ask(FLOW_RESUME, &[])).is_empty() && !port.is_suspended());
    }

    #[test]
    fn levels_are_told_when_they_change() {
        let levels = |cts, ri| ComPortLevels {
            cts,
            ri,
            ..ComPortLevels::default()
        };
        let mut out = Vec::new();
        let mut strange = ComPort::new(&mut Vec::new());
        strange.handle_levels(levels(true, false), &mut out);
        assert!(out.is_empty(), "the client knows no such option");
        let mut port = agreed();
        let mut change = |port: &mut ComPort, levels: ComPortLevels| {
            out.clear();
            port.handle_levels(levels, &mut out);
            out.clone()
        };
        assert_eq!(
            change(&mut port, levels(true, false)),
            told(NOTIFY_MODEM, &[0x11])
        );
        assert!(change(&mut port, levels(true, false)).is_empty());
        assert_eq!(change(&mut port, levels(true, true)), told(NOTIFY_MODEM, &[0x50]));
        assert_eq!(
            change(&mut port, levels(false, false)),
            told(NOTIFY_MODEM, &[0x05])
        );
        let mut line = Memory::new();
        assert_eq!(
            say(&mut port, &mut line, &ask(SET_MODEM_MASK, &[0])),
            told(SET_MODEM_MASK, &[0])
        );
        assert!(change(&mut port, levels(true, false)).is_empty());
        assert_eq!(
            say(&mut port, &mut line, &ask(NOTIFY_MODEM, &[])),
            told(NOTIFY_MODEM, &[0x10])
        );
    }

    proptest! {
        #[test]
        fn data_comes_out_as_it_went_in(data: Vec<u8>) {
            let mut bytes = Vec::new();
            put_data(&data, &mut bytes);
            let mut line = Memory::new();
            prop_assert!(say(&mut agreed(), &mut line, &bytes).is_empty());
            prop_assert_eq!(line.data, data);
        }

        #[test]
        fn it_is_the_same_in_whatever_pieces_it_comes(
            bytes in proptest::collection::vec(
                prop_oneof![any::<u8>(), Just(IAC), Just(SB), Just(SE), Just(COM_PORT), 0_u8..16], 0..200),
            piece in 1_usize..20,
        ) {
            let (mut whole, mut cut) = (Memory::new(), Memory::new());
            let at_once = say(&mut agreed(), &mut whole, &bytes);
            let mut port = agreed();
            let mut out = Vec::new();
            for piece in bytes.chunks(piece) {
                out.extend(say(&mut port, &mut cut, piece));
            }
            prop_assert_eq!(&out, &at_once);
            prop_assert_eq!(whole, cut);
            prop_assert!(out.len() < 3 * bytes.len().max(1));
        }
    }
}
