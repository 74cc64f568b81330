//! A relay that is sent into maintenance: its members go over the other one first, and nothing breaks.

use std::{net::TcpStream, sync::mpsc, thread};

use crate::{
    failover::{Twins, state},
    harness::{
        broker::publish,
        site::{DEVICE, Site},
        wait::PATIENCE,
    },
    portals::{read_all, write_all},
};

#[test]
fn streams_and_readings_go_on_while_a_relay_is_drained_and_stops() {
    const BYTES: usize = 30_000_000;
    let mut twins = Twins::started();
    twins.publish(0..3);
    twins.delivers(3);
    twins.wait_paired(&twins.site.gateway);
    let mut published = 3;
    // By the command, and then by the signal that systemd sends.
    for by_command in [true, false] {
        let active = twins.wait_paired(&twins.site.collector);
        let mut stream = TcpStream::connect(twins.inlet).expect("the inlet listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("it is a socket");
        stream.set_write_timeout(Some(PATIENCE)).expect("it is a socket");
        let writer = write_all(&stream, BYTES);
        let (begun, begins) = mpsc::channel();
        let reader = thread::spawn(move || {
            read_all(&mut stream, |place| {
                // Nobody listens once it was told.
                let _ = begun.send(place);
            })
        });
        begins.recv_timeout(PATIENCE).expect("the stream flows");
        if by_command {
            let drained = twins
                .relay(active)
                .run(&["relay", "drain", "--wait", "170", "--stop"])
                .expect(0);
            assert!(
                drained.out.ends_with("the relay is empty, and has stopped\n"),
                "{}",
                drained.out
            );
            let status = twins.relay(active).process().wait();
            assert!(status.success(), "{status}");
        } else {
            twins.relay(active).stop();
        }
        writer.join().expect("everything was taken");
        assert_eq!(reader.join().expect("every byte is right"), BYTES);
        twins.publish(published..published + 3);
        published += 3;
        twins.delivers(published);
        for node in [&twins.site.gateway, &twins.site.collector] {
            let status = node.status();
            let paths = &status["network"]["paths"][0]["paths"];
            let (left, taken) = (&paths[active], &paths[1 - active]);
            assert_eq!((state(left), state(taken)), ("down", "active"), "{paths:#}");
        }
        // Once it is back it is the reserve.
        twins.relay(active).start();
        for node in [&twins.site.gateway, &twins.site.collector] {
            twins.wait_paired(node);
        }
    }
    let status = twins.site.collector.wait_healthy();
    let session = &status["portals"]["sessions"][0];
    assert_eq!(session["lost"], 0, "{session:#}");
    twins.delivers(published);
}

#[test]
fn who_has_no_other_way_stays_is_named_and_goes_on() {
    let mut site = Site::new().without_broker();
    // Longer than any patience: it ends at once only because nobody could move.
    site.relay.edit("[relay]\n", "[relay]\ndrain_secs = 3600\n");
    site.start();
    let topic = format!("{DEVICE}/count");
    let say = |payload: &str| {
        let mut arguments = vec!["-q", "1", "-t", &topic, "-m", payload];
        arguments.extend(site.login());
        publish(site.mqtt, &arguments).expect(0);
    };
    say("1");
    site.wait_readings(1);
    site.wait_healthy();
    let drained = site.relay.run(&["relay", "drain", "--wait", "3600"]).expect(1);
    for name in ["gateway-1", "collector-1"] {
        assert!(
            drained.out.contains(&format!("  {name} from 127.0.0.1")),
            "{}",
            drained.out
        );
    }
    assert!(drained.out.contains("has no other way"), "{}", drained.out);
    let status = site.relay.status();
    assert_eq!(status["health"], "degraded");
    assert_eq!(status["network"]["drain"]["left"], 2);
    assert!(site.relay.samples().sum("fieldgate_relay_drain_left") > 1.5);
    // The channel there is goes on.
    say("2");
    site.wait_readings(2);
    site.relay.run(&["relay", "undrain"]).expect(0);
    site.wait_healthy();
    say("3");
    site.wait_readings(3);
    site.gateway.run(&["relay", "drain"]).expect(1);
    site.relay.stop();
}
