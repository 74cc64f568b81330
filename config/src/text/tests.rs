use proptest::prelude::*;

use super::*;
use crate::shape::Exposure;

const SALT: &str = "g+oJb6/46ZcmU1L3bniJHQ";
const HASH: &str = "VgUe+H4v/tDq1QXIalRT8pkxxaSa2q85wg1z0ifzZG0";

fn reason<T: std::fmt::Debug>(shape: &Text<T>, text: &str) -> String {
    match (shape.parse)(text) {
        Ok(value) => format!("taken: {value:?}"),
        Err(refusal) => refusal.reason,
    }
}

#[track_caller]
fn assert_taken<T: std::fmt::Debug>(shape: &Text<T>, texts: &[&str]) {
    for text in texts {
        let taken = (shape.parse)(text);
        assert!(taken.is_ok(), "{text:?}: {taken:?}");
    }
}

#[track_caller]
fn assert_refused<T: std::fmt::Debug>(shape: &Text<T>, texts: &[&str]) {
    for text in texts {
        assert!((shape.parse)(text).is_err(), "{text:?} was taken");
    }
}

#[test]
fn names_are_those_of_dns_labels() {
    let longest = "a".repeat(63);
    assert_taken(&NAME, &["a", "hall-3", "3", &longest]);
    assert_refused(&NAME, &["", "-a", "a-", "A", "a_b", "a.b", "ä", &"a".repeat(64)]);
}

#[test]
fn device_names_hold_no_topic_characters() {
    assert_taken(
        &DEVICE_NAME,
        &["Pump-7", "urn:dev:mac:00-24", "a.b_c", &"a".repeat(64)],
    );
    assert_refused(&DEVICE_NAME, &["", "a/b", "a+", "#", "a b", "ä", &"a".repeat(65)]);
}

#[test]
fn names_at_relays_are_any_text_without_spaces_and_wildcards() {
    assert_taken(&RELAY_NAME, &["collector-1", "würzburg/3", &"a".repeat(128)]);
    assert_refused(&RELAY_NAME, &["", "a b", "a\n", &"a".repeat(129)]);
    assert_eq!(reason(&RELAY_NAME, "collector-*"), "has a wildcard");
}

#[test]
fn names_of_members_may_end_in_one_wildcard() {
    assert_taken(&NAME_PATTERN, &["collector-1", "plant-*", "*", &"a".repeat(128)]);
    assert_refused(&NAME_PATTERN, &["", "a*b", "**", "a *", "a\n", &"a".repeat(129)]);
}

#[test]
fn identifiers_are_whole_and_in_lower_case() {
    let good = Identifier::from_bytes([7; 32]).to_string();
    assert_taken(&IDENTIFIER, &[&good]);
    assert_eq!(
        reason(&IDENTIFIER, &good.to_uppercase()),
        "does not start with `fg1`"
    );
    assert_eq!(
        reason(&IDENTIFIER, &good.replace("fg1", "bc1")),
        "does not start with `fg1`"
    );
    assert_eq!(reason(&IDENTIFIER, &good[..60]), "has a typing error");
    assert_eq!(
        reason(&IDENTIFIER, &format!("fg1{}", good[3..].to_uppercase())),
        "has a typing error"
    );
    assert_eq!(reason(&IDENTIFIER, "fg1…"), "has a typing error");
}

#[test]
fn listeners_are_numeric_addresses() {
    assert_taken(&LISTEN, &["0.0.0.0:1883", "[::]:1883", "127.0.0.1:0"]);
    assert_refused(
        &LISTEN,
        &[
            "",
            ":1883",
            "1883",
            "localhost:1883",
            "0.0.0.0",
            "0.0.0.0:65536",
            "::1:80",
        ],
    );
    assert_taken(&LISTEN_LOOPBACK, &["127.0.0.1:9464", "[::1]:9464", "127.1.2.3:1"]);
    assert_eq!(
        reason(&LISTEN_LOOPBACK, "0.0.0.0:9464"),
        "is not a loopback address"
    );
    assert_eq!(
        reason(&LISTEN_LOOPBACK, "10.0.0.1:9464"),
        "is not a loopback address"
    );
}

