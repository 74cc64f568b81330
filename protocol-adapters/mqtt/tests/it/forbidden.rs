//! What the standards forbid, statement by statement, and what becomes of the client that does it.
#![expect(clippy::too_many_lines, reason = "tables are long")]

use fieldgate_mqtt::{session::end::SessionEnd, version::ProtocolVersion};

use crate::{
    bench::Bench,
    bytes::{
        V5, V311, connect, device_connect, packet, plain_connect, properties, publish, publish_1, string,
    },
};

/// What the session does with the last packet.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Expect {
    /// It ends and says nothing.
    Silence,
    /// It ends with this CONNACK: form and code.
    Refusal(ProtocolVersion, u8),
    /// It ends with a DISCONNECT of MQTT 5.0 with this reason code.
    Disconnect(u8),
    /// It goes on; these bytes are sent. An empty answer means that the packet is taken and nothing need be said.
    Answer(Vec<u8>),
    /// It goes on with a CONNACK that accepts.
    Accepted,
}
use Expect::{Accepted, Answer, Disconnect, Refusal, Silence};

struct Case {
    /// Where the standards say so: MQTT 5.0 unless 3.1.1 is named.
    section: &'static str,
    what: String,
    /// Packets before the one in question; what they are answered is not looked at.
    before: Vec<u8>,
    bytes: Vec<u8>,
    expect: Expect,
}

#[derive(Default)]
struct Cases(Vec<Case>);

impl Cases {
    fn add(
        &mut self,
        section: &'static str,
        what: impl Into<String>,
        before: Vec<u8>,
        bytes: Vec<u8>,
        expect: Expect,
    ) {
        self.0.push(Case {
            section,
            what: what.into(),
            before,
            bytes,
            expect,
        });
    }

    /// A first packet.
    fn first(&mut self, section: &'static str, what: &str, bytes: Vec<u8>, expect: Expect) {
        self.add(section, what, Vec::new(), bytes, expect);
    }

    /// A first packet of each version; MQTT 5.0 answers with `reason`, MQTT 3.1.1 closes.
    fn first_of_both(
        &mut self,
        section: &'static str,
        what: &str,
        bytes: impl Fn(ProtocolVersion) -> Vec<u8>,
        reason: u8,
    ) {
        self.first(section, what, bytes(V5), Refusal(V5, reason));
        self.first(section, what, bytes(V311), Silence);
    }

    /// A packet after CONNECT in MQTT 5.0.
    fn v5(&mut self, section: &'static str, what: &str, bytes: Vec<u8>, expect: Expect) {
        self.add(section, what, plain_connect(V5), bytes, expect);
    }

    /// A packet after CONNECT in MQTT 3.1.1.
    fn v311(&mut self, section: &'static str, what: &str, bytes: Vec<u8>, expect: Expect) {
        self.add(section, what, plain_connect(V311), bytes, expect);
    }

    /// A packet after CONNECT in each version; MQTT 5.0 answers with DISCONNECT, MQTT 3.1.1 closes.
    fn both(
        &mut self,
        section: &'static str,
        what: &str,
        bytes: impl Fn(ProtocolVersion) -> Vec<u8>,
        reason: u8,
    ) {
        self.v5(section, what, bytes(V5), Disconnect(reason));
        self.v311(section, what, bytes(V311), Silence);
    }
}

