use proptest::prelude::*;

use super::*;

fn acceptor() -> Acceptor {
    let key = |name: &str, byte: u8, len: usize| DeviceKey {
        identity: name.to_owned(),
        key: Zeroizing::new(vec![byte; len]),
        device: Arc::new(Device::new(name, [].into()).unwrap()),
    };
    let keys = vec![key("pump-7", 7, 32), key("press-2", 2, 32)];
    Acceptor::new(keys).map_err(StartError::into_parts).unwrap()
}

/// A device: OpenSSL's own client.
fn client(version: SslVersion, ciphers: &str, identity: &str, key: u8) -> SslStream<Memory> {
    let mut builder = SslContextBuilder::new(SslMethod::tls_client()).unwrap();
    builder.set_min_proto_version(Some(version)).unwrap();
    builder.set_max_proto_version(Some(version)).unwrap();
    builder.set_cipher_list(ciphers).unwrap();
    let identity = format!("{identity}\0");
    builder.set_psk_client_callback(move |_, _, name, place| {
        name[..identity.len()].copy_from_slice(identity.as_bytes());
        place[..32].fill(key);
        Ok(32)
    });
    let memory = Memory {
        incoming: Vec::new(),
        taken: 0,
        outgoing: Vec::new(),
    };
    SslStream::new(Ssl::new(&builder.build()).unwrap(), memory).unwrap()
}

/// What became of a handshake.
#[derive(Debug)]
struct Outcome {
    device: Option<String>,
    received: Vec<u8>,
    error: Option<String>,
    /// What the device was sent, flight by flight.
    flights: Vec<Vec<u8>>,
}

/// Lets both sides talk until neither has anything to say; the client sends `hello` when it is through, in portions of some size.
fn talk(server: &mut Psk, client: &mut SslStream<Memory>, hello: &[u8], portion: usize) -> Outcome {
    let mut outcome = Outcome {
        device: None,
        received: Vec::new(),
        error: None,
        flights: Vec::new(),
    };
    let mut is_connected = false;
    for _ in 0..10 {
        if !is_connected && client.connect().is_ok() {
            is_connected = true;
            let sent = client.ssl_write(hello).unwrap();
            assert_eq!(sent, hello.len());
        }
        let bytes = std::mem::take(&mut client.get_mut().outgoing);
        if bytes.is_empty() {
            break;
        }
        let mut flight = Vec::new();
        for piece in bytes.chunks(portion) {
            let (received, device) = (&mut outcome.received, &mut outcome.device);
            let result = server.receive(piece, &mut flight, &mut |plain, known| {
                received.extend_from_slice(plain);
                *device = known.map(|known| known.name().to_owned());
            });
            if let Err(error) = result {
                outcome.error = Some(error.to_string());
                break;
            }
        }
        client.get_mut().receive(&flight);
        outcome.flights.push(flight);
        if outcome.error.is_some() {
            break;
        }
    }
    outcome
}

#[test]
fn devices_are_known_by_their_keys_in_every_cipher() {
    let acceptor = acceptor();
    let mut cases: Vec<(SslVersion, &str)> = CIPHERS
        .split(':')
        .map(|cipher| (SslVersion::TLS1_2, cipher))
        .collect();
    assert_eq!(cases.len(), 10);
    cases.push((SslVersion::TLS1_3, "DEFAULT"));
    for (version, cipher) in cases {
        for (portion, (identity, key)) in [(1, ("pump-7", 7)), (usize::MAX, ("press-2", 2))] {
            let mut server = acceptor.open().unwrap();
            // Ciphers with a short tag are of a level that Debian's clients do not offer by themselves.
            let mut client = client(version, &format!("{cipher}:@SECLEVEL=0"), identity, key);
            let outcome = talk(&mut server, &mut client, b"hello", portion);
            assert_eq!(outcome.error, None, "{cipher}");
            assert_eq!(outcome.received, b"hello", "{cipher}");
            assert_eq!(outcome.device.as_deref(), Some(identity), "{cipher}");
            let mut out = Vec::new();
            let long = vec![5; 100_000];
            server.send(&long, &mut out);
            client.get_mut().receive(&out);
            let mut back = vec![0; 200_000];
            let mut have = 0;
            while let Ok(count @ 1..) = client.ssl_read(&mut back[have..]) {
                have += count;
            }
            assert_eq!(back[..have], long, "{cipher}");
            out.clear();
            server.close(&mut out);
            client.get_mut().receive(&out);
            assert_eq!(
                client.ssl_read(&mut back).unwrap_err().code(),
                ErrorCode::ZERO_RETURN
            );
        }
    }
}