#[test]
fn topic_filters_follow_the_standard() {
    // The examples of MQTT 5.0 §4.7.1.2 and §4.7.1.3, valid and not.
    let valid = [
        "sport/tennis/player1/#",
        "sport/#",
        "#",
        "sport/tennis/#",
        "+",
        "+/tennis/#",
        "sport/+/player1",
        "/",
        "/finance",
        "+/+",
        "$SYS/#",
    ];
    assert_taken(&TOPIC_FILTER, &valid);
    for (text, why) in [
        ("", "is empty"),
        ("sport/tennis#", "has a # that is not the last level"),
        ("sport/tennis/#/ranking", "has a # that is not the last level"),
        ("sport+", "has a + that is not a whole level"),
        ("a\0b", "has a control character"),
        (
            "$share/group/a",
            "is a shared subscription, to which nobody publishes",
        ),
    ] {
        assert_eq!(reason(&TOPIC_FILTER, text), why, "{text:?}");
    }
    assert_refused(&TOPIC_FILTER, &[&"a".repeat(1025)]);
}

#[test]
fn password_hashes_have_one_form_and_are_never_shown() {
    assert_taken(
        &PASSWORD_HASH,
        &[
            &format!("pbkdf2-sha256$1${SALT}${HASH}"),
            &format!("pbkdf2-sha256$1000000${SALT}${HASH}"),
        ],
    );
    for (text, why) in [
        ("hunter2".to_owned(), "is not a password hash"),
        (
            format!("pbkdf2-sha256$1${SALT}${HASH}$"),
            "is not a password hash",
        ),
        (
            format!("argon2id$1${SALT}${HASH}"),
            "is hashed in a way fieldgate does not know",
        ),
        (
            format!("pbkdf2-sha256$0${SALT}${HASH}"),
            "has an iteration count outside 1..=1000000",
        ),
        (
            format!("pbkdf2-sha256$1000001${SALT}${HASH}"),
            "has an iteration count outside 1..=1000000",
        ),
        (
            format!("pbkdf2-sha256$+1${SALT}${HASH}"),
            "has an iteration count outside 1..=1000000",
        ),
        (
            format!("pbkdf2-sha256$1$c2FsdA${HASH}"),
            "has a salt that is not 8 to 64 bytes of Base64",
        ),
        (
            format!("pbkdf2-sha256$1${SALT}==${HASH}"),
            "has a salt that is not 8 to 64 bytes of Base64",
        ),
        (
            format!("pbkdf2-sha256$1${SALT}${SALT}"),
            "has a hash that is not 32 bytes of Base64",
        ),
    ] {
        let refusal = (PASSWORD_HASH.parse)(&text).expect_err(&text);
        assert_eq!(
            (refusal.reason.as_str(), refusal.exposure),
            (why, Exposure::Secret),
            "{text}"
        );
    }
    let taken = (PASSWORD_HASH.parse)(&format!("pbkdf2-sha256$1${SALT}${HASH}")).expect("valid");
    assert_eq!(format!("{taken:?}"), "PasswordHash(…)");
}

#[test]
fn secrets_are_named_as_systemd_and_shells_name_them() {
    assert_taken(&CREDENTIAL, &["fieldgate-pin", "a.b", &"a".repeat(255)]);
    assert_refused(
        &CREDENTIAL,
        &["", ".", "..", "a/b", "a:b", "a\n", &"a".repeat(256)],
    );
    assert_taken(&VARIABLE, &["FIELDGATE_PIN", "_a1"]);
    assert_refused(&VARIABLE, &["", "1A", "$A", "A-B", "A B", "Ä"]);
}

