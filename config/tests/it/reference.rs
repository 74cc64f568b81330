//! The reference tells the truth: its keys are taken, its defaults are what settings are without them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use fieldgate_config::reference;
use fieldgate_config::settings::{Sandbox, Settings};

use crate::load;

/// A row of the reference.
#[derive(Debug)]
struct Row {
    key: String,
    value: String,
    default: String,
}

/// Reads the page: rows by the heading they stand under.
fn tables() -> BTreeMap<String, Vec<Row>> {
    let mut tables: BTreeMap<String, Vec<Row>> = BTreeMap::new();
    let mut heading = String::new();
    for line in reference().lines() {
        if let Some(text) = line.strip_prefix("## ") {
            heading = text.to_owned();
        }
        let Some(cells) = line.strip_prefix("| ").and_then(|line| line.strip_suffix(" |")) else {
            continue;
        };
        let cells: Vec<&str> = cells.split(" | ").collect();
        let [key, value, default, meaning] = cells.as_slice() else {
            panic!("not four cells: {line}")
        };
        if *key == "key" {
            continue;
        }
        assert!(meaning.ends_with('.'), "no sentence: {line}");
        let row = Row {
            key: key.trim_matches('`').to_owned(),
            value: (*value).to_owned(),
            default: (*default).to_owned(),
        };
        tables.entry(heading.clone()).or_default().push(row);
    }
    tables
}

/// Returns the path of the tables under a heading: "`relay = { … }` in `uplink`" is `uplink.relay`.
fn path(heading: &str) -> String {
    let (name, parent) = match heading.split_once(" in ") {
        Some((name, parent)) => (
            name.split(" = ").next().unwrap_or_default(),
            parent.trim_matches('`'),
        ),
        None => (heading, ""),
    };
    let name = name.trim_matches(['`', '[', ']']);
    if parent.is_empty() {
        name.to_owned()
    } else {
        format!("{parent}.{name}")
    }
}

/// Returns the paths of all keys of the reference.
fn documented() -> BTreeSet<String> {
    let mut keys = BTreeSet::new();
    let tables = tables();
    let secret = tables.get("Secrets").expect("a section on secrets");
    for (heading, rows) in tables.iter().filter(|(heading, _)| *heading != "Secrets") {
        let parent = if heading == "Sections" {
            String::new()
        } else {
            path(heading) + "."
        };
        for row in rows {
            keys.insert(format!("{parent}{}", row.key));
            if row.value == "a secret by reference" {
                keys.extend(
                    secret
                        .iter()
                        .map(|inner| format!("{parent}{}.{}", row.key, inner.key)),
                );
            }
        }
    }
    keys
}

/// Returns the paths of all keys of a file; the names of attributes are the file's own.
fn used(text: &str) -> BTreeSet<String> {
    fn walk(value: &toml::Value, path: &str, keys: &mut BTreeSet<String>) {
        if let Some(table) = value
            .as_table()
            .filter(|_| !path.ends_with(".attributes") && !path.ends_with(".set"))
        {
            for (name, value) in table {
                let path = if path.is_empty() {
                    name.clone()
                } else {
                    format!("{path}.{name}")
                };
                walk(value, &path, keys);
                keys.insert(path);
            }
        }
        for item in value.as_array().into_iter().flatten() {
            walk(item, path, keys);
        }
    }
    let mut keys = BTreeSet::new();
    walk(&toml::Value::Table(text.parse().expect("TOML")), "", &mut keys);
    keys
}

const EVERY_KEY: &str = include_str!("every_key.toml");

