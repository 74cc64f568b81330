//! The PIN: never tried twice, never tried against a warning.

use fieldgate_hsm::{Algorithm, Error, PinState, Pkcs11Signer, Signer, create_pkcs11};

use crate::softhsm::{
    PIN, Preparation, TOKEN, Token, key_uri, module, prepared_scenario, scenario, spy, token_uri,
};

#[test]
fn a_wrong_pin_is_tried_once() {
    scenario("pin::a_wrong_pin_is_tried_once", |token| {
        token.create("identity", Algorithm::P256);
        let wrong = token.write_secret("wrong", "999999");
        let open = |pin| Pkcs11Signer::open(&spy(), &key_uri("identity"), pin).map(|_| ());
        let error = open(&wrong).unwrap_err();
        let Error::PinRefused { cause, .. } = &error else {
            panic!("{error:?}")
        };
        assert_eq!(cause.to_string(), "C_Login returned CKR_PIN_INCORRECT");
        assert!(error.to_string().contains("/wrong"), "{error}");
        assert!(!format!("{error} {error:?}").contains("999999"));
        assert_eq!(token.spied_calls("C_Login"), 1);

        // A restart loop: the token's own flag stops it, the right PIN included, until a person has logged in.
        let right = token.pin();
        for pin in [&wrong, &right] {
            let error = open(pin).unwrap_err();
            assert!(
                matches!(
                    error,
                    Error::PinBlocked {
                        state: PinState::CountLow,
                        ..
                    }
                ),
                "{error:?}"
            );
            assert!(error.hint().contains("pkcs11-tool --login"));
        }
        assert_eq!(token.spied_calls("C_Login"), 1);
        token.pkcs11_tool(&["--list-objects"]);
        open(&right).unwrap();
        assert_eq!(token.spied_calls("C_Login"), 2);
    });
}

#[test]
fn a_pin_that_failed_before_is_not_tried() {
    scenario("pin::a_pin_that_failed_before_is_not_tried", |token| {
        is_not_tried(token, CKF_USER_PIN_COUNT_LOW, PinState::CountLow);
    });
}

#[test]
fn the_final_try_is_left_to_a_person() {
    scenario("pin::the_final_try_is_left_to_a_person", |token| {
        is_not_tried(
            token,
            CKF_USER_PIN_COUNT_LOW | CKF_USER_PIN_FINAL_TRY,
            PinState::FinalTry,
        );
    });
}

#[test]
fn a_locked_pin_is_not_tried() {
    scenario("pin::a_locked_pin_is_not_tried", |token| {
        is_not_tried(
            token,
            CKF_USER_PIN_COUNT_LOW | CKF_USER_PIN_FINAL_TRY | CKF_USER_PIN_LOCKED,
            PinState::Locked,
        );
    });
}

/// Opens a key on a token whose flags warn, and sees that no PIN went to it. The module reads the flags once in a
/// process, so each warning has its own test.
fn is_not_tried(token: &Token, flags: u64, expected: PinState) {
    token.set_token_flags(flags);
    let opened = Pkcs11Signer::open(&spy(), &key_uri("identity"), &token.pin()).unwrap_err();
    let created = create_pkcs11(&spy(), &token_uri(), &token.pin(), "identity", Algorithm::P256).unwrap_err();
    for error in [opened, created] {
        let Error::PinBlocked { state, .. } = error else {
            panic!("{error:?}")
        };
        assert_eq!(state, expected);
    }
    assert_eq!(token.spied_calls("C_Login"), 0);
    assert!(
        token.spied_calls("C_OpenSession") > 0,
        "the calls are written down"
    );
}

#[test]
fn a_token_without_a_pin_is_refused() {
    let preparation = Preparation {
        without_user_pin: true,
        ..Preparation::default()
    };
    prepared_scenario("pin::a_token_without_a_pin_is_refused", preparation, |token| {
        let error = Pkcs11Signer::open(&module(), &token_uri(), &token.pin()).unwrap_err();
        assert!(matches!(error, Error::PinUnset { .. }), "{error:?}");
    });
}

/// The PIN is changed while the node runs: the ladder tries the old one once and never again.
#[test]
fn a_pin_that_changes_while_open_is_tried_once() {
    scenario("pin::a_pin_that_changes_while_open_is_tried_once", |token| {
        token.pkcs11_tool(&[
            "--keypairgen",
            "--key-type",
            "EC:prime256v1",
            "--label",
            "identity",
        ]);
        let mut signer = Pkcs11Signer::open(&spy(), &key_uri("identity"), &token.pin()).unwrap();
        let softhsm = module();
        let change = [
            "--module",
            softhsm.to_str().unwrap(),
            "--token-label",
            TOKEN,
            "--login",
            "--pin",
            PIN,
            "--change-pin",
            "--new-pin",
            "112233",
        ];
        token.tool("pkcs11-tool", &change);
        signer.sign(b"the old login goes on").unwrap();
        token.unplug();
        let error = signer.sign(b"message").unwrap_err();
        assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
        token.plug_in();
        let logins = token.spied_calls("C_Login");
        for _ in 0..3 {
            let error = signer.sign(b"message").unwrap_err();
            assert!(matches!(error, Error::PinRefused { .. }), "{error:?}");
            assert_eq!(error.retry_after(), None);
        }
        assert_eq!(token.spied_calls("C_Login"), logins + 1);
    });
}

#[test]
fn a_pin_out_of_length_is_refused_and_not_repeated() {
    scenario("pin::a_pin_out_of_length_is_refused_and_not_repeated", |token| {
        token.create("identity", Algorithm::P256);
        let short = token.write_secret("short", "1");
        let error = Pkcs11Signer::open(&spy(), &key_uri("identity"), &short).unwrap_err();
        assert!(matches!(error, Error::PinRefused { .. }), "{error:?}");
        assert_eq!(token.spied_calls("C_Login"), 1);
    });
}

pub(crate) const CKF_USER_PIN_COUNT_LOW: u64 = 0x0001_0000;
pub(crate) const CKF_USER_PIN_FINAL_TRY: u64 = 0x0002_0000;
const CKF_USER_PIN_LOCKED: u64 = 0x0004_0000;