#[test]
fn pkcs11_uris_name_a_key_and_nothing_else() {
    // RFC 7512 §3, those that name a private key or leave the class open.
    let valid = [
        "pkcs11:object=my-pubkey",
        "pkcs11:token=The%20Software%20PKCS%2311%20Softtoken;manufacturer=Snake%20Oil,%20Inc.;model=1.0;object=my-certificate",
        "pkcs11:token=Software%20PKCS%2311%20softtoken;manufacturer=Snake%20Oil,%20Inc.;serial=;object=my-key;type=private",
        "pkcs11:slot-id=327;id=%69%95%3E%5C%F4%BD%EC%91",
        "pkcs11:token=a;object=b?",
    ];
    assert_taken(&PKCS11_URI, &valid);
    for (text, why) in [
        ("token=a;object=b", "does not start with `pkcs11:`"),
        ("pkcs11:", "does not say which key"),
        ("pkcs11:token=a", "does not say which key"),
        ("pkcs11:object=a;object=b", "has the attribute object twice"),
        ("pkcs11:objekt=a", "has the unknown attribute \"objekt\""),
        (
            "pkcs11:object",
            "has the part \"object\", which is not name=value",
        ),
        ("pkcs11:object=a;", "has the part \"\", which is not name=value"),
        (
            "pkcs11:object=a b",
            "has a character in object that must be percent-encoded",
        ),
        (
            "pkcs11:object=a%2",
            "has a % in object without two hexadecimal digits after it",
        ),
        ("pkcs11:object=a;type=cert", "does not mean a private key"),
        ("pkcs11:object=a;slot-id=x", "has a slot-id that is not a number"),
        ("pkcs11:object=a;slot-id=+1", "has a slot-id that is not a number"),
        (
            "pkcs11:object=a;library-version=2.x",
            "has a library-version that is not a version",
        ),
        ("pkcs11:object=a%a0", "has a value of object that is not UTF-8"),
        (
            "pkcs11:object=a?pin-source=file:/x",
            "has the query attribute \"pin-source\"",
        ),
        (
            "pkcs11:object=a?module-path=/x.so",
            "has the query attribute \"module-path\"",
        ),
        ("pkcs11:object=a?pin-value=1", "holds the PIN itself (pin-value)"),
        ("pkcs11:nonsense?PIN-VALUE=1", "holds the PIN itself (pin-value)"),
    ] {
        assert_eq!(reason(&PKCS11_URI, text), why, "{text:?}");
    }
    let with_pin = (PKCS11_URI.parse)("pkcs11:object=a?pin-value=1").expect_err("a PIN");
    assert_eq!(with_pin.exposure, Exposure::Secret);
}

/// Texts near the ones that mean something.
fn near(valid: &'static str, alphabet: &'static str) -> impl Strategy<Value = String> {
    (proptest::collection::vec(
        (
            0..=valid.len(),
            prop::sample::select(alphabet.chars().collect::<Vec<_>>()),
            any::<bool>(),
        ),
        0..4,
    ))
    .prop_map(move |edits| {
        let mut text: Vec<char> = valid.chars().collect();
        for (at, c, is_insertion) in edits {
            let at = at.min(text.len());
            if is_insertion || at == text.len() {
                text.insert(at, c);
            } else if let Some(place) = text.get_mut(at) {
                *place = c;
            }
        }
        text.into_iter().collect()
    })
}

proptest! {
    /// What is taken here must not be refused at start.
    #[test]
    fn password_hashes_agree_with_the_adapters(
        text in near("pbkdf2-sha256$10$g+oJb6/46ZcmU1L3bniJHQ$VgUe+H4v/tDq1QXIalRT8pkxxaSa2q85wg1z0ifzZG0", "AQgw=+/$019-x"),
    ) {
        let theirs: Result<fieldgate_adapters::password::PasswordHash, _> = text.parse();
        prop_assert_eq!((PASSWORD_HASH.parse)(&text).is_ok(), theirs.is_ok(), "{}", text);
    }

    #[test]
    fn topic_filters_agree_with_the_adapters(text in "[a+#/$\u{0}]{0,8}|[a/]{1,4}/[+#]") {
        let theirs: Result<fieldgate_adapters::topic::TopicFilter, _> = text.parse();
        prop_assert_eq!((TOPIC_FILTER.parse)(&text).is_ok(), theirs.is_ok(), "{:?}", text);
    }

    #[test]
    fn pkcs11_uris_agree_with_the_signers(
        text in prop_oneof![
            near("pkcs11:token=a%20b;object=c;type=private", "abc%;=?&/ 2#[~\u{e4}"),
            near("pkcs11:id=%00%ff;slot-id=12;library-version=2.6", "0f%;=?.+1 29\u{e4}"),
        ],
    ) {
        if (PKCS11_URI.parse)(&text).is_ok() {
            let theirs: Result<fieldgate_hsm::Pkcs11Uri, _> = text.parse();
            prop_assert!(theirs.is_ok(), "{}: {:?}", text, theirs);
        }
    }

    #[test]
    fn any_text_never_panics(text in "\\PC{0,60}") {
        let _ = (reason(&NAME, &text), reason(&DEVICE_NAME, &text), reason(&RELAY_NAME, &text), reason(&USERNAME, &text));
        let _ = (reason(&IDENTIFIER, &text), reason(&HOST_PORT, &text), reason(&LISTEN, &text), reason(&TOPIC_FILTER, &text));
        let _ = (reason(&TOPIC_TEMPLATE, &text), reason(&PASSWORD_HASH, &text), reason(&PKCS11_URI, &text));
        let _ = (reason(&CREDENTIAL, &text), reason(&VARIABLE, &text), reason(&LISTEN_LOOPBACK, &text));
    }
}
