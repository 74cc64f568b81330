//! One MQTT connection: any bytes in any portions, with the same effect as the whole.

use std::sync::Arc;

use fieldgate_adapters::authenticate::{Authenticate, Authentication, Credentials};
use fieldgate_adapters::device::Device;
use fieldgate_adapters::ingest::{Ingest, Refused};
use fieldgate_adapters::reading::Reading;
use fieldgate_adapters::topic::TopicFilter;
use fieldgate_mqtt::counters::Counters;
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
            ingest: &mut journal,
            authenticator: &mut Anyone,
            entropy: &mut entropy,
            counters: &mut counters,
        };
        if session.handle_bytes(now(1), bytes, &mut context).is_err() {
            return (send, journal.0, true);
        }
    }
    (send, journal.0, false)
}

#[derive(Default)]
struct Journal(Vec<Vec<u8>>);

impl Ingest for Journal {
    fn publish(&mut self, reading: &Reading<'_>) -> Result<u64, Refused> {
        let mut bytes = Vec::new();
        reading
            .encode(&mut bytes)
            .expect("a session gives readings that can be encoded");
        self.0.push(bytes);
        Ok(self.0.len() as u64)
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