fn first_packets(cases: &mut Cases) {
    let not_connect: [(&str, Vec<u8>); 9] = [
        ("CONNACK", vec![0x20, 2, 0, 0]),
        ("PUBLISH", publish(V311, 0, "t", 0, &[], "x")),
        ("PUBACK", vec![0x40, 2, 0, 1]),
        ("SUBSCRIBE", packet(0x82, &[&[0, 1], &string("t"), &[0]])),
        ("PINGREQ", vec![0xc0, 0]),
        ("DISCONNECT", vec![0xe0, 0]),
        ("AUTH", vec![0xf0, 0]),
        ("type 0", vec![0x00, 0]),
        ("HTTP", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
    ];
    for (what, bytes) in not_connect {
        cases.first("[MQTT-3.1.0-1]", what, bytes, Silence);
    }
    let with_name = |name: &str, level| packet(0x10, &[&string(name), &[level, 2, 0, 60], &string("c")]);
    for (name, level) in [
        ("MQTX", 5),
        ("MQTX", 4),
        ("", 4),
        ("mqtt", 4),
        ("MQIsdp", 4),
        ("MQIsdp", 5),
        ("MQTTT", 5),
    ] {
        cases.first(
            "[MQTT-3.1.2-1]",
            &format!("name {name} level {level}"),
            with_name(name, level),
            Silence,
        );
    }
    for level in [0, 1, 2, 3, 0x83, 0x84] {
        let bytes = with_name("MQTT", level);
        cases.first(
            "3.1.1 [MQTT-3.1.2-2]",
            &format!("level {level}"),
            bytes,
            Refusal(V311, 1),
        );
    }
    cases.first(
        "3.1.1 [MQTT-3.1.2-2]",
        "MQTT 3.1",
        with_name("MQIsdp", 3),
        Refusal(V311, 1),
    );
    for level in [6, 7, 0x7f, 0x85, 0xff] {
        let bytes = with_name("MQTT", level);
        cases.first(
            "[MQTT-3.1.2-2]",
            &format!("level {level}"),
            bytes,
            Refusal(V5, 0x84),
        );
    }
}

fn connect_flags_and_payload(cases: &mut Cases) {
    let c = string("c");
    let plain = |flags: u8| {
        let c = c.clone();
        move |version| connect(version, flags, &[], &[&c])
    };
    cases.first_of_both("[MQTT-3.1.2-3]", "reserved flag", plain(0x03), 0x81);
    cases.first_of_both("[MQTT-3.1.2-11]", "will QoS 1 without will", plain(0x0a), 0x81);
    cases.first_of_both("[MQTT-3.1.2-11]", "will QoS 2 without will", plain(0x12), 0x81);
    cases.first_of_both("[MQTT-3.1.2-13]", "will retain without will", plain(0x22), 0x81);
    let will = |version, flags: u8, topic: &[u8]| {
        connect(
            version,
            flags,
            &[],
            &[
                &string("c"),
                &properties(version, &[]),
                &string(topic),
                &string("gone"),
            ],
        )
    };
    cases.first_of_both("[MQTT-3.1.2-12]", "will QoS 3", |v| will(v, 0x1e, b"t"), 0x81);
    for (what, topic) in [
        ("#", b"a/#".as_slice()),
        ("+", b"+/a"),
        ("no", b""),
        ("U+0000", b"a\0"),
        ("bad UTF-8", b"\xff"),
    ] {
        let what = format!("{what} in a will topic");
        cases.first_of_both(
            "[MQTT-3.1.3-11], [MQTT-4.7.1-1]",
            &what,
            |v| will(v, 0x06, topic),
            0x81,
        );
    }
    cases.first(
        "3.1.1 [MQTT-3.1.2-22]",
        "password alone",
        connect(V311, 0x42, &[], &[&c, &c]),
        Silence,
    );
    cases.first(
        "§3.1.2.9",
        "password alone is allowed, and wrong here",
        connect(V5, 0x42, &[], &[&c, &c]),
        Refusal(V5, 0x86),
    );

    cases.first_of_both("§3.1.3.5", "no user name", plain(0x82), 0x81);
    cases.first_of_both(
        "§3.1.3.6",
        "no password",
        |v| connect(v, 0xc2, &[], &[&string("c"), &string("u")]),
        0x81,
    );
    cases.first_of_both(
        "§3.1.3.3",
        "no will topic",
        |v| connect(v, 0x06, &[], &[&string("c"), &properties(v, &[])]),
        0x81,
    );
    cases.first_of_both(
        "§3.1.3.4",
        "no will payload",
        |v| connect(v, 0x06, &[], &[&string("c"), &properties(v, &[]), &string("t")]),
        0x81,
    );
    cases.first_of_both(
        "[MQTT-3.1.3-3]",
        "no client identifier",
        |v| connect(v, 0x02, &[], &[]),
        0x81,
    );
    cases.first_of_both(
        "§3.1.3.1",
        "client identifier cut short",
        |v| connect(v, 0x02, &[], &[&[0, 5, b'c']]),
        0x81,
    );
    cases.first_of_both(
        "§3.1.2.10",
        "no keep alive",
        |v| packet(0x10, &[&string("MQTT"), &[v.level(), 2]]),
        0x81,
    );
    cases.first_of_both(
        "[MQTT-3.1.3-1]",
        "bytes behind the payload",
        |v| connect(v, 0x02, &[], &[&string("c"), &[0]]),
        0x81,
    );
    for (what, bad) in [
        ("U+0000", b"a\0".as_slice()),
        ("bad UTF-8", b"\xc3\x28"),
        ("a surrogate", b"\xed\xa0\x80"),
    ] {
        let id = format!("{what} in a client identifier");
        cases.first_of_both(
            "[MQTT-3.1.3-4]",
            &id,
            |v| connect(v, 0x02, &[], &[&string(bad)]),
            0x81,
        );
        let name = format!("{what} in a user name");
        cases.first_of_both(
            "[MQTT-3.1.3-11]",
            &name,
            |v| connect(v, 0x82, &[], &[&string("c"), &string(bad)]),
            0x81,
        );
    }
    cases.first(
        "3.1.1 [MQTT-3.1.3-8]",
        "no identifier, session kept",
        connect(V311, 0, &[], &[&string("")]),
        Refusal(V311, 2),
    );
    cases.first(
        "3.1.1 [MQTT-3.1.3-6]",
        "no identifier, clean session",
        connect(V311, 2, &[], &[&string("")]),
        Accepted,
    );
    cases.first(
        "[MQTT-3.1.3-6]",
        "no identifier, no clean start",
        connect(V5, 0, &[], &[&string("")]),
        Accepted,
    );
    let long = string("x".repeat(256));
    cases.first(
        "[MQTT-3.1.3-8]",
        "identifier too long",
        connect(V5, 2, &[], &[&long]),
        Refusal(V5, 0x85),
    );
    cases.first(
        "3.1.1 [MQTT-3.1.3-9]",
        "identifier too long",
        connect(V311, 2, &[], &[&long]),
        Refusal(V311, 2),
    );
    let padded = |version| {
        let mut bytes = plain_connect(version);
        bytes[1] |= 0x80;
        bytes.insert(2, 0);
        bytes
    };
    cases.first(
        "[MQTT-1.5.5-1]",
        "remaining length longer than needed",
        padded(V5),
        Refusal(V5, 0x81),
    );
    cases.first(
        "3.1.1 §2.2.3",
        "remaining length longer than needed is not forbidden",
        padded(V311),
        Accepted,
    );
    for (version, code) in [(V5, 0x86), (V311, 4)] {
        let bytes = device_connect(version, "wrong");
        cases.first(
            "§3.1.4, 3.1.1 §3.2.2.3",
            "wrong password",
            bytes,
            Refusal(version, code),
        );
    }
    for (version, code) in [(V5, 0x87), (V311, 5)] {
        let bytes = connect(version, 2, &[], &[&string("pump")]);
        cases.first(
            "§3.1.4, 3.1.1 §3.2.2.3",
            "the name of a device without its credentials",
            bytes,
            Refusal(version, code),
        );
    }
    for version in [V5, V311] {
        let mut bytes = plain_connect(version);
        bytes[0] = 0x11;
        cases.first(
            "[MQTT-2.1.3-1]",
            "reserved bits of the first byte",
            bytes,
            Silence,
        );
    }
}

fn connect_properties(cases: &mut Cases) {
    let with = |section: &[u8]| connect(V5, 2, section, &[&string("c")]);
    let twice: [(&str, &[u8]); 9] = [
        ("session expiry interval", &[0x11, 0, 0, 0, 1]),
        ("receive maximum", &[0x21, 0, 1]),
        ("maximum packet size", &[0x27, 0, 0, 1, 0]),
        ("topic alias maximum", &[0x22, 0, 1]),
        ("request response information", &[0x19, 1]),
        ("request problem information", &[0x17, 1]),
        ("authentication method", &[0x15, 0, 1, b'm']),
        ("authentication data", &[0x16, 0, 1, b'm']),
        ("receive maximum, other value", &[0x21, 0, 2]),
    ];
    for (what, property) in twice {
        cases.first(
            "§3.1.2.11",
            &format!("{what} twice"),
            with(&[property, property].concat()),
            Refusal(V5, 0x82),
        );
        let expect = match property[0] {
            0x15 => Refusal(V5, 0x8c),
            0x16 => Refusal(V5, 0x82),
            _ => Accepted,
        };
        cases.first("§3.1.2.11", &format!("{what} once"), with(property), expect);
    }
    let bad: [(&'static str, &str, &[u8], u8); 12] = [
        ("§3.1.2.11.3", "receive maximum 0", &[0x21, 0, 0], 0x82),
        ("§3.1.2.11.4", "maximum packet size 0", &[0x27, 0, 0, 0, 0], 0x82),
        ("§3.1.2.11.6", "request response information 2", &[0x19, 2], 0x82),
        ("§3.1.2.11.7", "request problem information 2", &[0x17, 2], 0x82),
        (
            "§3.1.2.11.10",
            "authentication data without method",
            &[0x16, 0, 1, b'd'],
            0x82,
        ),
        ("§2.2.2.2", "topic alias", &[0x23, 0, 1], 0x81),
        (
            "§2.2.2.2",
            "will delay interval outside a will",
            &[0x18, 0, 0, 0, 1],
            0x81,
        ),
        ("§2.2.2.2", "server keep alive", &[0x13, 0, 1], 0x81),
        ("§2.2.2.2", "an identifier without meaning", &[0x7f, 0], 0x81),
        ("§2.2.2.2", "a property cut short", &[0x11, 0, 0], 0x81),
        (
            "[MQTT-1.5.4-2]",
            "U+0000 in a user property",
            &[0x26, 0, 1, 0, 0, 1, b'v'],
            0x81,
        ),
        (
            "[MQTT-1.5.7-1]",
            "bad UTF-8 in a user property",
            &[0x26, 0, 1, b'k', 0, 1, 0xff],
            0x81,
        ),
    ];
    for (section, what, property, reason) in bad {
        cases.first(section, what, with(property), Refusal(V5, reason));
    }
    let raw = |section: &[u8]| packet(0x10, &[&string("MQTT"), &[5, 2, 0, 60], section, &string("c")]);
    cases.first(
        "§2.2.2.1",
        "property length beyond the packet",
        raw(&[0x7f]),
        Refusal(V5, 0x81),
    );
    cases.first(
        "[MQTT-1.5.5-1]",
        "property length longer than needed",
        raw(&[0x80, 0]),
        Refusal(V5, 0x81),
    );
    cases.first(
        "[MQTT-2.2.2-1]",
        "no property length",
        packet(0x10, &[&string("MQTT"), &[5, 2, 0, 60]]),
        Refusal(V5, 0x81),
    );

    let will = |flags: u8, section: &[u8], payload: &[u8]| {
        connect(
            V5,
            flags,
            &[],
            &[
                &string("c"),
                &properties(V5, section),
                &string("t"),
                &string(payload),
            ],
        )
    };
    cases.first("§3.1.2.6", "will QoS 2", will(0x16, &[], b""), Accepted);
    cases.first("§3.1.2.7", "will retain", will(0x26, &[], b""), Accepted);
    cases.first(
        "§3.1.3.2.3",
        "will payload is no text",
        will(0x06, &[0x01, 1], b"\xff"),
        Refusal(V5, 0x99),
    );
    cases.first(
        "§3.1.3.2.3",
        "will payload is text",
        will(0x06, &[0x01, 1], b"x"),
        Accepted,
    );
    cases.first(
        "§3.1.3.2.2",
        "will delay interval twice",
        will(0x06, &[0x18, 0, 0, 0, 1, 0x18, 0, 0, 0, 1], b""),
        Refusal(V5, 0x82),
    );
    cases.first(
        "§3.1.3.2",
        "topic alias in a will",
        will(0x06, &[0x23, 0, 1], b""),
        Refusal(V5, 0x81),
    );
    cases.first(
        "§3.1.3.2.6",
        "wildcard in a will's response topic",
        will(0x06, &[0x08, 0, 1, b'#'], b""),
        Refusal(V5, 0x82),
    );
    let too_many = [0x26, 0, 0, 0, 0].repeat(25);
    cases.first(
        "§3.1.3.2.8",
        "25 user properties in a will",
        will(0x06, &too_many, b""),
        Accepted,
    );
    let will_311 = |flags| connect(V311, flags, &[], &[&string("c"), &string("t"), &string("gone")]);
    cases.first("3.1.1 §3.1.2.6", "will QoS 2", will_311(0x16), Accepted);
    cases.first("3.1.1 §3.1.2.7", "will retain", will_311(0x26), Accepted);
}

fn order_and_direction(cases: &mut Cases) {
    cases.both("[MQTT-3.1.0-2]", "a second CONNECT", plain_connect, 0x82);
    // DISCONNECT has no word for an unsupported version.
    cases.both(
        "[MQTT-3.1.0-2]",
        "a second CONNECT of a version that does not exist",
        |_| packet(0x10, &[&[0, 4], b"MQTT", &[9, 2, 0, 60, 0, 0, 1, b'c']]),
        0x82,
    );
    cases.both(
        "§2.1.2",
        "CONNACK from a client",
        |v| packet(0x20, &[&[0, 0], &properties(v, &[])]),
        0x82,
    );
    cases.both(
        "§2.1.2",
        "SUBACK from a client",
        |v| packet(0x90, &[&[0, 1], &properties(v, &[]), &[0]]),
        0x82,
    );
    cases.v5(
        "§2.1.2",
        "UNSUBACK from a client",
        packet(0xb0, &[&[0, 1, 0, 0]]),
        Disconnect(0x82),
    );
    cases.v311(
        "3.1.1 §2.2.1",
        "UNSUBACK from a client",
        packet(0xb0, &[&[0, 1]]),
        Silence,
    );
    cases.both("§2.1.2", "PINGRESP from a client", |_| vec![0xd0, 0], 0x82);
    // The last word about a message that the gateway has forgotten is no error; PUBREC alone waits for an answer.
    let unreleased = [
        (0x40, "PUBACK", vec![], vec![]),
        (0x50, "PUBREC", vec![0x62, 3, 0, 1, 0x92], vec![0x62, 2, 0, 1]),
        (0x70, "PUBCOMP", vec![], vec![]),
    ];
    for (first, what, answer, answer_311) in unreleased {
        let bytes = vec![first, 2, 0, 1];
        let case = format!("{what} for nothing");
        cases.v5("§4.3.3", &case, bytes.clone(), Answer(answer));
        cases.v311("3.1.1 §4.3.3", &case, bytes, Answer(answer_311));
        cases.both(
            "[MQTT-2.2.1-3]",
            &format!("{what} for 0"),
            |_| vec![first, 2, 0, 0],
            0x81,
        );
        cases.both("§3.4", &format!("{what} cut short"), |_| vec![first, 1, 0], 0x81);
        cases.v5(
            "§3.4.2.1",
            &format!("{what} with a reason of SUBACK"),
            vec![first, 3, 0, 1, 0x8f],
            Disconnect(0x81),
        );
        cases.v311(
            "3.1.1 §3.4",
            &format!("{what} with a reason"),
            vec![first, 3, 0, 1, 0],
            Silence,
        );
    }
    cases.v5(
        "§4.3.3",
        "PUBREL for nothing",
        vec![0x62, 2, 0, 9],
        Answer(vec![0x70, 3, 0, 9, 0x92]),
    );
    cases.v311(
        "3.1.1 §4.3.3",
        "PUBREL for nothing",
        vec![0x62, 2, 0, 9],
        Answer(vec![0x70, 2, 0, 9]),
    );
    cases.v5(
        "§3.6.2.1",
        "PUBREL with a reason of PUBACK",
        vec![0x62, 3, 0, 1, 0x10],
        Disconnect(0x81),
    );
    cases.v5(
        "[MQTT-4.12.0-6]",
        "AUTH without a method",
        vec![0xf0, 0],
        Disconnect(0x82),
    );
    cases.v5(
        "§3.15.2.1",
        "AUTH with a reason of its own",
        vec![0xf0, 1, 0x80],
        Disconnect(0x81),
    );
    cases.v311("3.1.1 §2.2.1", "packet type 15", vec![0xf0, 0], Silence);
    cases.both("§2.1.2", "packet type 0", |_| vec![0x00, 0], 0x81);
    for kind in 1..=15_u8 {
        let right = match kind {
            6 | 8 | 10 => 2,
            _ => 0,
        };
        for flags in (0..16_u8).filter(|flags| kind != 3 && *flags != right) {
            let what = format!("type {kind} with flags {flags:04b}");
            cases.both(
                "[MQTT-2.1.3-1], 3.1.1 [MQTT-2.2.2-2]",
                &what,
                |_| vec![kind << 4 | flags, 2, 0, 1],
                0x81,
            );
        }
    }
    cases.both(
        "§1.5.5",
        "remaining length of five bytes",
        |_| vec![0x30, 0xff, 0xff, 0xff, 0xff, 0x01],
        0x81,
    );
    cases.v5(
        "[MQTT-1.5.5-1]",
        "remaining length longer than needed",
        vec![0xc0, 0x80, 0],
        Disconnect(0x81),
    );
    cases.v311(
        "3.1.1 §2.2.3",
        "remaining length longer than needed",
        vec![0xc0, 0x80, 0],
        Answer(vec![0xd0, 0]),
    );
    cases.both(
        "§3.2.2.3.6",
        "a packet of 64,513 bytes",
        |_| vec![0x30, 0xfd, 0xf7, 0x03],
        0x95,
    );
    cases.both(
        "§3.2.2.3.6",
        "a packet of 256 MiB",
        |_| vec![0x30, 0xff, 0xff, 0xff, 0x7f],
        0x95,
    );
    cases.both("§3.12", "PINGREQ with a body", |_| vec![0xc0, 1, 0], 0x81);
    for (version, before) in [(V5, plain_connect(V5)), (V311, plain_connect(V311))] {
        let what = format!("PINGREQ in {version:?}");
        cases.add(
            "[MQTT-3.12.4-1]",
            what,
            before,
            vec![0xc0, 0],
            Answer(vec![0xd0, 0]),
        );
    }
}

fn publishes(cases: &mut Cases) {
    let topic = |flags: u8, topic: &'static [u8]| move |v| publish(v, flags, topic, 1, &[], "x");
    cases.both("[MQTT-3.3.1-4]", "both QoS bits", topic(0x06, b"t"), 0x81);
    cases.both("[MQTT-3.3.1-2]", "DUP at QoS 0", topic(0x08, b"t"), 0x81);
    cases.both("[MQTT-3.3.2-2]", "# in the topic", topic(0, b"a/#"), 0x81);
    cases.both("[MQTT-3.3.2-2]", "+ in the topic", topic(2, b"a/+/b"), 0x81);
    cases.both("[MQTT-3.3.2-2]", "+ within a level", topic(0, b"a+b"), 0x81);
    cases.v311("3.1.1 [MQTT-4.7.3-1]", "no topic", topic(0, b"")(V311), Silence);
    cases.v5(
        "§3.3.2.1",
        "no topic and no alias",
        topic(0, b"")(V5),
        Disconnect(0x82),
    );
    cases.both("[MQTT-1.5.4-2]", "U+0000 in the topic", topic(0, b"a\0b"), 0x81);
    cases.both(
        "[MQTT-1.5.4-1]",
        "bad UTF-8 in the topic",
        topic(0, b"a\xff"),
        0x81,
    );
    cases.both(
        "[MQTT-1.5.4-1]",
        "a surrogate in the topic",
        topic(0, b"\xed\xbf\xbf"),
        0x81,
    );
    cases.both(
        "[MQTT-1.5.4-1]",
        "an overlong form in the topic",
        topic(0, b"\xc0\xaf"),
        0x81,
    );
    cases.both(
        "[MQTT-1.5.4-1]",
        "beyond U+10FFFF in the topic",
        topic(0, b"\xf4\x90\x80\x80"),
        0x81,
    );
    for (what, text) in [
        ("école/x", "école/x"),
        ("U+FEFF", "\u{feff}"),
        ("U+10FFFF", "\u{10ffff}"),
        ("a control", "\u{1}"),
        ("a space", " "),
    ] {
        for version in [V5, V311] {
            let what = format!("{what} in the topic is allowed, {version:?}");
            let bytes = publish(version, 0, text, 0, &[], "x");
            cases.add(
                "[MQTT-1.5.4-3], §4.7.3",
                what,
                plain_connect(version),
                bytes,
                Answer(vec![]),
            );
        }
    }
    cases.both(
        "[MQTT-2.2.1-3]",
        "packet identifier 0",
        |v| publish(v, 2, "t", 0, &[], "x"),
        0x81,
    );
    cases.both(
        "§3.3.2.1",
        "topic cut short",
        |_| packet(0x30, &[&[0, 5, b't']]),
        0x81,
    );
    cases.both("§3.3.2.1", "no topic length", |_| packet(0x30, &[&[0]]), 0x81);
    cases.both(
        "[MQTT-2.2.1-2]",
        "no packet identifier",
        |_| packet(0x32, &[&string("t")]),
        0x81,
    );
    cases.v5(
        "[MQTT-2.2.2-1]",
        "no property length",
        packet(0x30, &[&string("t")]),
        Disconnect(0x81),
    );
    for version in [V5, V311] {
        let before = plain_connect(version);
        let bytes = publish(version, 4, "t", 1, &[], "x");
        cases.add("§4.3.3", "QoS 2", before.clone(), bytes, Answer(vec![]));
        let bytes = publish(version, 1, "t", 0, &[], "x");
        cases.add("§3.3.1.3", "retain", before, bytes, Answer(vec![]));
    }
    let with = |section: &[u8]| publish(V5, 2, "t", 1, section, "x");
    let bad: [(&'static str, &str, &[u8], u8); 18] = [
        ("[MQTT-3.3.4-6]", "subscription identifier", &[0x0b, 1], 0x82),
        ("§3.3.2.3.8", "subscription identifier 0", &[0x0b, 0], 0x82),
        ("[MQTT-3.3.2-8]", "topic alias 0", &[0x23, 0, 0], 0x94),
        (
            "[MQTT-3.3.2-9]",
            "topic alias above the maximum",
            &[0x23, 0, 17],
            0x94,
        ),
        ("[MQTT-3.3.2-9]", "topic alias 65535", &[0x23, 0xff, 0xff], 0x94),
        ("§3.3.2.3.4", "topic alias twice", &[0x23, 0, 1, 0x23, 0, 1], 0x82),
        ("§3.3.2.3.2", "payload format indicator 2", &[0x01, 2], 0x82),
        (
            "§3.3.2.3.2",
            "payload format indicator twice",
            &[0x01, 0, 0x01, 0],
            0x82,
        ),
        (
            "§3.3.2.3.3",
            "message expiry interval twice",
            &[0x02, 0, 0, 0, 1, 0x02, 0, 0, 0, 1],
            0x82,
        ),
        (
            "§3.3.2.3.9",
            "content type twice",
            &[0x03, 0, 0, 0x03, 0, 0],
            0x82,
        ),
        (
            "§3.3.2.3.5",
            "response topic twice",
            &[0x08, 0, 1, b'r', 0x08, 0, 1, b'r'],
            0x82,
        ),
        (
            "[MQTT-3.3.2-14]",
            "# in the response topic",
            &[0x08, 0, 1, b'#'],
            0x82,
        ),
        (
            "[MQTT-3.3.2-14]",
            "+ in the response topic",
            &[0x08, 0, 3, b'a', b'/', b'+'],
            0x82,
        ),
        (
            "[MQTT-3.3.2-13]",
            "bad UTF-8 in the response topic",
            &[0x08, 0, 1, 0xff],
            0x81,
        ),
        (
            "§3.3.2.3.6",
            "correlation data twice",
            &[0x09, 0, 1, 1, 0x09, 0, 1, 1],
            0x82,
        ),
        (
            "[MQTT-3.3.2-19]",
            "U+0000 in the content type",
            &[0x03, 0, 1, 0],
            0x81,
        ),
        ("§2.2.2.2", "server keep alive", &[0x13, 0, 1], 0x81),
        ("§2.2.2.2", "reason string", &[0x1f, 0, 1, b'r'], 0x81),
    ];
    for (section, what, property, reason) in bad {
        cases.v5(section, what, with(property), Disconnect(reason));
    }
    cases.v5(
        "§3.3.2.3.4",
        "topic alias not defined",
        publish(V5, 2, "", 1, &[0x23, 0, 1], "x"),
        Disconnect(0x82),
    );
    let format = |flags| publish(V5, flags, "t", 7, &[0x01, 1], b"\xff");
    cases.v5(
        "§3.3.2.3.2",
        "payload is no text, QoS 1",
        format(2),
        Answer(vec![0x40, 3, 0, 7, 0x99]),
    );
    cases.v5(
        "§3.3.2.3.2",
        "payload is no text, QoS 0",
        format(0),
        Answer(vec![]),
    );
    let content_type = packet(
        0x32,
        &[
            &string("t"),
            &[0, 7],
            &[0x83, 0x02, 0x03],
            &string("x".repeat(256)),
        ],
    );
    cases.v5(
        "§3.4.2.1",
        "a content type of 256 bytes",
        content_type,
        Answer(vec![0x40, 3, 0, 7, 0x97]),
    );
    let pairs = [0x26, 0, 0, 0, 0].repeat(33);
    let many = packet(0x32, &[&string("t"), &[0, 7], &[0xa5, 0x01], &pairs]);
    cases.v5(
        "§3.4.2.1",
        "33 user properties",
        many,
        Answer(vec![0x40, 3, 0, 7, 0x97]),
    );
    let device = |version| device_connect(version, "password");
    let foreign = |version, flags| publish(version, flags, "other/x", 7, &[], "x");
    cases.add(
        "§3.4.2.1",
        "foreign topic, QoS 1",
        device(V5),
        foreign(V5, 2),
        Answer(vec![0x40, 3, 0, 7, 0x87]),
    );
    cases.add(
        "§4.13",
        "foreign topic, QoS 0",
        device(V5),
        foreign(V5, 0),
        Answer(vec![]),
    );
    cases.add(
        "3.1.1 [MQTT-3.3.5-2]",
        "foreign topic, QoS 1",
        device(V311),
        foreign(V311, 2),
        Silence,
    );
    cases.add(
        "3.1.1 [MQTT-3.3.5-2]",
        "foreign topic, QoS 0",
        device(V311),
        foreign(V311, 0),
        Silence,
    );
    cases.v5(
        "§4.7.2",
        "a topic of the server",
        publish(V5, 2, "$SYS/x", 7, &[], "x"),
        Answer(vec![0x40, 3, 0, 7, 0x87]),
    );
    let flood: Vec<u8> = (1..=65).flat_map(|id| publish_1(V5, id, "x")).collect();
    cases.v5("[MQTT-3.3.4-9]", "65 publishes of 64", flood, Disconnect(0x93));
}

fn subscriptions(cases: &mut Cases) {
    let subscribe = |version, id: u16, section: &[u8], filters: &[&[u8]]| {
        packet(
            0x82,
            &[
                &id.to_be_bytes(),
                &properties(version, section),
                &filters.concat(),
            ],
        )
    };
    let one = |filter: &[u8], options: u8| [string(filter), vec![options]].concat();
    cases.both(
        "[MQTT-3.8.3-2], 3.1.1 [MQTT-3.8.3-3]",
        "SUBSCRIBE for nothing",
        |v| subscribe(v, 1, &[], &[]),
        0x82,
    );
    cases.both(
        "[MQTT-2.2.1-3]",
        "SUBSCRIBE with identifier 0",
        |v| subscribe(v, 0, &[], &[&one(b"t", 0)]),
        0x81,
    );
    cases.both(
        "§3.8.3.1",
        "SUBSCRIBE with QoS 3",
        |v| subscribe(v, 1, &[], &[&one(b"t", 3)]),
        0x81,
    );
    cases.both(
        "[MQTT-3.8.3-5]",
        "reserved subscription options",
        |v| subscribe(v, 1, &[], &[&one(b"t", 0x40)]),
        0x81,
    );
    cases.both(
        "[MQTT-3.8.3-5]",
        "reserved options of the second",
        |v| subscribe(v, 1, &[], &[&one(b"t", 0), &one(b"t", 0x80)]),
        0x81,
    );
    cases.v311(
        "3.1.1 [MQTT-3.8.3-4]",
        "no local in 3.1.1",
        subscribe(V311, 1, &[], &[&one(b"t", 4)]),
        Silence,
    );
    cases.v5(
        "§3.8.3.1",
        "retain handling 3",
        subscribe(V5, 1, &[], &[&one(b"t", 0x30)]),
        Disconnect(0x82),
    );
    cases.v5(
        "[MQTT-3.8.3-4]",
        "no local and shared",
        subscribe(V5, 1, &[], &[&one(b"$share/g/t", 4)]),
        Disconnect(0x82),
    );
    cases.v5(
        "§3.8.2.1.2",
        "subscription identifier 0",
        subscribe(V5, 1, &[0x0b, 0], &[&one(b"t", 0)]),
        Disconnect(0x82),
    );
    cases.v5(
        "§3.8.2.1.2",
        "subscription identifier twice",
        subscribe(V5, 1, &[0x0b, 1, 0x0b, 1], &[&one(b"t", 0)]),
        Disconnect(0x82),
    );
    cases.v5(
        "§2.2.2.2",
        "content type in SUBSCRIBE",
        subscribe(V5, 1, &[0x03, 0, 0], &[&one(b"t", 0)]),
        Disconnect(0x81),
    );
    cases.both(
        "§3.8.3",
        "filter cut short",
        |v| subscribe(v, 1, &[], &[&[0, 5, b't']]),
        0x81,
    );
    cases.both(
        "§3.8.3",
        "no options",
        |v| subscribe(v, 1, &[], &[&string("t")]),
        0x81,
    );
    cases.both(
        "[MQTT-3.8.3-1]",
        "bad UTF-8 in a filter",
        |v| subscribe(v, 1, &[], &[&one(b"\xff", 0)]),
        0x81,
    );
    cases.both(
        "[MQTT-4.7.3-2]",
        "U+0000 in a filter",
        |v| subscribe(v, 1, &[], &[&one(b"a\0", 0)]),
        0x81,
    );
    let granted: [(&'static str, &[u8]); 4] = [
        ("§3.9.3", b"t"),
        ("§4.7.1.2", b"#"),
        ("§4.7.1.3", b"a/+"),
        ("§4.8.2", b"$share/g/t"),
    ];
    for (section, filter) in granted {
        let what = format!("subscription to {:?}", String::from_utf8_lossy(filter));
        let bytes = subscribe(V5, 9, &[], &[&one(filter, 1)]);
        cases.v5(section, &what, bytes, Answer(vec![0x90, 4, 0, 9, 0, 1]));
        let bytes = subscribe(V311, 9, &[], &[&one(filter, 1)]);
        cases.v311("3.1.1 §3.9.3", &what, bytes, Answer(vec![0x90, 3, 0, 9, 1]));
    }
    let malformed: [(&'static str, &[u8]); 4] = [
        ("[MQTT-4.7.3-1]", b""),
        ("[MQTT-4.7.1-1]", b"a#"),
        ("[MQTT-4.7.1-1]", b"#/a"),
        ("[MQTT-4.7.1-2]", b"a+"),
    ];
    for (section, filter) in malformed {
        let what = format!("{:?}", String::from_utf8_lossy(filter));
        let good_first = |v| subscribe(v, 9, &[], &[&one(b"t", 1), &one(filter, 1)]);
        cases.both(section, &format!("subscription to {what}"), good_first, 0x81);
        let unsubscribe = |v| {
            packet(
                0xa2,
                &[&[0, 9], &properties(v, &[]), &string("t"), &string(filter)],
            )
        };
        cases.both(section, &format!("UNSUBSCRIBE from {what}"), unsubscribe, 0x81);
    }
    let unshared: [(&'static str, &[u8]); 5] = [
        ("[MQTT-4.8.2-1]", b"$share"),
        ("[MQTT-4.8.2-1]", b"$share//t"),
        ("[MQTT-4.8.2-2]", b"$share/g"),
        ("[MQTT-4.8.2-2]", b"$share/g/"),
        ("[MQTT-4.8.2-2]", b"$share/G+/t"),
    ];
    for (section, filter) in unshared {
        let what = format!("subscription to {:?}", String::from_utf8_lossy(filter));
        let bytes = subscribe(V5, 9, &[], &[&one(filter, 1)]);
        cases.v5(section, &what, bytes, Disconnect(0x81));
        // 3.1.1 knows no shared subscriptions; only `+` and `#` can be in the wrong place.
        let bytes = subscribe(V311, 9, &[], &[&one(filter, 1)]);
        let expect = if filter.contains(&b'+') {
            Silence
        } else {
            Answer(vec![0x90, 3, 0, 9, 0x80])
        };
        cases.v311("3.1.1 §3.9.3, [MQTT-4.7.1-3]", &what, bytes, expect);
    }
    let identified = subscribe(V5, 9, &[0x0b, 5], &[&one(b"t", 2)]);
    cases.v5(
        "§3.8.2.1.2",
        "with an identifier",
        identified,
        Answer(vec![0x90, 4, 0, 9, 0, 2]),
    );
    let deep = b"a/".repeat(200);
    let several = subscribe(V5, 9, &[], &[&one(b"t", 2), &one(b"#", 0), &one(&deep, 1)]);
    cases.v5(
        "[MQTT-3.8.4-6]",
        "one code each",
        several,
        Answer(vec![0x90, 6, 0, 9, 0, 2, 0, 0x97]),
    );

    let unsubscribe = |version, id: u16, filters: &[&[u8]]| {
        packet(
            0xa2,
            &[&id.to_be_bytes(), &properties(version, &[]), &filters.concat()],
        )
    };
    cases.both(
        "[MQTT-3.10.3-2]",
        "UNSUBSCRIBE for nothing",
        |v| unsubscribe(v, 1, &[]),
        0x82,
    );
    cases.both(
        "[MQTT-2.2.1-3]",
        "UNSUBSCRIBE with identifier 0",
        |v| unsubscribe(v, 0, &[&string("t")]),
        0x81,
    );
    cases.both(
        "§3.10.3",
        "UNSUBSCRIBE cut short",
        |v| unsubscribe(v, 1, &[&[0, 9, b't']]),
        0x81,
    );
    cases.both(
        "[MQTT-3.10.3-1]",
        "bad UTF-8 in UNSUBSCRIBE",
        |v| unsubscribe(v, 1, &[&string(b"\xff")]),
        0x81,
    );
    let two = |version| unsubscribe(version, 9, &[&string("t"), &string("a")]);
    cases.v5(
        "[MQTT-3.11.3-1]",
        "UNSUBSCRIBE",
        two(V5),
        Answer(vec![0xb0, 5, 0, 9, 0, 0x11, 0x11]),
    );
    cases.v311(
        "3.1.1 [MQTT-3.10.4-5]",
        "UNSUBSCRIBE",
        two(V311),
        Answer(vec![0xb0, 2, 0, 9]),
    );
}

fn disconnects(cases: &mut Cases) {
    cases.v5(
        "[MQTT-3.14.4-2]",
        "DISCONNECT is not answered",
        vec![0xe0, 0],
        Silence,
    );
    cases.v311(
        "3.1.1 [MQTT-3.14.4-2]",
        "DISCONNECT is not answered",
        vec![0xe0, 0],
        Silence,
    );
    cases.v311(
        "3.1.1 §3.14",
        "DISCONNECT with a reason",
        vec![0xe0, 1, 0],
        Silence,
    );
    for reason in [0x01, 0x03, 0x10, 0x86, 0x91, 0xff] {
        cases.v5(
            "§3.14.2.1",
            &format!("reason {reason:#x}"),
            vec![0xe0, 1, reason],
            Disconnect(0x81),
        );
    }
    for reason in [
        0x87, 0x89, 0x8b, 0x8d, 0x8e, 0x8f, 0x9a, 0x9b, 0x9c, 0x9d, 0x9e, 0x9f, 0xa0, 0xa1, 0xa2,
    ] {
        cases.v5(
            "§3.14.2.1",
            &format!("a server's reason {reason:#x}"),
            vec![0xe0, 1, reason],
            Disconnect(0x82),
        );
    }
    for reason in [
        0x00, 0x04, 0x80, 0x81, 0x82, 0x83, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99,
    ] {
        cases.v5(
            "§3.14.2.1",
            &format!("a client's reason {reason:#x}"),
            vec![0xe0, 1, reason],
            Silence,
        );
    }
    let with = |section: &[u8]| packet(0xe0, &[&[0], &properties(V5, section)]);
    cases.v5(
        "§3.14.2.2.2",
        "a session kept after all",
        with(&[0x11, 0, 0, 0, 1]),
        Disconnect(0x82),
    );
    cases.v5(
        "§3.14.2.2.2",
        "a session still not kept",
        with(&[0x11, 0, 0, 0, 0]),
        Silence,
    );
    let kept = connect(V5, 2, &[0x11, 0, 0, 0, 9], &[&string("c")]);
    cases.add(
        "§3.14.2.2.2",
        "another expiry interval",
        kept,
        with(&[0x11, 0, 0, 0, 1]),
        Silence,
    );
    cases.v5(
        "§3.14.2.2.5",
        "a server reference",
        with(&[0x1c, 0, 1, b's']),
        Disconnect(0x82),
    );
    cases.v5(
        "§3.14.2.2.3",
        "a reason string twice",
        with(&[0x1f, 0, 0, 0x1f, 0, 0]),
        Disconnect(0x82),
    );
    cases.v5("§2.2.2.2", "a topic alias", with(&[0x23, 0, 1]), Disconnect(0x81));
    cases.v5(
        "§3.14.2.2.1",
        "property length beyond the packet",
        packet(0xe0, &[&[0, 9]]),
        Disconnect(0x81),
    );
}

fn all() -> Vec<Case> {
    let mut cases = Cases::default();
    first_packets(&mut cases);
    connect_flags_and_payload(&mut cases);
    connect_properties(&mut cases);
    order_and_direction(&mut cases);
    publishes(&mut cases);
    subscriptions(&mut cases);
    disconnects(&mut cases);
    cases.0
}

/// What happened, in the terms of the table.
fn outcome(bench: &mut Bench, result: Result<(), SessionEnd>) -> Result<Expect, String> {
    let sent = bench.sent();
    match (result, sent.as_slice()) {
        (Err(_), []) => Ok(Silence),
        (Err(_), [0x20, 3, 0, code, 0]) => Ok(Refusal(V5, *code)),
        (Err(_), [0x20, 2, 0, code]) => Ok(Refusal(V311, *code)),
        (Err(_), [0xe0, 1, reason]) => Ok(Disconnect(*reason)),
        (Ok(()), [0x20, _, 0, 0, ..]) => Ok(Accepted),
        (Ok(()), _) => Ok(Answer(sent)),
        (Err(end), _) => Err(format!("{end} after {sent:02x?}")),
    }
}

#[test]
fn every_statement_holds() {
    let cases = all();
    let mut wrong = Vec::new();
    for case in &cases {
        let mut bench = Bench::new();
        if !case.before.is_empty() {
            bench.give(&case.before).unwrap();
            bench.sent();
        }
        let result = bench.give(&case.bytes);
        let got = outcome(&mut bench, result);
        if got.as_ref() != Ok(&case.expect) {
            let (section, what, expect) = (case.section, &case.what, &case.expect);
            wrong.push(format!(
                "{section} {what}: {expect:?} expected, {got:?} ({result:?})"
            ));
        }
        if let Err(end) = result {
            // An ended session says the same for ever and does nothing.
            assert_eq!(bench.give(&[0xc0, 0]), Err(end));
            assert_eq!(bench.timeout(), Err(end));
            assert_eq!(bench.close(), end);
            assert!(bench.sent().is_empty());
            assert!(!bench.session.wants_bytes());
            assert_eq!(bench.session.poll_timeout(), None);
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {} wrong:\n{}",
        wrong.len(),
        cases.len(),
        wrong.join("\n")
    );
    assert!(cases.len() >= 150, "{} cases", cases.len());
    println!("{} cases", cases.len());
}

#[test]
fn every_case_ends_the_same_byte_by_byte() {
    for case in all() {
        let bytes = [case.before.as_slice(), &case.bytes].concat();
        let (mut whole, mut parts) = (Bench::new(), Bench::new());
        let expected = whole.give(&bytes);
        let got = bytes.iter().try_for_each(|byte| parts.give(&[*byte]));
        assert_eq!(got, expected, "{} {}", case.section, case.what);
        assert_eq!(parts.sent(), whole.sent(), "{} {}", case.section, case.what);
        assert_eq!(
            parts.journal.readings, whole.journal.readings,
            "{} {}",
            case.section, case.what
        );
        assert_eq!(parts.counters, whole.counters, "{} {}", case.section, case.what);
    }
}
