use super::*;
use crate::error::PinState;
use crate::pkcs11::probe::Library;

fn report() -> ProbeReport {
    let token = TokenSummary {
        uri: "pkcs11:token=gate%7Cway;serial=4711;model=M;manufacturer=Maker"
            .parse()
            .expect("a good URI"),
        is_initialized: true,
        is_write_protected: false,
        needs_login: true,
        has_user_pin: true,
        has_pin_pad: false,
        pin_state: Some(PinState::CountLow),
        mechanisms: vec!["CKM_ECDSA".into(), "CKM_AES_GCM".into()],
    };
    let probe = Probe {
        library: Some(Library {
            manufacturer: "Maker".into(),
            description: "Module".into(),
            version: (2, 6),
            cryptoki_version: (2, 40),
        }),
        slots: vec![
            SlotSummary {
                slot_id: 17,
                description: "reader of 4711".into(),
                manufacturer: "Maker".into(),
                token: Some(token),
                problem: None,
            },
            SlotSummary {
                slot_id: 18,
                description: String::new(),
                manufacturer: String::new(),
                token: None,
                problem: Some(CallError {
                    function: "C_GetTokenInfo".into(),
                    code: "CKR_DEVICE_ERROR".into(),
                }),
            },
        ],
    };
    let row = |what, outcome| TrialRow { what, outcome };
    let trials = TokenTrials {
        token: "pkcs11:token=gate%7Cway;serial=4711".parse().expect("a good URI"),
        label: "fieldgate-probe-0123456789abcdef".into(),
        rows: vec![
            row(
                "first",
                TrialOutcome::Works {
                    detail: String::new(),
                },
            ),
            row(
                "second",
                TrialOutcome::NotOffered {
                    mechanism: "CKM_EDDSA",
                },
            ),
            row(
                "third",
                TrialOutcome::Wrong {
                    problem: "a `b`".into(),
                },
            ),
        ],
        signing: SignLatency::of(vec![Duration::from_micros(3_320); 20]),
        left_behind: 1,
        left_earlier: 0,
    };
    ProbeReport {
        probe,
        trials: Some(trials),
    }
}

#[test]
fn a_report_is_a_table_without_serial_numbers() {
    let expected = "### PKCS#11 module\n\n| | |\n|---|---|\n| library | Module 2.6 |\n| manufacturer | Maker |\n\
        | PKCS#11 | 2.40 |\n\n### Slot 0x11\n\n| | |\n|---|---|\n| description | reader of … |\n| manufacturer | Maker |\n\
        | token | gate\\|way |\n| token manufacturer | Maker |\n| token model | M |\n\
        | flags | initialised, login needed, user PIN set |\n| user PIN | was given wrongly since the last login |\n\
        | mechanisms | CKM_ECDSA, CKM_AES_GCM |\n\n### Slot 0x12\n\n| | |\n|---|---|\n| description |  |\n\
        | manufacturer |  |\n| problem | C_GetTokenInfo returned CKR_DEVICE_ERROR |\n| token | none |\n\n\
        ### Tried out on token gate\\|way\n\n| operation | result |\n|---|---|\n| first | yes |\n\
        | second | no: CKM_EDDSA is not offered |\n| third | **wrong**: a \\`b\\` |\n\
        | ECDSA P-256 signature, one session | median 3320 µs, 99 % within 3320 µs (n = 20) |\n\
        | objects of this trial | 1 could not be removed: pkcs11-tool --delete-object --label fieldgate-probe-0123456789abcdef |\n\n\
        Serial numbers are left out.\n";
    assert_eq!(report().to_markdown(Serials::LeftOut), expected);
}

#[test]
fn serial_numbers_are_shown_when_asked_for() {
    let text = report().to_markdown(Serials::Shown);
    assert!(
        text.contains("| token serial | 4711 |\n") && text.contains("| description | reader of 4711 |\n"),
        "{text}"
    );
    assert!(!text.contains("left out"), "{text}");
}

#[test]
fn times_are_ranked() {
    assert_eq!(SignLatency::of(Vec::new()), None);
    let times = |count: u64| (1..=count).rev().map(Duration::from_millis).collect();
    let of = |count| {
        let latency = SignLatency::of(times(count)).expect("there are some");
        (latency.count, latency.median.as_millis(), latency.p99.as_millis())
    };
    assert_eq!(of(1), (1, 1, 1));
    assert_eq!(of(20), (20, 10, 20));
    assert_eq!(of(100), (100, 50, 99));
    assert_eq!(of(1_000), (1_000, 500, 990));
}