/// The file with every key, once for each way to write what takes exactly one of several keys.
fn variants() -> Vec<String> {
    let pin = "pin = { credential = \"fieldgate-pin\" }";
    let psk = "key = { file = \"pump-7.psk\" }";
    let password = "password = { env = \"BROKER_PASSWORD\" }";
    let start = EVERY_KEY.find("pkcs11 =").expect("an identity");
    let end = start + EVERY_KEY[start..].find("\n\n").expect("the end of the section");
    let with_file = |source: &str| {
        EVERY_KEY.replace(
            &EVERY_KEY[start..end],
            &format!("file = \"identity.key\"\npassphrase = {{ {source} }}"),
        )
    };
    let key = "key = { credential = \"journal-key\" }";
    let relay = "relay = { address = \"relay.example.net:4433\", identifier = \"$RELAY\" }";
    let via = format!("via = \"authority\"\n{relay}");
    let through = |text: &str| {
        text.replace(
            " }",
            ", through = [\"x\"], through_identifiers = [\"$GATEWAY\"] }",
        )
    };
    let other = "identifier = \"$OTHER\" },";
    let shared = "key = { credential = \"authority-cluster\" }";
    let logins = ["relay", "authority"].into_iter().flat_map(|user| {
        let named = format!("username = \"{user}\"\npassword");
        let login = format!("{named} = {{ credential = \"nats\" }}");
        [named, "token".to_owned(), "credentials".to_owned()]
            .into_iter()
            .flat_map(move |key| {
                let login = login.clone();
                let sources = ["credential", "file", "env"].into_iter();
                sources.map(move |source| {
                    EVERY_KEY.replace(&login, &format!("{key} = {{ {source} = \"NATS\" }}"))
                })
            })
    });
    let also = |text: &str| text.replace(", identifier = ", ", also = [\"wss://x/\"], identifier = ");
    let proxy = "proxy_password = { env = \"PROXY_PASSWORD\" }";
    let mut variants = vec![
        EVERY_KEY.to_owned(),
        also(EVERY_KEY),
        EVERY_KEY
            .replace(relay, &through(relay))
            .replace(other, &through(other)),
        EVERY_KEY.replacen(
            &via,
            "direct = { address = \"authority:4433\", also = [\"wss://authority/\"] }",
            1,
        ),
        EVERY_KEY.replacen(
            relay,
            &also(&through(relay))
                .replace("relay = {", "relays = [{")
                .replace('}', "}]"),
            1,
        ),
        EVERY_KEY
            .replace(pin, "pin = { file = \"/pin\" }")
            .replace(psk, "key = { credential = \"p\" }")
            .replace(key, "key = { file = \"/key\" }")
            .replace(shared, "key = { file = \"/shared\" }")
            .replace(proxy, "proxy_password = { file = \"/proxy\" }")
            .replace(password, "password = { credential = \"p\" }"),
        EVERY_KEY
            .replace(pin, "pin = { env = \"PIN\" }")
            .replace(psk, "key = { env = \"K\" }")
            .replace(key, "key = { env = \"KEY\" }")
            .replace(shared, "key = { env = \"SHARED\" }")
            .replace(proxy, "proxy_password = { credential = \"proxy\" }")
            .replace(password, "password = { file = \"/p\" }"),
        with_file("credential = \"p\""),
        with_file("file = \"p\""),
        with_file("env = \"P\""),
    ];
    variants.extend(logins);
    variants
}

#[test]
fn every_documented_key_is_taken_and_every_taken_key_is_documented() {
    let mut keys = BTreeSet::new();
    for text in variants() {
        let loaded = load(&text);
        assert_eq!(loaded.problems.error_count(), 0, "{:?}", loaded.problems);
        keys.extend(used(&text));
    }
    let documented = documented();
    assert_eq!(
        keys.difference(&documented).collect::<Vec<_>>(),
        Vec::<&String>::new(),
        "not documented"
    );
    assert_eq!(
        documented.difference(&keys).collect::<Vec<_>>(),
        Vec::<&String>::new(),
        "not taken by any test"
    );
    assert!(documented.len() > 90, "only {} keys were found", documented.len());
}

/// The least that has every table, with the keys that are required.
const REQUIRED: &[(&str, &str)] = &[
    ("node", ""),
    ("log", ""),
    ("identity", "file = 'k'\npassphrase = { env = 'P' }"),
    ("trust", ""),
    ("journal", ""),
    ("journal.alarm", ""),
    ("journal.normal", ""),
    ("journal.bulk", ""),
    ("mqtt", "dangerous_anonymous = true\nanonymous = true"),
    ("mqtt.tls", "certificate = 'c'\nkey = 'k'\nclient_ca = 'a'"),
    ("mqtt.psk", ""),
    ("mqtt.websocket", ""),
    (
        "mqtt.websocket.tls",
        "certificate = 'c'\nkey = 'k'\nclient_ca = 'a'",
    ),
    (
        "[mqtt.device]",
        "name = 'd'\npassword_hash = '$HASH'\ncertificate = { subject_cn = 'd' }\npsk = { identity = 'd', key = { env = 'K' } }",
    ),
    (
        "[uplink]",
        "name = 'u'\ncollector = '$COLLECTOR'\nvia = 'c'\nrelay = { address = 'r:1', identifier = '$RELAY' }",
    ),
    ("link.tcp", ""),
    ("link.quic", ""),
    ("link.direct", ""),
    ("link.websocket", ""),
    ("link.unix", ""),
    ("relay", ""),
    ("[relay.member]", "name = 'm'\nidentifier = '$GATEWAY'"),
    ("authority", ""),
    ("[authority.member]", "name = 'm'\nidentifier = '$GATEWAY'"),
    (
        "collector",
        "register = [{ relay = { address = 'r:1', identifier = '$RELAY' }, name = 'c' }]",
    ),
    ("[collector.gateway]", "name = 'g'\nidentifier = '$GATEWAY'"),
    ("[collector.sink]", "kind = 'mqtt'\naddress = 'b:1'"),
    (
        "[collector.sink]",
        "kind = 'nats'\nname = 'n'\naddress = 'b:1'\nstream = 's'",
    ),
    ("collector.sink.create", ""),
    ("[collector.sink]", "kind = 'http'\nname = 'h'\nurl = 'http://b'"),
    (
        "[collector.sink]",
        "kind = 'file'\npath = 'f'\nrotate_bytes = '1 MiB'",
    ),
    ("metrics", ""),
];

