//! What people see.

use fieldgate_config::Colour;
use insta::assert_snapshot;

use crate::load;

const IDENTITY: &str = "identity = { file = 'k', passphrase = { env = 'P' } }\n";

fn shown(text: &str) -> String {
    load(text).problems.render_text(Colour::None, 100)
}

#[test]
fn a_number_outside_its_bounds() {
    let text = format!(
        "{IDENTITY}[mqtt]\nanonymous = true\nlisten = ['127.0.0.1:1883']\nkeep_alive_max_secs = 0\n[[uplink]]\nname = 'u'\ncollector = '$COLLECTOR'\ndirect = {{ address = 'c:1' }}"
    );
    assert_snapshot!(shown(&text), @r"
     × `mqtt.keep_alive_max_secs` is 0, outside 5..=65535
      ╭─[fieldgate.toml:5:23]
    5 │ keep_alive_max_secs = 0
      ·                       ┬
      ·                       ╰── this value
      ╰────
     help: choose at least 5 s
    ");
}

#[test]
fn a_pin_in_the_file() {
    let text = "[relay]\nmember = [{ name = 'm', identifier = '$GATEWAY', hold = ['a'] }]\n[link.tcp]\n[identity]\npkcs11 = 'pkcs11:token=fieldgate;object=gateway?pin-value=123456'\nmodule = '/usr/lib/softhsm/libsofthsm2.so'\npin = '123456'";
    assert_snapshot!(shown(text), @r#"
     × `identity.pkcs11` holds the PIN itself (pin-value)
      ╭─[fieldgate.toml:5:10]
    5 │ pkcs11 = ********************************************************
      ·          ────────────────────────────┬───────────────────────────
      ·                                      ╰── this value
      ╰────
     help: take pin-value out and say where the PIN is: pin = { credential = "fieldgate-pin" }; and
           change the PIN, as it has been written down

     × `identity.pin` holds the secret itself, which must not stand in this file
      ╭─[fieldgate.toml:7:7]
    7 │ pin = ********
      ·       ────┬───
      ·           ╰── this value
      ╰────
     help: say where it is: pin = { credential = "fieldgate-pin" } for a systemd credential, { file =
           "/etc/fieldgate/pin" } or { env = "FIELDGATE_PIN" }; and change the secret, as it has been
           written down
    "#);
}

#[test]
fn a_fault_of_the_syntax() {
    assert_snapshot!(shown("[node]\nname = hall-3\nshards = 1"), @r"
     × the file is not TOML: string values must be quoted, expected literal string
      ╭─[fieldgate.toml:2:8]
    2 │ name = hall-3
      ·        ───┬──
      ·           ╰── here
      ╰────
     help: texts stand in quotes, lists in [ ], tables in { }, and each key on a line of its own
    ");
    assert_snapshot!(shown("[node\nname = 'hall-3'"), @r"
     × the file is not TOML: unclosed table, expected `]`
      ╭─[fieldgate.toml:1:6]
    1 │ [node
      ·      ▲
      ·      ╰── here
      ╰────
     help: texts stand in quotes, lists in [ ], tables in { }, and each key on a line of its own
    ");
    assert_snapshot!(shown("[node]\nname = 'hall-3"), @r"
     × the file is not TOML: invalid literal string, expected `'`
      ╭─[fieldgate.toml:2:14]
    2 │ name = 'hall-3
      ·              ┬
      ·              ╰── here
      ╰────
     help: texts stand in quotes, lists in [ ], tables in { }, and each key on a line of its own
    ");
    assert_snapshot!(shown("[node]\nname"), @r"
     × the file is not TOML: key with no value, expected `=`
      ╭─[fieldgate.toml:2:4]
    2 │ name
      ·    ┬
      ·    ╰── here
      ╰────
     help: texts stand in quotes, lists in [ ], tables in { }, and each key on a line of its own
    ");
}

#[test]
fn duplicate_keys_are_told_beside_everything_else() {
    let text = format!("{IDENTITY}[node]\nname = 'a'\nname = 'b'\nshards = 65\n[node]\nio = 'uring'\n");
    assert_snapshot!(shown(&text), @r"
     × the file switches nothing on
     help: a gateway has [mqtt] and [[uplink]], a relay [relay], a collector [collector], an
           authority [authority], and any of them may have [portal]; examples stand in /usr/share/
           doc/fieldgate/examples

     × `name` stands in the file twice
      ╭─[fieldgate.toml:4:1]
    4 │ name = 'b'
      · ──┬─
      ·   ╰── again here
      ╰────
     help: keep one; for several of a kind write [[…]] with two brackets

     × `node.shards` is 65, outside 0..=64
      ╭─[fieldgate.toml:5:10]
    5 │ shards = 65
      ·          ─┬
      ·           ╰── this value
      ╰────
     help: choose at most 64

     × `node` stands in the file twice
      ╭─[fieldgate.toml:6:2]
    6 │ [node]
      ·  ──┬─
      ·    ╰── again here
      ╰────
     help: keep one; for several of a kind write [[…]] with two brackets
    ");
}

const TWELVE: &str = "\
[node]
name = \"Hall 3\"
shards = 65
statedir = \"/data\"

[identity]
pkcs11 = \"pkcs11:token=fieldgate;object=gateway\"
pin = \"123456\"

[journal]
bytes_max = \"20 MB\"

[mqtt]
listen = \"0.0.0.0:1883\"
latency_ms = \"5\"
anonymous = true

[[uplink]]
name = \"plant\"
collector = \"fg1yyqndwc2q82mdq8h26sywqg9wvqrthy7l6p5kwcfrtzkz4tux94qy47c2b\"
relay = { address = \"10.77.0.2\", identifier = \"$RELAY\" }
pq = \"requird\"
";

#[test]
fn a_file_with_twelve_problems_shows_twelve() {
    assert_eq!(load(TWELVE).problems.len(), 12);
    assert_snapshot!(shown(TWELVE), @r#"
     × `node.name` is "Hall 3", which is not a name
      ╭─[fieldgate.toml:2:8]
    2 │ name = "Hall 3"
      ·        ────┬───
      ·            ╰── this value
      ╰────
     help: use 1 to 63 lower-case letters, digits and hyphens, with no hyphen at either end

     × `node.shards` is 65, outside 0..=64
      ╭─[fieldgate.toml:3:10]
    3 │ shards = 65
      ·          ─┬
      ·           ╰── this value
      ╰────
     help: choose at most 64

     × `statedir` in `node` is not a key fieldgate knows
      ╭─[fieldgate.toml:4:1]
    4 │ statedir = "/data"
      · ────┬───
      ·     ╰── this key
      ╰────
     help: did you mean `state_dir`? Allowed here: `name`, `state_dir`, `io`, `shards`,
           `control_socket`

     × `identity.module` is missing
      ╭─[fieldgate.toml:6:1]
    6 │ [identity]
      · ─────┬────
      ·      ╰── this table
      ╰────
     help: add `module`, a path, relative to the directory of this file: PKCS#11 library of the token

     × `identity.pin` holds the secret itself, which must not stand in this file
      ╭─[fieldgate.toml:8:7]
    8 │ pin = ********
      ·       ────┬───
      ·           ╰── this value
      ╰────
     help: say where it is: pin = { credential = "fieldgate-pin" } for a systemd credential, { file =
           "/etc/fieldgate/pin" } or { env = "FIELDGATE_PIN" }; and change the secret, as it has been
           written down

     × `journal.bytes_max` is "20 MB", which is not a size
       ╭─[fieldgate.toml:11:13]
    11 │ bytes_max = "20 MB"
       ·             ───┬───
       ·                ╰── this value
       ╰────
     help: write whole bytes as a number, or a number and B, KiB, MiB, GiB or TiB: "64 KiB"; these
           count in steps of 1024, and there are no others

     × `mqtt.listen` is the text "0.0.0.0:1883", not a list
       ╭─[fieldgate.toml:14:10]
    14 │ listen = "0.0.0.0:1883"
       ·          ───────┬──────
       ·                 ╰── this value
       ╰────
     help: put it in brackets: listen = [ … ]

     × `mqtt.latency_ms` is the text "5", not an integer, 0..=100
       ╭─[fieldgate.toml:15:14]
    15 │ latency_ms = "5"
       ·              ─┬─
       ·               ╰── this value
       ╰────
     help: write the number without quotes: 5

     × `uplink[0].via` is missing
       ╭─[fieldgate.toml:18:1]
    18 │ [[uplink]]
       · ─────┬────
       ·      ╰── this table
       ╰────
     help: add `via`, a name at the relay, 1 to 128 bytes without spaces and `*`: Name the collector
           holds at the relays

     × `uplink[0].collector` is "fg1yyqndwc2q82mdq8h26sywqg9wvqrthy7l6p5kwcfrtzkz4tux94qy47c2b",
     │ which has a typing error
       ╭─[fieldgate.toml:20:13]
    20 │ collector = "fg1yyqndwc2q82mdq8h26sywqg9wvqrthy7l6p5kwcfrtzkz4tux94qy47c2b"
       ·             ───────────────────────────────┬───────────────────────────────
       ·                                            ╰── this value
       ╰────
     help: copy the identifier again, whole, from `fieldgate identity show`

     × `uplink[0].relay.address` is "10.77.0.2", which has no port
       ╭─[fieldgate.toml:21:21]
    21 │ relay = { address = "10.77.0.2", identifier = "fg1wrwssj5734a52879dr84mn8t0azmvgd87tt7revw5r6ry9zthgdserc5lc" }
       ·                     ─────┬─────
       ·                          ╰── this value
       ╰────
     help: write host:port, such as "relay.example.net:4433" or "[fd00::2]:4433"

     × `uplink[0].pq` is "requird", not one of "required", "preferred", "off"
       ╭─[fieldgate.toml:22:6]
    22 │ pq = "requird"
       ·      ────┬────
       ·          ╰── this value
       ╰────
     help: did you mean "required"?
    "#);
}

#[test]
fn programs_get_a_list() {
    let text = "[node]\nname = 'H'\n";
    let json = load(text).problems.render_json().replace("},{", "},\n{");
    assert_snapshot!(json, @r#"
    [{"severity":"error","file":"fieldgate.toml","line":null,"column":null,"key":"identity","message":"`[identity]` is missing","help":"add [identity]: Where the key of this node lives"},
    {"severity":"error","file":"fieldgate.toml","line":null,"column":null,"key":null,"message":"the file switches nothing on","help":"a gateway has [mqtt] and [[uplink]], a relay [relay], a collector [collector], an authority [authority], and any of them may have [portal]; examples stand in /usr/share/doc/fieldgate/examples"},
    {"severity":"error","file":"fieldgate.toml","line":2,"column":8,"key":"node.name","message":"`node.name` is \"H\", which is not a name","help":"use 1 to 63 lower-case letters, digits and hyphens, with no hyphen at either end"}]
    "#);
    assert_eq!(load(&format!("{IDENTITY}[relay]\nmember = [{{ name = 'm', identifier = '$GATEWAY', hold = ['a'] }}]\n[link.tcp]")).problems.render_json(), "[]");
}

#[test]
fn colours_are_used_only_where_asked_for() {
    let problems = load("[node]\nname = 'H'\n").problems;
    assert!(problems.render_text(Colour::Ansi, 100).contains("\u{1b}["));
    assert!(!problems.render_text(Colour::None, 100).contains('\u{1b}'));
}
