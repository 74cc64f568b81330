//! How often the token signs: at starts, and never because somebody connects.

use crate::harness::{
    broker::publish,
    guarded::{self, Guard, give_token},
    site::{DEVICE, Site},
};

#[test]
fn the_token_signs_at_starts_and_never_for_a_handshake() {
    let (mut site, spy) = guarded::site(|node| {
        give_token(node, "271828");
        Guard::spy(node)
    });
    site.collector.start();
    site.relay.start();
    let mut readings = 0;
    for start in 0..STARTS {
        let before = spy.signatures();
        site.gateway.start();
        site.gateway.wait_healthy();
        assert_eq!(spy.signatures() - before, SIGNATURES_PER_START, "start {start}");
        let handshakes = |site: &Site| site.gateway.samples().sum("fieldgate_handshakes_total");
        let first = handshakes(&site);
        for round in 0..RECONNECTS {
            // One loses the channel with the relay and the one through it, the other the one through it.
            let node = if round % 2 == 0 {
                &mut site.relay
            } else {
                &mut site.collector
            };
            node.kill();
            node.start();
            readings += 1;
            deliver(&site, readings);
        }
        let more = handshakes(&site) - first;
        assert!(more >= f64::from(RECONNECTS), "{more} handshakes");
        assert_eq!(
            spy.signatures() - before,
            SIGNATURES_PER_START,
            "after {more} handshakes"
        );
        let status = site.gateway.wait_healthy();
        assert_eq!(status["identity"]["key"], "token");
        site.gateway.stop();
        assert_eq!(spy.signatures() - before, SIGNATURES_PER_START, "at the end");
    }
}

/// Publishes a reading and waits until it has arrived.
fn deliver(site: &Site, count: usize) {
    let topic = format!("{DEVICE}/temperature");
    let mut arguments = vec!["-V", "5", "-q", "1", "-t", &topic, "-m", "21.5"];
    arguments.extend(site.login());
    publish(site.mqtt, &arguments).expect(0);
    site.wait_readings(count);
}

const STARTS: usize = 2;
const RECONNECTS: u32 = 6;
/// One tries the key when it is opened, one attests the channel key, one the key that seals readings.
const SIGNATURES_PER_START: usize = 3;