fn settings(text: &str) -> Settings {
    let loaded = load(text);
    loaded
        .settings
        .unwrap_or_else(|| panic!("{text}\n{:?}", loaded.problems))
}

/// Whether a key goes with the `kind` of a table, where it has one.
fn fits_kind(row: &Row, lines: &str) -> bool {
    let kind = lines
        .strip_prefix("kind = '")
        .and_then(|rest| rest.split('\'').next());
    match (kind, row.default.split_once(" (with `kind")) {
        (Some(kind), Some((_, kinds))) => kinds.contains(&format!("\"{kind}\"")),
        (Some(_) | None, _) => true,
    }
}

/// Writes [`REQUIRED`] with the lines that `more` has for a table.
fn file(more: impl Fn(&str, &str) -> String) -> String {
    REQUIRED
        .iter()
        .map(|(header, lines)| format!("[{header}]\n{lines}\n{}\n", more(header, lines)))
        .collect()
}

#[test]
fn documented_defaults_are_what_settings_are_without_the_key() {
    let tables = tables();
    let mut count = 0;
    for (header, _) in REQUIRED {
        assert!(
            tables.contains_key(&format!("`[{header}]`")),
            "{header} is not documented"
        );
    }
    let defaults = |header: &str, lines: &str| -> Vec<String> {
        let rows = tables.get(&format!("`[{header}]`")).into_iter().flatten();
        let fixed = |key: &str| lines.lines().any(|line| line.starts_with(&format!("{key} =")));
        let kind = lines
            .strip_prefix("kind = '")
            .and_then(|rest| rest.split('\'').next());
        let fits = |row: &&Row| match (kind, row.default.split_once(" (with `kind")) {
            (Some(kind), Some((_, kinds))) => kinds.contains(&format!("\"{kind}\"")),
            (Some(_) | None, _) => true,
        };
        rows.filter(|row| !fixed(&row.key))
            .filter(fits)
            .filter_map(|row| {
                // "`1000` (with `kind = "mqtt"`)" and "`1000`", but not "`name`" in words.
                let default = row.default.split(" (with ").next().unwrap_or_default();
                let text = default.strip_prefix('`')?.strip_suffix('`')?;
                let line = format!("{} = {text}", row.key);
                toml::from_str::<toml::Table>(&line).is_ok().then_some(line)
            })
            .collect()
    };
    let implicit = settings(&file(|_, _| String::new()));
    let all = settings(&file(|header, lines| defaults(header, lines).join("\n")));
    assert_eq!(all, implicit);
    // One by one as well, and with another value the settings differ: the comparison can fail.
    for (header, lines) in REQUIRED {
        for line in defaults(header, lines) {
            let with = file(|other, other_lines| {
                if (other, other_lines) == (*header, *lines) {
                    line.clone()
                } else {
                    String::new()
                }
            });
            assert_eq!(settings(&with), implicit, "[{header}] {line}");
            count += 1;
        }
    }
    assert!(count >= 35, "only {count} defaults were found");
    assert_ne!(
        settings(&file(|header, _| if header == "node" {
            "shards = 1".into()
        } else {
            String::new()
        })),
        implicit
    );
}