#[test]
fn a_wrong_key_and_an_unknown_identity_look_the_same() {
    let acceptor = acceptor();
    for (version, cipher) in [
        (SslVersion::TLS1_2, "ECDHE-PSK-CHACHA20-POLY1305"),
        (SslVersion::TLS1_2, "PSK-AES128-GCM-SHA256"),
        (SslVersion::TLS1_3, "DEFAULT"),
    ] {
        let [wrong, unknown] = [("pump-7", 9), ("pump-8", 9)].map(|(identity, key)| {
            let mut server = acceptor.open().unwrap();
            let outcome = talk(
                &mut server,
                &mut client(version, cipher, identity, key),
                b"never",
                usize::MAX,
            );
            assert!(
                outcome.error.is_some() && outcome.received.is_empty(),
                "{outcome:?}"
            );
            assert!(server.device().is_none());
            outcome
        });
        assert_eq!(wrong.error, unknown.error);
        let lengths = |outcome: &Outcome| -> Vec<usize> { outcome.flights.iter().map(Vec::len).collect() };
        assert_eq!(lengths(&wrong), lengths(&unknown), "{cipher}");
        // The last flight is an alert, and the same one where it is not encrypted.
        let alert = |outcome: &Outcome| outcome.flights.last().unwrap().clone();
        assert_eq!(alert(&wrong), alert(&unknown), "{cipher}");
        assert_eq!(
            alert(&wrong).first(),
            Some(&21),
            "{cipher}: an alert in the clear"
        );
    }
}

#[test]
fn nobody_gets_in_without_a_key() {
    let acceptor = acceptor();
    for version in [SslVersion::TLS1_2, SslVersion::TLS1_3] {
        let mut builder = SslContextBuilder::new(SslMethod::tls_client()).unwrap();
        builder.set_min_proto_version(Some(version)).unwrap();
        builder.set_max_proto_version(Some(version)).unwrap();
        builder.set_cipher_list("ALL:eNULL:aNULL:@SECLEVEL=0").unwrap();
        let memory = Memory {
            incoming: Vec::new(),
            taken: 0,
            outgoing: Vec::new(),
        };
        let mut client = SslStream::new(Ssl::new(&builder.build()).unwrap(), memory).unwrap();
        let mut server = acceptor.open().unwrap();
        let outcome = talk(&mut server, &mut client, b"never", usize::MAX);
        assert!(
            outcome.error.is_some() && outcome.received.is_empty(),
            "{outcome:?}"
        );
    }
}

#[test]
fn older_versions_and_other_protocols_are_refused() {
    let acceptor = acceptor();
    let old = SslVersion::TLS1_1;
    let mut client = client(old, "PSK-AES128-CBC-SHA:@SECLEVEL=0", "pump-7", 7);
    let outcome = talk(&mut acceptor.open().unwrap(), &mut client, b"never", usize::MAX);
    assert!(
        outcome.error.is_some() && outcome.received.is_empty(),
        "{outcome:?}"
    );
    for garbage in [
        &b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x00\x00\x00"[..],
        b"GET / HTTP/1.1\r\n\r\n",
        &[0xff; 64],
    ] {
        let mut server = acceptor.open().unwrap();
        let result = server.receive(garbage, &mut Vec::new(), &mut |_, _| panic!("no plaintext"));
        assert!(matches!(result, Err(PskError::Library(_))), "{result:?}");
    }
}

proptest! {
    #[test]
    fn a_client_that_turns_to_garbage_does_no_harm(
        at in 0_usize..600,
        garbage in prop::collection::vec(any::<u8>(), 1..400),
    ) {
        let mut server = acceptor().open().unwrap();
        let mut client = client(SslVersion::TLS1_3, "DEFAULT", "pump-7", 7);
        let _ = client.connect();
        let mut bytes = std::mem::take(&mut client.get_mut().outgoing);
        let at = at.min(bytes.len());
        bytes.truncate(at);
        bytes.extend_from_slice(&garbage);
        let mut got = 0;
        let _ = server.receive(&bytes, &mut Vec::new(), &mut |plain, _| got += plain.len());
        prop_assert_eq!(got, 0);
        prop_assert!(server.device().is_none());
    }
}
