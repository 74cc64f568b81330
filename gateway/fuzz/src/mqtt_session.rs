//! One MQTT connection: any bytes in any portions, with the same effect as the whole.

use std::sync::Arc;

use fieldgate_adapters::authenticate::{Authenticate, Authentication, Credentials};
use fieldgate_adapters::device::Device;
use fieldgate_adapters::ingest::Refused;
use fieldgate_adapters::topic::TopicFilter;
use fieldgate_mqtt::counters::Counters;
use fieldgate_mqtt::exchange::{Answer, Attached, Exchange, Publication, Request};
use fieldgate_mqtt::session::{Context, Session};
use fieldgate_mqtt::settings::Settings;

use crate::world::{Repeatable, now};

/// Gives the input to a session, once whole and once in portions of the length its first byte gives.
pub fn run(data: &[u8]) {
    let Some((&portion, stream)) = data.split_first() else {
        return;
    };
    let whole = talk(stream, stream.len().max(1));
    let in_portions = talk(stream, usize::from(portion).max(1));
    assert_eq!(whole, in_portions);
}

/// Returns what the session said, the readings it gave, and whether it ended.
fn talk(stream: &[u8], portion: usize) -> (Vec<u8>, Vec<Vec<u8>>, bool) {
    let mut session = Session::new(Arc::new(Settings::default()), now(0).instant);
    let (mut send, mut journal, mut counters) = (Vec::new(), Journal::default(), Counters::default());
    let mut entropy = Repeatable::new(1);
    for bytes in stream.chunks(portion) {
        let mut context = Context {
            send: &mut send,
            exchange: &mut journal,
            authenticator: &mut Anyone,
            entropy: &mut entropy,
            counters: &mut counters,
        };
        let mut result = session.handle_bytes(now(1), bytes, &mut context);
        while result.is_ok() && std::mem::take(&mut journal.attaches) {
            let mut context = Context {
                send: &mut send,
                exchange: &mut journal,
                authenticator: &mut Anyone,
                entropy: &mut entropy,
                counters: &mut counters,
            };
            let answer = Answer::Attached(Box::<Attached>::default());
            result = session.handle_answer(now(1), answer, &mut context);
        }
        if result.is_err() {
            return (send, journal.readings, true);
        }
    }
    (send, journal.readings, false)
}

/// Takes everything, and knows no session.
#[derive(Default)]
struct Journal {
    readings: Vec<Vec<u8>>,
    attaches: bool,
}

impl Exchange for Journal {
    fn publish(&mut self, publication: &Publication<'_>) -> Result<u64, Refused> {
        let mut bytes = Vec::new();
        publication
            .reading
            .encode(&mut bytes)
            .expect("a session gives readings that can be encoded");
        self.readings.push(bytes);
        Ok(self.readings.len() as u64)
    }

    fn request(&mut self, request: Request) {
        self.attaches |= matches!(request, Request::Attach(_));
    }
}

struct Anyone;

impl Authenticate for Anyone {
    fn authenticate(&mut self, _: &Credentials<'_>) -> Authentication {
        let everything = TopicFilter::new("#").expect("a filter for everything");
        let device = Device::new("fuzz", Arc::from([everything])).expect("a device name");
        Authentication::Accepted(Arc::new(device))
    }
}