#[test]
fn defaults_in_words_are_as_described() {
    let settings = settings(&file(|_, _| String::new()));
    assert_eq!(settings.node.name, "hall-3", "the host name up to its first dot");
    assert_eq!(
        settings.journal.map(|journal| journal.dir),
        Some("/var/lib/fieldgate/journal".into())
    );
    let mqtt = settings.mqtt.expect("a listener");
    assert!(mqtt.listen.is_empty(), "none if there is [mqtt.tls]");
    let device = mqtt.devices.first().expect("a device");
    assert_eq!(
        (device.username.as_str(), device.publish.as_slice()),
        ("d", ["d/#".to_owned()].as_slice())
    );
    let authority = settings.authority.expect("an authority");
    assert_eq!(authority.store, Path::new("/var/lib/fieldgate/authority.redb"));
    let trust = settings.trust.expect("trust");
    assert_eq!((trust.authority, trust.path, trust.policy), (None, None, None));
    assert_eq!(settings.sandbox, Sandbox::default());
    let collector = settings.collector.expect("a collector");
    assert_eq!(collector.state_dir, Path::new("/var/lib/fieldgate/collector"));
    let sink = collector.sinks.first().expect("a sink");
    let fieldgate_config::settings::sink::SinkKind::Mqtt(broker) = &sink.kind else {
        panic!("a broker")
    };
    assert_eq!(
        (sink.name.as_str(), broker.client_id.as_str()),
        ("mqtt", "fieldgate-hall-3")
    );

    let plain = "[mqtt]\nanonymous = true\ndangerous_anonymous = true\n[identity]\nfile = 'k'\npassphrase = { env = 'P' }";
    let mqtt = self::settings(plain).mqtt.expect("a listener");
    let closed = "[mqtt]\ndevice = [{ name = 'd', password_hash = '$HASH' }]\n[identity]\nfile = 'k'\npassphrase = { env = 'P' }";
    assert!(!self::settings(closed).mqtt.expect("a listener").anonymous);
    assert_eq!(mqtt.listen, ["0.0.0.0:1883".parse().expect("an address")]);
    let web = plain.replace("\n[identity]", "\n[mqtt.websocket]\n[identity]");
    let mqtt = self::settings(&web).mqtt.expect("a listener");
    assert!(mqtt.listen.is_empty(), "none if there is [mqtt.websocket]");
    let websocket = mqtt.websocket.expect("a listener");
    assert_eq!(websocket.listen, ["0.0.0.0:8083".parse().expect("an address")]);
    assert_eq!((websocket.path.as_str(), websocket.origins), ("/mqtt", None));
}

#[test]
fn bounds_of_numbers_are_the_documented_ones() {
    let mut count = 0;
    let tables = tables();
    for (header, lines) in REQUIRED {
        for row in tables.get(&format!("`[{header}]`")).into_iter().flatten() {
            let Some(bounds) = row.value.strip_prefix("an integer, ") else {
                continue;
            };
            if !fits_kind(row, lines) {
                continue;
            }
            let (min, max) = bounds.split_once("..=").expect("two bounds");
            let (min, max): (u64, u64) = (min.parse().expect("a number"), max.parse().expect("a number"));
            let problems = |value: i128| {
                let line = format!("{} = {value}", row.key);
                let text = file(|other, other_lines| {
                    if (other, other_lines) == (*header, *lines) {
                        line.clone()
                    } else {
                        String::new()
                    }
                });
                assert!(!lines.contains(&row.key), "the fixture sets {}", row.key);
                load(&text).problems.error_count()
            };
            assert_eq!(
                (problems(min.into()), problems(max.into())),
                (0, 0),
                "{} at its bounds",
                row.key
            );
            assert_eq!(
                (problems(i128::from(min) - 1), problems(i128::from(max) + 1)),
                (1, 1),
                "{} beyond",
                row.key
            );
            count += 1;
        }
    }
    assert!(count >= 12, "only {count} numbers were found");
}

#[test]
fn host_names_become_node_names() {
    let text = "[mqtt]\nanonymous = true\nlisten = ['127.0.0.1:0']\n[identity]\nfile = 'k'\npassphrase = { env = 'P' }";
    for (host, name) in [
        ("hall-3", "hall-3"),
        ("Hall_3.example.net", "hall-3"),
        ("-", "fieldgate"),
        ("", "fieldgate"),
        (".", "fieldgate"),
        ("würzburg", "w-rzburg"),
        (&"a".repeat(80), &"a".repeat(63)),
    ] {
        let loaded = fieldgate_config::load_str("f", text, "/".as_ref(), host);
        assert_eq!(
            loaded.settings.map(|settings| settings.node.name),
            Some(name.to_owned()),
            "{host}"
        );
    }
}
