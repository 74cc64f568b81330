//! Extended authentication (MQTT 5.0 §4.12) with a method that asks twice and knows one word.

use std::sync::Arc;

use fieldgate_adapters::{
    authenticate::{Authenticate, Authentication, Credentials, Denial},
    device::Device,
    scram::{Dialog, Turn},
};
use fieldgate_mqtt::session::end::SessionEnd;
use fieldgate_proto::entropy::Entropy;

use crate::{
    bench::{Bench, filters},
    bytes::{V5, connect, packet, string},
};

/// Lets in who answers "what?" with "please".
#[derive(Debug, Default)]
struct Polite {
    has_asked: bool,
}

impl Dialog for Polite {
    fn step(&mut self, data: &[u8]) -> Turn {
        if !std::mem::replace(&mut self.has_asked, true) {
            return Turn::Continue(b"what?".to_vec());
        }
        if data != b"please" {
            return Turn::Denied(Denial::NotAuthorized);
        }
        let device = Device::new("c", filters(&["#"])).unwrap();
        Turn::Accepted {
            device: Arc::new(device),
            data: b"thanks".to_vec(),
        }
    }
}

#[derive(Debug)]
pub(crate) struct Manners;

impl Authenticate for Manners {
    fn authenticate(&mut self, _: &Credentials<'_>) -> Authentication {
        Authentication::Denied(Denial::NotAuthorized)
    }

    fn dialog(&mut self, method: &str, _: &mut dyn Entropy) -> Option<Box<dyn Dialog>> {
        (method == "MANNERS").then(|| Box::<Polite>::default() as Box<dyn Dialog>)
    }
}

fn opening(method: &str) -> Vec<u8> {
    let section = [[0x15].as_slice(), &string(method), &[0x16], &string("hi")].concat();
    connect(V5, 2, &section, &[&string("c")])
}

fn auth(reason: u8, method: &str, data: &str) -> Vec<u8> {
    let section = [[0x15].as_slice(), &string(method), &[0x16], &string(data)].concat();
    packet(0xf0, &[&[reason, u8::try_from(section.len()).unwrap()], &section])
}

fn begun() -> Bench {
    let mut bench = Bench::new().with_manners();
    bench.give(&opening("MANNERS")).unwrap();
    assert_eq!(bench.sent(), auth(0x18, "MANNERS", "what?"));
    bench
}

#[test]
fn a_client_is_let_in_at_the_end_of_the_conversation() {
    let mut bench = begun();
    bench.give(&auth(0x18, "MANNERS", "please")).unwrap();
    let sent = bench.sent();
    assert_eq!((sent[0], sent[3]), (0x20, 0));
    let tail = [[0x15].as_slice(), &string("MANNERS"), &[0x16], &string("thanks")].concat();
    assert!(sent.ends_with(&tail), "{sent:02x?}");
    // And may prove it again, while everything else goes on ([MQTT-4.12.1-2]).
    bench.give(&auth(0x19, "MANNERS", "hi")).unwrap();
    bench.give(&[0xc0, 0]).unwrap();
    bench.give(&auth(0x18, "MANNERS", "please")).unwrap();
    let expected = [
        auth(0x18, "MANNERS", "what?"),
        vec![0xd0, 0],
        auth(0x00, "MANNERS", "thanks"),
    ];
    assert_eq!(bench.sent(), expected.concat());
    bench.give(&auth(0x19, "MANNERS", "hi")).unwrap();
    assert_eq!(
        bench.give(&auth(0x18, "MANNERS", "now!")),
        Err(SessionEnd::NotAuthorized),
        "§4.12.1"
    );
}

#[test]
fn a_conversation_can_fail() {
    let mut bench = begun();
    assert!(bench.give(&auth(0x18, "MANNERS", "now!")).is_err());
    assert_eq!(bench.sent(), [0x20, 3, 0, 0x87, 0], "[MQTT-4.12.0-4]");
    let mut bench = Bench::new().with_manners();
    assert!(bench.give(&opening("SHOUTING")).is_err());
    assert_eq!(bench.sent(), [0x20, 3, 0, 0x8c, 0], "[MQTT-4.12.0-1]");
    for wrong in [
        auth(0x18, "OTHER", "please"),
        auth(0x19, "MANNERS", "please"),
        vec![0xc0, 0],
        opening("MANNERS"),
    ] {
        assert!(
            begun().give(&wrong).is_err(),
            "{wrong:02x?}: [MQTT-4.12.0-3], [MQTT-4.12.0-5]"
        );
    }
    let mut bench = begun();
    bench.advance_millis(10_000);
    assert_eq!(bench.timeout(), Err(SessionEnd::ConnectTimeout));
}
