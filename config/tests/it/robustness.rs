//! Files that nobody would write.

use proptest::prelude::*;

use fieldgate_config::{Colour, load_str};

use crate::{filled, load};

const WHOLE: &str = include_str!("every_key.toml");

/// Renders everything, as `check` would.
fn render(text: &str) {
    let loaded = load_str("f", text, "/".as_ref(), "host");
    assert_eq!(loaded.settings.is_none(), loaded.problems.error_count() > 0);
    let plain = loaded.problems.render_text(Colour::None, 80);
    assert!(!plain.contains("Failed to read contents"), "{plain}");
    assert!(!plain.contains('\u{1b}'));
    assert_eq!(
        loaded.problems.render_text(Colour::Ansi, 0).is_empty(),
        loaded.problems.is_empty()
    );
    let json: serde_json::Value = serde_json::from_str(&loaded.problems.render_json()).expect("JSON");
    assert_eq!(json.as_array().map(Vec::len), Some(loaded.problems.len()));
}

#[test]
fn deep_nesting_is_refused() {
    for text in [
        format!("x = {}", "[".repeat(100_000)),
        format!("x = {}{}", "[".repeat(100_000), "]".repeat(100_000)),
        format!("x = {}", "{a=".repeat(100_000)),
        format!("{}b = 1", "a.".repeat(100_000)),
        format!("[{}b]", "a.".repeat(100_000)),
    ] {
        render(&text);
    }
}

#[test]
fn thousands_of_problems_are_cut_short_but_counted() {
    let many = |count: usize| (0..count).map(|n| format!("key{n} = 1\n")).collect::<String>();
    let loaded = load(&many(2_000));
    let first = loaded.problems.iter().next().expect("problems");
    // Two more are told about: there is no identity, and nothing is on.
    assert_eq!(first.message(), "1002 more errors are not shown");
    assert_eq!(loaded.problems.len(), 1_001);
}

#[test]
fn warnings_do_not_crowd_out_errors() {
    let members: String = (0..1_500)
        .map(|n| format!("[[relay.member]]\nname = 'm{n}'\nidentifier = '$GATEWAY'\n"))
        .collect();
    let loaded = load(&format!(
        "identity = {{ file = 'k', passphrase = {{ env = 'P' }} }}\n[relay]\n{members}"
    ));
    let mut messages = loaded
        .problems
        .iter()
        .map(|problem| (problem.severity().as_str(), problem.message()));
    assert!(
        messages
            .clone()
            .any(|problem| problem == ("warning", "500 more warnings are not shown"))
    );
    assert!(
        messages.any(|problem| problem == ("error", "`relay` needs `[link.tcp]`: no member could connect"))
    );
}

#[test]
fn secrets_are_not_shown_whatever_is_wrong() {
    for text in [
        "[identity]\npin = 'Gehe1m'",
        "[identity]\npin = ['Gehe1m']",
        "[identity]\npin = { value = 'Gehe1m' }",
        "[identity]\npin = { file = 'a', env = 'b' }\npassphrase = 'Gehe1m'",
        "[identity]\npkcs11 = 'pkcs11:object=a?pin-value=Gehe1m'",
        "[identity]\npkcs11 = 'pkcs11:object=a;;?pin-value=Gehe1m'\npin = { env = 'A' }",
        "[identity]\npin = 'a'\npin = 'Gehe1m'",
        "[identity]\npin = 'Gehe1m",
        "[identity]\npin = Gehe1m",
        "[identity]\npin = \"\"\"\nGehe1m\n\"\"\" x",
        "[identity]\npin = \"\"\"\nGehe1m",
        "[identity]\npin = \"\"\"\nGehe1m\n\"\"\"",
        "pin = 'Gehe1m'",
        "password = 'Gehe1m'\n[",
        "[[mqtt.device]]\nname = 'a'\npassword = 'Gehe1m'",
        "[[mqtt.device]]\nname = 'a'\npassword_hash = 'Gehe1m'",
        "[[mqtt.device]]\nname = 'a'\npassword_hash = ['Gehe1m']",
        "[[collector.sink]]\nkind = 'mqtt'\npassword = 'Gehe1m'",
        "[[collector.sink]]\nkind = 'file'\npassword = 'Gehe1m'",
    ] {
        let loaded = load(text);
        assert!(loaded.settings.is_none(), "{text}");
        let shown = loaded.problems.render_text(Colour::None, 200) + &loaded.problems.render_json();
        assert!(!shown.contains("Gehe1m"), "{text}\n{shown}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_text_never_panics(text in "(\\PC|[\n\r\t\"'\\[\\]{}=.,#\u{0}\u{1b}\u{feff}]){0,200}") {
        render(&text);
    }

    #[test]
    fn any_words_of_the_file_in_any_order_never_panic(
        words in proptest::collection::vec(prop::sample::select(vec![
            "[", "]", "[[", "]]", "{", "}", "=", " = ", ".", ",", "\n", "\n", "\n", "\"", "'", "1", "true", "-7", "1.5",
            "0xff", "1979-05-27", "\"text\"", "'64 KiB'", "node", "name", "identity", "pin", "file", "mqtt", "listen",
            "tls", "device", "uplink", "relay", "relays", "direct", "link", "tcp", "collector", "sink", "kind",
            "register", "gateway", "journal", "metrics", "'127.0.0.1:1'", "member", "hold", "\u{e4}", "#", "\r",
        ]), 0..60),
    ) {
        render(&words.concat());
    }

    #[test]
    fn a_whole_file_with_any_part_changed_never_panics(at: usize, len in 0_usize..40, with in "(\\PC|[\n\"'\\[\\]{}=]){0,12}") {
        let whole = filled(WHOLE);
        let start = whole.floor_char_boundary(at % whole.len());
        let end = whole.ceil_char_boundary((start + len).min(whole.len()));
        render(&format!("{}{with}{}", &whole[..start], &whole[end..]));
    }
}
