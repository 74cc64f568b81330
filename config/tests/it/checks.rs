//! What no single key can tell: one test for each rule, with the file that breaks it.

use insta::assert_snapshot;

use crate::{complaints, load};

const IDENTITY: &str = "identity = { file = 'k', passphrase = { env = 'P' } }\n";
const UPLINK: &str = "[[uplink]]\nname = 'u'\ncollector = '$COLLECTOR'\ndirect = { address = 'c:1' }\n";
const LOCAL: &str = "[mqtt]\nanonymous = true\nlisten = ['127.0.0.1:1883']\n";

/// Complaints about a gateway without other faults, with `more` after it; its identity and uplink take five lines.
fn about_gateway(more: &str) -> String {
    complaints(&format!("{IDENTITY}{UPLINK}{more}"))
}

fn about_collector(more: &str) -> String {
    complaints(&format!(
        "{IDENTITY}[link.tcp]\n[collector]\ngateway = [{{ name = 'g', identifier = '$GATEWAY' }}]\n{more}"
    ))
}

fn about_relay(more: &str) -> String {
    complaints(&format!("{IDENTITY}[link.tcp]\n[relay]\n{more}"))
}

#[test]
fn the_fixtures_have_no_faults_of_their_own() {
    assert_eq!(about_gateway(LOCAL), "");
    assert_eq!(
        about_collector("[[collector.sink]]\nkind = 'file'\npath = '-'"),
        ""
    );
    assert_eq!(
        about_relay("[[relay.member]]\nname = 'm'\nidentifier = '$GATEWAY'\nhold = ['a']\nreach = ['a']"),
        ""
    );
}

#[test]
fn a_file_switches_something_on() {
    assert_snapshot!(complaints(""), @r"
    error: `[identity]` is missing
    error: the file switches nothing on
    ");
    assert_snapshot!(complaints(&format!("{IDENTITY}[metrics]")), @r"error: the file switches nothing on");
    assert_snapshot!(complaints(&format!("{IDENTITY}{LOCAL}")), @r"2:1 warning: there is no `[[uplink]]`: readings stay in the journal until it is full");
    assert_snapshot!(complaints(&format!("{IDENTITY}{UPLINK}")), @r"2:1 warning: nothing fills the journal: only what it already holds is delivered");
    assert_snapshot!(complaints(&format!("{IDENTITY}{UPLINK}{LOCAL}[link.tcp]")), @r"9:1 warning: `link.tcp` listens, but nothing in this file answers there");
    let relay = "[[relay.member]]\nname = 'm'\nidentifier = '$GATEWAY'\nhold = ['a']\n";
    assert_snapshot!(complaints(&format!("{IDENTITY}[link.tcp]\n{relay}[journal]")), @r"7:1 warning: `journal` is not used: there is neither `[mqtt]` nor `[[uplink]]`");
}

#[test]
fn the_identity_is_one_of_two() {
    let about = |identity: &str| complaints(&format!("[identity]\n{identity}\n{LOCAL}{UPLINK}"));
    assert_snapshot!(about(""), @r"1:1 error: `identity` needs one of `pkcs11`, `file`");
    assert_snapshot!(about("file = 'k'"), @r"1:1 error: `identity.passphrase` is missing");
    assert_snapshot!(about("pkcs11 = 'pkcs11:object=a'"), @r"
    1:1 error: `identity.module` is missing
    1:1 error: `identity.pin` is missing
    ");
    assert_snapshot!(about("file = 'k'\npassphrase = { env = 'P' }\npin = { env = 'P' }\nmodule = 'm'"), @r"
    4:7 error: `identity.pin` goes with `pkcs11`, which is not there
    5:10 error: `identity.module` goes with `pkcs11`, which is not there
    ");
    assert_snapshot!(about("file = 'k'\npassphrase = { env = 'P' }\npkcs11 = 'pkcs11:object=a'\nmodule = 'm'\npin = { env = 'P' }"), @r"2:1 error: `identity` has 2 of `pkcs11`, `file`, but takes exactly one");
    assert_snapshot!(about("file = 'k'\npassphrase = {}"), @r"3:14 error: `identity.passphrase` needs one of `credential`, `file`, `env`");
    assert_snapshot!(about("file = 'k'\npassphrase = { env = 'P', file = 'p', credential = 'c' }"), @r"3:27 error: `identity.passphrase` has 3 of `credential`, `file`, `env`, but takes exactly one");
}

#[test]
fn the_journal_has_room() {
    assert_snapshot!(about_gateway(&format!("{LOCAL}[journal]\nbytes_max = '23 MiB'")), @r"10:13 error: three segments of 8 MiB (`journal.segment_bytes`) are more than 23 MiB (`journal.bytes_max`)");
    assert_snapshot!(about_gateway(&format!("{LOCAL}[journal]\nsegment_bytes = '64 MiB'\nbytes_max = '100 MiB'")), @r"10:17 error: three segments of 64 MiB (`journal.segment_bytes`) are more than 100 MiB (`journal.bytes_max`)");
    assert_eq!(
        about_gateway(&format!("{LOCAL}[journal]\nbytes_max = '24 MiB'")),
        ""
    );
    assert_snapshot!(about_gateway(&format!("{LOCAL}[journal]\nsegment_bytes = '2 MiB'\nbytes_max = '6 MiB'\ntail_bytes_max = '7 MiB'")), @r"12:18 error: `journal.tail_bytes_max` is more than `journal.bytes_max`, the whole journal");
    assert_snapshot!(about_gateway(&format!("{LOCAL}[journal]\nencrypt = false\nkey = {{ file = 'k' }}")), @r"10:11 error: `journal.encrypt` is false, but there is a `journal.key`");
    assert_snapshot!(about_gateway(&format!("{LOCAL}[journal]\ndurable = false")), @r"10:11 warning: `journal.durable` is false: a power cut loses readings that devices were told are safe");
    assert_snapshot!(about_gateway(&format!("{LOCAL}[journal]\nbytes_max = '1 GB'\nsegment_bytes = 0\ntail_bytes_max = -1\ncommit_delay_ms = 101")), @r#"
    10:13 error: `journal.bytes_max` is "1 GB", which is not a size
    11:17 error: `journal.segment_bytes` is 0, outside 2 MiB..=64 MiB
    12:18 error: `journal.tail_bytes_max` is -1, outside 64 KiB..=256 MiB
    13:19 error: `journal.commit_delay_ms` is 101, outside 0..=100
    "#);
}

#[test]
fn the_lanes_share_what_the_journal_has() {
    assert_snapshot!(about_gateway(&format!("{LOCAL}[journal]\nbytes_max = '30 MiB'\n[journal.alarm]\nbytes_max = '25 MiB'\n[journal.bulk]\nbytes_max = '5 MiB'")), @r"14:13 error: the lanes of the journal need 31488 KiB, more than 30 MiB (`journal.bytes_max`)");
    assert_snapshot!(about_gateway(&format!("{LOCAL}[journal.alarm]\nbytes_max = '2 GiB'")), @r"10:13 error: the lanes of the journal need 2098688 KiB, more than 1 GiB (`journal.bytes_max`)");
    assert_snapshot!(about_gateway(&format!("{LOCAL}[journal.alarm]\nbytes_max = '8 MiB'\nsegment_bytes = '4 MiB'")), @r"11:17 error: three segments of 4 MiB (`journal.alarm.segment_bytes`) are more than 8 MiB, what the lane has");
    assert_snapshot!(about_gateway(&format!("{LOCAL}[journal.bulk]\nsegment_bytes = 300000\nttl_secs = 59\nwhen_full = 'drop'")), @r#"
    10:17 error: `journal.bulk.segment_bytes` is not a multiple of 4 KiB
    11:12 error: `journal.bulk.ttl_secs` is 59, outside 60..=315360000
    12:13 error: `journal.bulk.when_full` is "drop", not one of "refuse", "drop-oldest"
    "#);
    let lanes = |journal: &str| {
        let file = format!("{IDENTITY}{LOCAL}[journal]\n{journal}");
        let journal = load(&file)
            .settings
            .expect("no errors")
            .journal
            .expect("a journal");
        journal
            .lanes
            .map(|lane| (lane.bytes_max >> 10, lane.segment_bytes >> 10))
    };
    // In KiB. Nothing is left over, every lane has at least three segments.
    assert_eq!(
        lanes(""),
        [(64 << 10, 2 << 10), (704 << 10, 8 << 10), (256 << 10, 8 << 10)]
    );
    assert_eq!(
        lanes("bytes_max = '6 MiB'\nsegment_bytes = '2 MiB'"),
        [(768, 256), (3942, 984), (1433, 356)]
    );
    assert_eq!(
        lanes("[journal.normal]\nbytes_max = '1000 MiB'"),
        [(4915, 1228), (1000 << 10, 8 << 10), (19660, 4912)]
    );
}

#[test]
fn rules_for_classes_say_what_they_mean() {
    let about_rule = |rule: &str| about_gateway(&format!("{LOCAL}[[journal.class]]\n{rule}"));
    assert_snapshot!(about_rule("device = 'pump-*'"), @r"9:1 error: `journal.class[0].class` is missing");
    assert_snapshot!(about_rule("class = 'urgent'\ndevice = 'pump *'\ntopic = 'a/#/b'\ncontent_type = 'json'"), @r#"
    10:9 error: `journal.class[0].class` is "urgent", not one of "alarm", "normal", "bulk"
    11:10 error: `journal.class[0].device` is "pump *", which is not a device name
    12:9 error: `journal.class[0].topic` is "a/#/b", which has a # that is not the last level
    13:16 error: `journal.class[0].content_type` is "json", which is not a MIME type
    "#);
    assert_snapshot!(about_rule("class = 'bulk'\ncontent_type = 'text/plain; charset=utf-8'\njson = { path = 'level', at_least = 3 }"), @r#"
    11:16 error: `journal.class[0].content_type` is "text/plain; charset=utf-8", which is not a MIME type
    12:17 error: `journal.class[0].json.path` is "level", which does not begin with `/`
    "#);
    assert_snapshot!(about_rule("class = 'bulk'\njson = { path = '/a~2', equals = [1] }"), @r#"
    11:17 error: `journal.class[0].json.path` is "/a~2", which has a `~` that is neither `~0` nor `~1`
    11:34 error: `journal.class[0].json.equals` is a list, not a text, a number, `true` or `false`
    "#);
    assert_snapshot!(about_rule("class = 'bulk'\njson = { path = '/1/2/3/4/5/6/7/8/9', at_least = '3' }"), @r#"
    11:17 error: `journal.class[0].json.path` is "/1/2/3/4/5/6/7/8/9", which has more than 8 steps
    11:50 error: `journal.class[0].json.at_least` is the text "3", not a number
    "#);
    assert_snapshot!(about_rule("class = 'bulk'\njson = { path = '/a', at_most = inf }"), @r"11:33 error: `journal.class[0].json.at_most` is the fraction inf, not a number");
    assert_snapshot!(about_rule("class = 'bulk'\njson = { path = '/a' }"), @r"11:8 error: `journal.class[0].json` needs one of `at_least`, `at_most`, `equals`");
    assert_snapshot!(about_rule("class = 'bulk'\njson = { path = '/a', at_least = 1, at_most = 2 }"), @r"11:37 error: `journal.class[0].json` has 2 of `at_least`, `at_most`, `equals`, but takes exactly one");
    assert_snapshot!(about_rule("class = 'bulk'\n[[journal.class]]\nclass = 'alarm'\ntopic = 'a'"), @r"11:1 warning: this rule is never reached: one before it fits every reading");
    for rule in [
        "class = 'bulk'",
        "class = 'alarm'\ndevice = '*'\ntopic = '+/level'\ncontent_type = 'application/senml+json'",
        "class = 'normal'\njson = { path = '', equals = true }",
        "class = 'normal'\njson = { path = '/a~1b/0', equals = -1.5e3 }",
    ] {
        assert_eq!(about_rule(rule), "");
    }
}

#[test]
fn segments_are_whole_blocks() {
    assert_snapshot!(about_gateway(&format!("{LOCAL}[journal]\nsegment_bytes = 3000001")), @r"10:17 error: `journal.segment_bytes` is not a multiple of 4 KiB");
    assert_eq!(
        about_gateway(&format!("{LOCAL}[journal]\nsegment_bytes = '3 MiB'")),
        ""
    );
}

#[test]
fn nobody_writes_without_being_let_in_knowingly() {
    assert_snapshot!(about_gateway("[mqtt]"), @r"6:1 error: there is no `[[mqtt.device]]` and `mqtt.anonymous` is false: no device could connect");
    assert_snapshot!(about_gateway("[mqtt]\nanonymous = true"), @r"7:13 error: `mqtt.anonymous` is true and 0.0.0.0:1883 can be reached by others: anybody could write anything");
    assert_snapshot!(about_gateway("[mqtt]\nanonymous = true\nlisten = ['127.0.0.1:1', '[::]:1']"), @r"7:13 error: `mqtt.anonymous` is true and [::]:1 can be reached by others: anybody could write anything");
    assert_snapshot!(about_gateway("[mqtt]\nanonymous = true\n[mqtt.tls]\ncertificate = 'c'\nkey = 'k'"), @r"7:13 error: `mqtt.anonymous` is true and 0.0.0.0:8883 can be reached by others: anybody could write anything");
    assert_snapshot!(about_gateway("[mqtt]\nanonymous = true\ndangerous_anonymous = true"), @r"8:23 warning: `mqtt.dangerous_anonymous` is true: whoever reaches the port can write anything");
    assert_snapshot!(about_gateway(&format!("[mqtt]\ndangerous_anonymous = true\ndevice = [{DEVICE}]")), @r"7:23 warning: `mqtt.dangerous_anonymous` does nothing without `anonymous = true`");
    assert_eq!(
        about_gateway("[mqtt]\nanonymous = true\nlisten = ['127.0.0.1:1', '[::1]:1']"),
        ""
    );
    assert_snapshot!(about_gateway(&format!("[mqtt]\nlisten = []\ndevice = [{DEVICE}]")), @r"7:10 error: `mqtt.listen` is empty and there is no `[mqtt.tls]`, `[mqtt.psk]` or `[mqtt.websocket]`: no device could connect");
    assert_eq!(
        about_gateway(&format!(
            "[mqtt]\nlisten = []\ndevice = [{DEVICE}]\ntls = {{ certificate = 'c', key = 'k' }}"
        )),
        ""
    );
}

const DEVICE: &str = "{ name = 'd', password_hash = '$HASH' }";

#[test]
fn devices_differ() {
    let device = |line: &str| format!("[[mqtt.device]]\npassword_hash = '$HASH'\n{line}\n");
    let about = |one: &str, other: &str| about_gateway(&format!("[mqtt]\n{}{}", device(one), device(other)));
    assert_eq!(about("name = 'a'", "name = 'b'"), "");
    assert_snapshot!(about("name = 'a'", "name = 'a'"), @r#"12:8 error: `mqtt.device[1].name` is "a", the name of a device that is taken already"#);
    assert_snapshot!(about("name = 'a'", "name = 'b'\nusername = 'a'"), @r#"13:12 error: `mqtt.device[1].username` is "a", the user name of a device that is taken already"#);
    assert_snapshot!(about("name = 'a'\nusername = 'x'", "name = 'b'\nusername = 'x'"), @r#"14:12 error: `mqtt.device[1].username` is "x", the user name of a device that is taken already"#);
    assert_snapshot!(about("name = 'a'", "username = 'b'"), @r"10:1 error: `mqtt.device[1].name` is missing");
}

#[test]
fn devices_have_something_to_show_and_somebody_asks_for_it() {
    const TLS: &str = "tls = { certificate = 'c', key = 'k', client_ca = 'a' }\n";
    let about =
        |listener: &str, devices: &str| about_gateway(&format!("[mqtt]\n{listener}device = [{devices}]"));
    let psk = "{ name = 'd', psk = { identity = 'i', key = { env = 'K' } } }";
    let certificate = "{ name = 'c', certificate = { subject_cn = 'n' } }";
    assert_eq!(about("psk = {}\n", psk), "");
    assert_eq!(about(TLS, certificate), "");
    assert_snapshot!(about("", "{ name = 'd' }"), @r#"7:11 error: `mqtt.device[0]` has no `password_hash`, `certificate` or `psk`: it could not connect"#);
    assert_snapshot!(about("", psk), @r#"7:31 error: `mqtt.device[0].psk` is never asked for: there is no `[mqtt.psk]`"#);
    assert_snapshot!(about("", certificate), @r#"7:39 error: `mqtt.device[0].certificate` is never asked for: no listener has `client_ca`"#);
    assert_snapshot!(about("psk = {}\n", DEVICE), @r#"7:7 error: no `[[mqtt.device]]` has a `psk`: none could connect to `[mqtt.psk]`"#);
    assert_snapshot!(about(TLS, DEVICE), @r#"7:51 error: no `[[mqtt.device]]` has a `certificate`, but a listener takes only devices that have one"#);
    assert_snapshot!(about(TLS, &format!("{certificate}, {}", certificate.replace("'c'", "'e'"))), @r#"8:106 error: `mqtt.device[1].certificate.subject_cn` is "CN n", the certificate of a device that is taken already"#);
    assert_snapshot!(about("psk = {}\n", &format!("{psk}, {}", psk.replace("'d'", "'e'"))), @r#"8:107 error: `mqtt.device[1].psk.identity` is "i", the identity of a key that is taken already"#);
    assert_snapshot!(about("psk = {}\n", &psk.replace("{ env = 'K' }", "'00ff'")), @r#"8:55 error: `mqtt.device[0].psk.key` holds the secret itself, which must not stand in this file"#);
    assert_snapshot!(about(TLS, "{ name = 'c', certificate = { sha256 = '12' } }, { name = 'd', certificate = { san_dns = '*.x' } }"), @r#"
    8:50 error: `mqtt.device[0].certificate.sha256` is "12", which is not a SHA-256 in hexadecimal digits
    8:100 error: `mqtt.device[1].certificate.san_dns` is "*.x", which is not a DNS name
    "#);
    assert_snapshot!(about(TLS, "{ name = 'c', certificate = {} }"), @r#"8:39 error: `mqtt.device[0].certificate` needs one of `subject_cn`, `san_dns`, `sha256`"#);
    assert_snapshot!(about(TLS, "{ name = 'c', username = 'u', certificate = { subject_cn = 'n' } }"), @r#"8:36 error: `mqtt.device[0].username` goes with `password_hash`, which is not there"#);
}

#[test]
fn web_listeners_are_checked() {
    let about = |lines: &str| {
        about_gateway(&format!(
            "[mqtt]\nanonymous = true\nlisten = []\n[mqtt.websocket]\n{lines}"
        ))
    };
    assert_eq!(about("listen = ['127.0.0.1:1']"), "");
    assert_snapshot!(about(""), @r#"7:13 error: `mqtt.anonymous` is true and 0.0.0.0:8083 can be reached by others: anybody could write anything"#);
    assert_snapshot!(about("listen = []"), @r#"10:10 error: `mqtt.websocket.listen` is empty and there is no `[mqtt.websocket.tls]`: no device could connect"#);
    assert_snapshot!(about("tls = { certificate = 'c', key = 'k' }"), @r#"7:13 error: `mqtt.anonymous` is true and 0.0.0.0:8443 can be reached by others: anybody could write anything"#);
    assert_snapshot!(about("listen = ['127.0.0.1:1']\npath = 'mqtt'\norigins = ['panel.example', 'https://a/b']"), @r#"
    11:8 error: `mqtt.websocket.path` is "mqtt", which is not the path of a URL
    12:12 error: `mqtt.websocket.origins[0]` is "panel.example", which is not an origin
    12:29 error: `mqtt.websocket.origins[1]` is "https://a/b", which is not an origin
    "#);
    assert_snapshot!(about("listen = ['127.0.0.1:9464']\ntls = { certificate = 'c', key = 'k', listen = ['127.0.0.1:9464'] }"), @r#"11:49 error: `mqtt.websocket.tls.listen[0]` is 127.0.0.1:9464, which `mqtt.websocket.listen[0]` (127.0.0.1:9464) already takes"#);
}

#[test]
fn listeners_do_not_collide() {
    assert_snapshot!(about_gateway("[mqtt]\nanonymous = true\nlisten = ['127.0.0.1:9464']\n[metrics]"), @r"8:11 error: `metrics.listen` is 127.0.0.1:9464, which `mqtt.listen[0]` (127.0.0.1:9464) already takes");
    assert_snapshot!(about_gateway("[mqtt]\nanonymous = true\nlisten = ['127.0.0.1:1', '127.0.0.1:1']"), @r"8:26 error: `mqtt.listen[1]` is 127.0.0.1:1, which `mqtt.listen[0]` (127.0.0.1:1) already takes");
    let with_wildcard =
        "[mqtt]\nanonymous = true\ndangerous_anonymous = true\nlisten = ['0.0.0.0:1', '127.0.0.1:1']";
    assert_snapshot!(about_gateway(with_wildcard), @r"
    8:23 warning: `mqtt.dangerous_anonymous` is true: whoever reaches the port can write anything
    9:24 error: `mqtt.listen[1]` is 127.0.0.1:1, which `mqtt.listen[0]` (0.0.0.0:1) already takes
    ");
    assert_eq!(
        about_gateway(
            "[mqtt]\nanonymous = true\nlisten = ['127.0.0.1:0', '127.0.0.1:0', '[::1]:2', '127.0.0.1:2']"
        ),
        ""
    );
}

#[test]
fn uplinks_have_one_way_each() {
    let about = |lines: &str| {
        complaints(&format!(
            "{IDENTITY}{LOCAL}[[uplink]]\nname = 'u'\ncollector = '$COLLECTOR'\n{lines}"
        ))
    };
    let relay = "{ address = 'r:1', identifier = '$RELAY' }";
    assert_eq!(about(&format!("via = 'c'\nrelay = {relay}")), "");
    assert_eq!(about(&format!("via = 'c'\nrelays = [{relay}]")), "");
    assert_snapshot!(about("via = 'c'"), @r"
    5:1 error: `uplink[0]` needs one of `relay`, `relays`, `direct`
    8:7 error: `uplink[0].via` goes with `relay` or `relays`, which is not there
    ");
    assert_snapshot!(about(&format!("relay = {relay}")), @r"5:1 error: `uplink[0].via` is missing");
    assert_snapshot!(about(&format!("via = 'c'\nrelay = {relay}\nrelays = [{relay}]")), @r"10:1 error: `uplink[0]` has 2 of `relay`, `relays`, `direct`, but takes exactly one");
    assert_snapshot!(about("via = 'c'\ndirect = { address = 'c:1' }"), @r"8:7 error: `uplink[0].via` goes with `relay` or `relays`, which is not there");
    assert_snapshot!(about("via = 'c'\nrelays = []"), @r"9:10 error: `uplink[0].relays` has 0 tables, outside 1..=8");
    assert_snapshot!(about(&format!("via = 'c'\nrelays = [{relay}, {relay}]")), @r#"9:122 error: `uplink[0].relays[1].address` is "r:1", an address that is taken already"#);
    assert_snapshot!(about(&format!("direct = {{ address = 'c:1' }}\n{UPLINK}")), @r#"
    10:8 error: `uplink[1].name` is "u", a name that is taken already
    11:13 error: `uplink[1].collector` is "fg1yyqndwc2q82mdq8h26sywqg9wvqrthy7l6p5kwcfrtzkz4tux94qy47c2a", a collector that is taken already
    "#);
}

#[test]
fn a_relay_has_a_listener_and_members_with_rights() {
    assert_snapshot!(complaints(&format!("{IDENTITY}[relay]")), @r"
    2:1 error: `relay` needs `[link.tcp]`: no member could connect
    2:1 warning: `relay` has no `[[relay.member]]`, and there is no `[trust]`: it serves nobody
    ");
    let member = |lines: &str| format!("[[relay.member]]\n{lines}\n");
    assert_snapshot!(about_relay(&member("name = 'm'\nidentifier = '$GATEWAY'")), @r"4:1 warning: `relay.member[0]` may neither hold nor reach a name: it cannot do anything");
    let collector = member("name = 'c'\nidentifier = '$COLLECTOR'\nhold = ['collector-1']");
    let slip = member("name = 'g'\nidentifier = '$GATEWAY'\nreach = ['colector-1', 'other']");
    assert_snapshot!(about_relay(&format!("{collector}{slip}")), @r#"
    11:10 warning: `relay.member[1].reach[0]` is "colector-1", which no member may hold
    11:24 warning: `relay.member[1].reach[1]` is "other", which no member may hold
    "#);
    let again = member("name = 'c'\nidentifier = '$COLLECTOR'\nhold = ['a', 'a']");
    assert_snapshot!(about_relay(&format!("{collector}{again}")), @r#"
    9:8 error: `relay.member[1].name` is "c", a name that is taken already
    10:14 error: `relay.member[1].identifier` is "fg1yyqndwc2q82mdq8h26sywqg9wvqrthy7l6p5kwcfrtzkz4tux94qy47c2a", an identifier that is taken already
    11:14 error: `relay.member[1].hold[1]` is "a", a name that is taken already
    "#);
    let plants =
        member("name = 'p'\nidentifier = '$RELAY'\nhold = ['plant-*']\nreach = ['plant-7', 'pla*', 'x*']");
    assert_snapshot!(about_relay(&plants), @r#"8:29 warning: `relay.member[0].reach[2]` is "x*", which no member may hold"#);
    let held = "[[relay.member]]\nname = 'm'\nidentifier = '$GATEWAY'\nhold = ['a']\n";
    assert_snapshot!(about_relay(&format!("queue_bytes_max = '2 MiB'\nheld_bytes_max = '1 MiB'\n{held}")), @r"5:18 error: `relay.held_bytes_max`, for all links, is less than `relay.queue_bytes_max`, for one");
    assert_snapshot!(about_relay(&format!("queue_bytes_max = '128 MiB'\n{held}")), @r"4:19 error: `relay.held_bytes_max`, for all links, is less than `relay.queue_bytes_max`, for one");
    let many: Vec<String> = (0..17).map(|n| format!("'n{n}'")).collect();
    assert_snapshot!(about_relay(&member(&format!("name = 'm'\nidentifier = '$GATEWAY'\nhold = [{}]", many.join(",")))), @r"7:8 error: `relay.member[0].hold` has 17 entries, outside 0..=16");
}

#[test]
fn a_cluster_names_each_relay_and_server_once_and_one_way_to_log_in() {
    let member = "[[relay.member]]\nname = 'g'\nidentifier = '$GATEWAY'\nreach = ['elsewhere']\n";
    let cluster = |relays: &str, more: &str| {
        let relay = "{ address = 'a:1', identifier = '$RELAY' }";
        about_relay(&format!(
            "{member}[relay.cluster]\nrelays = [{relay}{relays}]\n{more}\n"
        ))
    };
    let servers = "servers = ['127.0.0.1:4222']";
    assert_eq!(
        cluster("", servers),
        "",
        "the name may be held at the other relay"
    );
    assert_snapshot!(cluster("", ""), @"8:1 error: `relay.cluster.servers` is missing");
    assert_snapshot!(cluster(", { address = 'A:1', identifier = '$RELAY' }", "servers = ['n:1', 'n:1']"), @r#"
    9:122 error: `relay.cluster.relays[1].address` is "a:1", an address that is taken already
    9:142 error: `relay.cluster.relays[1].identifier` is "fg1wrwssj5734a52879dr84mn8t0azmvgd87tt7revw5r6ry9zthgdserc5lc", an identifier that is taken already
    10:19 error: `relay.cluster.servers[1]` is "n:1", an address that is taken already
    "#);
    assert_snapshot!(cluster("", &format!("{servers}\ntoken = {{ env = 'T' }}\nusername = 'u'")), @"11:1 error: `relay.cluster` has 2 of `username`, `token`, `credentials`, but takes at most one");
    assert_snapshot!(cluster("", "servers = ['n:1']\ntoken = { env = 'T' }\npassword = { env = 'P' }"), @r"
    10:11 warning: `relay.cluster.servers` names other machines: the password goes there unencrypted
    12:12 error: `relay.cluster.password` goes with `username`, which is not there
    ");
    assert_snapshot!(cluster("", &format!("{servers}\nlease_secs = 4\nbucket = 'a.b'")), @r#"
    11:14 error: `relay.cluster.lease_secs` is 4, outside 5..=600
    12:10 error: `relay.cluster.bucket` is "a.b", which is not the name of a stream
    "#);
    assert_snapshot!(cluster("", &format!("{servers}\n[relay.cluster.tls]\ncertificate = 'c.pem'")), @"12:15 error: `relay.cluster.tls.certificate` needs `key`");
}

#[test]
fn processes_of_one_authority_need_servers_and_a_shared_secret() {
    let cluster = |more: &str| {
        complaints(&format!(
            "{IDENTITY}[link.tcp]\n[authority]\n[authority.cluster]\n{more}\n"
        ))
    };
    let good = "servers = ['127.0.0.1:4222']\nkey = { file = 'cluster.key' }";
    assert_eq!(cluster(good), "");
    assert_snapshot!(cluster(""), @r"
    4:1 error: `authority.cluster.servers` is missing
    4:1 error: `authority.cluster.key` is missing
    ");
    assert_snapshot!(cluster(&format!("{good}\nentries_max = 10\nstream = 'a.b'\nreplicas = 0")), @r#"
    7:15 error: `authority.cluster.entries_max` is 10, outside 1000..=1000000000
    8:10 error: `authority.cluster.stream` is "a.b", which is not the name of a stream
    9:12 error: `authority.cluster.replicas` is 0, outside 1..=5
    "#);
    assert_snapshot!(cluster("servers = ['n:1', 'N:1']\nkey = { env = 'K' }\ntoken = { env = 'T' }"), @r#"
    5:11 warning: `authority.cluster.servers` names other machines: the password goes there unencrypted
    5:19 error: `authority.cluster.servers[1]` is "n:1", an address that is taken already
    "#);
    assert_snapshot!(cluster(&format!("{good}\n[authority.cluster.tls]\ncertificate = 'c.pem'")), @"8:15 error: `authority.cluster.tls.certificate` needs `key`");
}

#[test]
fn relays_in_a_row_are_named_once_and_dialled_once() {
    let neighbour =
        |lines: &str| format!("[[relay.neighbour]]\nname = 'north'\nidentifier = '$RELAY'\n{lines}\n");
    let member = "[[relay.member]]\nname = 'g'\nidentifier = '$GATEWAY'\nhold = ['g']\nreach = ['north']\n";
    let north = neighbour("address = 'n:1'\nregister = ['south']\nreach = ['g']");
    assert_eq!(about_relay(&format!("{member}{north}")), "");
    assert_eq!(about_relay(&neighbour("address = 'n:1'")), "");
    assert_snapshot!(about_relay(&format!("{member}{}", neighbour("address = 'n:1'\nreach = ['h']\nregister = ['a', 'a']"))), @r#"
    13:10 warning: `relay.neighbour[0].reach[0]` is "h", which no member may hold
    14:18 error: `relay.neighbour[0].register[1]` is "a", a name that is taken already
    "#);
    assert_snapshot!(about_relay(&format!("{member}{north}{}", neighbour("address = 'N:1'"))), @r#"18:11 error: `relay.neighbour[1].address` is "n:1", an address that is taken already"#);
    let uplink = |through: &str| {
        complaints(&format!(
            "{IDENTITY}{LOCAL}[[uplink]]\nname = 'u'\ncollector = '$COLLECTOR'\nvia = 'c'\n\
             relays = [{{ address = 'r:1', identifier = '$RELAY' }}, {{ address = 'r:1', identifier = '$RELAY', through = {through} }}]\n"
        ))
    };
    assert_eq!(uplink("['north', 'west']"), "");
    assert_snapshot!(uplink("['north', 'north', 'c']"), @r#"
    9:227 error: `uplink[0].relays[1].through[1]` is "north", a name that is taken already
    9:236 error: `uplink[0].relays[1].through[2]` is "c", which is `via`
    "#);
    assert_eq!(
        uplink("['north', 'west'], through_identifiers = ['$GATEWAY', '$OTHER']"),
        ""
    );
    assert_snapshot!(uplink("['north', 'west'], through_identifiers = ['$GATEWAY']"), @"9:258 error: `uplink[0].relays[1].through_identifiers` has 1 entries, and `through` has 2");
    assert_snapshot!(uplink("['north', 'west'], through_identifiers = ['$GATEWAY', '$RELAY']"), @r#"9:324 error: `uplink[0].relays[1].through_identifiers[1]` is "fg1wrwssj5734a52879dr84mn8t0azmvgd87tt7revw5r6ry9zthgdserc5lc", an identifier that is taken already"#);
    assert_snapshot!(uplink("[]"), @r#"9:122 error: `uplink[0].relays[1].address` is "r:1", an address that is taken already"#);
    assert_snapshot!(uplink("['1', '2', '3', '4', '5', '6', '7']"), @"9:217 error: `uplink[0].relays[1].through` has 7 entries, outside 0..=6");
}

#[test]
fn a_collector_is_reachable_and_has_a_sink() {
    assert_snapshot!(complaints(&format!("{IDENTITY}[collector]")), @r"
    2:1 error: `collector` has neither `register` nor `[link.tcp]`: no gateway could reach it
    2:1 error: `collector` has no `[[collector.sink]]`: readings would go nowhere
    2:1 warning: `collector` has no `[[collector.gateway]]`, and there is no `[trust]`: it serves nobody
    ");
    assert_snapshot!(about_collector("[[collector.sink]]\nkind = 'null'"), @r"5:1 warning: `collector.sink[0]` throws readings away and confirms them");
    let file = "[[collector.sink]]\nkind = 'file'\npath = 'f'\n";
    assert_snapshot!(about_collector(&format!("{file}{file}")), @r#"
    9:8 error: `collector.sink[1].kind` is "file", the name of a sink that is taken already
    10:8 error: `collector.sink[1].path` is "/etc/fieldgate/f", a file that is taken already
    "#);
    let broker = "[[collector.sink]]\nkind = 'mqtt'\naddress = 'localhost:1883'\n";
    assert_snapshot!(about_collector(&format!("{broker}name = 'a'\n{broker}name = 'b'")), @r#"11:11 error: `collector.sink[1].address` is "fieldgate-hall-3 at localhost:1883", a client of this broker that is taken already"#);
    assert_eq!(
        about_collector(&format!(
            "{broker}name = 'a'\n{broker}name = 'b'\nclient_id = 'other'"
        )),
        ""
    );
    assert_snapshot!(about_collector(&format!("{broker}password = {{ env = 'P' }}")), @r"8:12 error: `collector.sink[0].password` needs `username`");
    let commands = format!("{broker}commands = true\ncommand_topic = 'a/b'\nresult_topic = ");
    assert_snapshot!(about_collector(&format!("{commands}'a/b/c'")), @r"10:16 error: `collector.sink[0].result_topic` lies in `collector.sink[0].command_topic`");
    assert_eq!(about_collector(&format!("{commands}'a/bc'")), "");
    assert_snapshot!(about_collector(&format!("{commands}'a/#'")), @r#"10:16 error: `collector.sink[0].result_topic` is "a/#", which has a control character, + or #"#);
    let remote = "[[collector.sink]]\nkind = 'mqtt'\naddress = 'broker:1883'\nusername = 'u'\npassword = { env = 'P' }";
    assert_snapshot!(about_collector(remote), @r"7:11 warning: `collector.sink[0].address` is another machine: the password and all readings go there unencrypted");
    let register = "register = [{ relay = { address = 'r:1', identifier = '$RELAY' }, name = 'c' }, { relay = { address = 'R:1', identifier = '$RELAY' }, name = 'c' }]\n";
    assert_snapshot!(about_collector(&format!("{register}{file}")), @r#"5:252 error: `collector.register[1].name` is "c at r:1", a registration that is taken already"#);
    let twins = "[[collector.gateway]]\nname = 'g'\nidentifier = '$GATEWAY'\n";
    assert_snapshot!(complaints(&format!("{IDENTITY}[link.tcp]\n[collector]\n{twins}{twins}{file}")), @r#"
    8:8 error: `collector.gateway[1].name` is "g", a name that is taken already
    9:14 error: `collector.gateway[1].identifier` is "fg1d582kw6m4ndcxy0lgpxzg9464jwwsrrw5xgcxgq5fshccu9qqqvqymxy6r", an identifier that is taken already
    "#);
    let shared = format!(
        "{IDENTITY}{UPLINK}{LOCAL}[link.tcp]\n[collector]\nstate_dir = '/var/lib/fieldgate/journal'\n{twins}{file}"
    );
    assert_snapshot!(complaints(&shared), @r"11:13 error: `collector.state_dir` is the directory of the journal");
}

#[test]
fn settings_hold_what_the_file_says() {
    let settings = load(include_str!("every_key.toml")).settings.expect("no errors");
    assert_snapshot!(format!("{:?}", settings.node), @r#"Node { name: "everything", state_dir: "/srv/fieldgate", io: Epoll, shards: Some(4), control_socket: "/run/everything.sock" }"#);
    assert_snapshot!(format!("{:?} {:?}", settings.log, settings.metrics), @r"Log { level: Debug, format: Json } Some(Metrics { listen: [::1]:9465 })");
    assert_snapshot!(format!("{:?}", settings.identity), @r#"Pkcs11 { module: "/usr/lib/softhsm/libsofthsm2.so", uri: "pkcs11:token=fieldgate;object=everything", pin: Credential("fieldgate-pin") }"#);
    assert_snapshot!(format!("{:?}", settings.journal), @r#"Some(Journal { dir: "/srv/journal", bytes_max: 21474836480, lanes: [JournalLane { bytes_max: 1073741824, segment_bytes: 1048576, ttl: Some(86400s), when_full: DropOldest }, JournalLane { bytes_max: 15032385536, segment_bytes: 2097152, ttl: Some(604800s), when_full: Refuse }, JournalLane { bytes_max: 5368709120, segment_bytes: 1048576, ttl: Some(3600s), when_full: Refuse }], classes: [ClassRule { class: Alarm, device: Some("pump-*"), topic: Some("+/level"), content_type: Some("application/json"), json: Some(JsonTest { path: "/level", condition: AtLeast(Number(3.0)) }) }, ClassRule { class: Bulk, device: None, topic: None, content_type: None, json: Some(JsonTest { path: "/noise", condition: AtMost(Number(-0.5)) }) }, ClassRule { class: Normal, device: None, topic: None, content_type: None, json: Some(JsonTest { path: "/state", condition: Equals(Text("idle")) }) }], key: Some(Secret(Credential("journal-key"))), commit_delay: 3ms, tail_bytes_max: 1048576, durable: false })"#);
    let mqtt = settings.mqtt.expect("a listener");
    assert_snapshot!(format!("{mqtt:?}"), @r#"Mqtt { listen: [127.0.0.1:1883, [::1]:1883], tls: Some(MqttTls { listen: [127.0.0.1:8884], certificate: "/etc/fieldgate/tls.pem", key: "/etc/fieldgate/tls.key", clients: Some(ClientCertificates { ca: "/etc/fieldgate/ca.pem", auth: Optional, crl: Some("/etc/fieldgate/ca.crl") }) }), psk: Some(MqttPsk { listen: [127.0.0.1:8885] }), websocket: Some(MqttWebSocket { listen: [127.0.0.1:8084], tls: Some(MqttTls { listen: [127.0.0.1:8444], certificate: "/etc/fieldgate/tls.pem", key: "/etc/fieldgate/tls.key", clients: Some(ClientCertificates { ca: "/etc/fieldgate/ca.pem", auth: Optional, crl: Some("/etc/fieldgate/ca.crl") }) }), path: "/ws", origins: Some(["https://panel.example.net"]) }), anonymous: true, latency: 0ns, clients_max: 1, packet_bytes_max: 1024, receive_max: 1, keep_alive_max: 255s, connect_timeout: 1s, alarm_topics: ["+/alarm/#"], command_topic: TopicTemplate { parts: [Literal("to/"), Variable(Device), Literal("/"), Variable(Resource)] }, local_topics: ["hall/#"], sessions_max: 5, session_expiry_max: 0ns, subscriptions_max: 2, queue_messages_max: 3, queue_bytes_max: 65536, slow_consumer: Drop, retained_max: 0, retained_bytes_max: 1048576, connects_per_second_max: 0, devices: [Device { name: "pump-7", username: "pump", password_hash: Some(PasswordHash(…)), certificate: Some(SubjectCn("pump-7")), psk: Some(DevicePsk { identity: "pump-7", key: File("/etc/fieldgate/pump-7.psk") }), publish: ["pump/+/out", "common"], subscribe: ["pump-7/in/#"] }, Device { name: "pump-8", username: "pump-8", password_hash: None, certificate: Some(SanDns("pump-8.example")), psk: None, publish: ["pump-8/#"], subscribe: ["pump-8/#"] }, Device { name: "pump-9", username: "pump-9", password_hash: None, certificate: Some(Sha256([0, 17, 34, 51, 68, 85, 102, 119, 136, 153, 170, 187, 204, 221, 238, 255, 0, 17, 34, 51, 68, 85, 102, 119, 136, 153, 170, 187, 204, 221, 238, 255])), psk: None, publish: ["pump-9/#"], subscribe: ["pump-9/#"] }] }"#);
    assert_eq!(
        mqtt.devices
            .first()
            .and_then(|device| device.password_hash.as_ref())
            .map(|hash| hash.as_str()),
        Some(crate::HASH)
    );
    let [a, b, c] = settings.uplinks.as_slice() else {
        panic!("three uplinks")
    };
    assert_snapshot!(format!("{a:?}"), @r#"Uplink { name: "a", collector: fg1yyqndwc2q82mdq8h26sywqg9wvqrthy7l6p5kwcfrtzkz4tux94qy47c2a, path: Relays { via: "collector-1", relays: [RelayWay { relay: RelayAddress { address: Tcp(HostPort { host: "relay.example.net", port: 4433 }), also: [], identifier: fg1wrwssj5734a52879dr84mn8t0azmvgd87tt7revw5r6ry9zthgdserc5lc }, through: [], through_identifiers: [] }] }, pq: Preferred, padding: true, live_proof: true, direct_path: true, commands: true, latency: 2ms, verifiable: false }"#);
    assert_snapshot!(format!("{b:?}"), @r#"Uplink { name: "b", collector: fg1xr2mk6wxjjy9cc6d7lugvmrgnwqrhxy0qt0ljyqr7pu02n2fhc7qmqahhc, path: Relays { via: "collector-2", relays: [RelayWay { relay: RelayAddress { address: Tcp(HostPort { host: "10.0.0.1", port: 4433 }), also: [], identifier: fg1wrwssj5734a52879dr84mn8t0azmvgd87tt7revw5r6ry9zthgdserc5lc }, through: [], through_identifiers: [] }, RelayWay { relay: RelayAddress { address: Tcp(HostPort { host: "fd00::1", port: 4433 }), also: [], identifier: fg1wrwssj5734a52879dr84mn8t0azmvgd87tt7revw5r6ry9zthgdserc5lc }, through: ["north", "west"], through_identifiers: [fg1d582kw6m4ndcxy0lgpxzg9464jwwsrrw5xgcxgq5fshccu9qqqvqymxy6r, fg1xr2mk6wxjjy9cc6d7lugvmrgnwqrhxy0qt0ljyqr7pu02n2fhc7qmqahhc] }] }, pq: Off, padding: false, live_proof: false, direct_path: false, commands: false, latency: 1ms, verifiable: true }"#);
    assert_snapshot!(format!("{c:?}"), @r#"Uplink { name: "c", collector: fg1d582kw6m4ndcxy0lgpxzg9464jwwsrrw5xgcxgq5fshccu9qqqvqymxy6r, path: Direct { address: Tcp(HostPort { host: "10.0.0.3", port: 4433 }), also: [WebSocket(WebSocketAddress { is_tls: true, address: HostPort { host: "collector.example.net", port: 443 }, path: "/links" })] }, pq: Required, padding: false, live_proof: false, direct_path: false, commands: false, latency: 1ms, verifiable: true }"#);
    assert_snapshot!(format!("{:?} {:?}", settings.link_tcp, settings.relay), @r#"Some(LinkTcp { listen: [127.0.0.1:4434] }) Some(Relay { pq: Preferred, links_max: 10, links_per_member_max: 2, labels_max: 4096, queue_bytes_max: 139264, held_bytes_max: 1048576, drain: 0ns, open: ["authority"], guests_max: 1, members: [RelayMember { name: "c", identifier: fg1yyqndwc2q82mdq8h26sywqg9wvqrthy7l6p5kwcfrtzkz4tux94qy47c2a, hold: [Exact("collector-1"), Prefix("plant-")], reach: [Exact("collector-1"), Prefix("plant-")] }], cluster: Some(RelayCluster { relays: [RelayAddress { address: Tcp(HostPort { host: "a.example.net", port: 4433 }), also: [], identifier: fg1d582kw6m4ndcxy0lgpxzg9464jwwsrrw5xgcxgq5fshccu9qqqvqymxy6r }, RelayAddress { address: Tcp(HostPort { host: "b.example.net", port: 4433 }), also: [], identifier: fg1xr2mk6wxjjy9cc6d7lugvmrgnwqrhxy0qt0ljyqr7pu02n2fhc7qmqahhc }], store: NatsBucket { servers: [HostPort { host: "nats-1.example.net", port: 4222 }, HostPort { host: "nats-2.example.net", port: 4222 }], tls: Some(SinkTls { ca: Some("/etc/fieldgate/nats-ca.pem"), own: Some(("/etc/fieldgate/nats.pem", "/etc/fieldgate/nats.key")) }), auth: Login(Login { username: "relay", password: Some(Credential("nats")) }), bucket: "north", replicas: 5 }, lease: 5s, grace: 0ns, names_per_relay_max: 1, names_max: 4194304 }), neighbours: [RelayNeighbour { name: "north", relay: RelayAddress { address: Tcp(HostPort { host: "north.example.net", port: 4433 }), also: [WebSocket(WebSocketAddress { is_tls: true, address: HostPort { host: "north.example.net", port: 443 }, path: "/" })], identifier: fg1xr2mk6wxjjy9cc6d7lugvmrgnwqrhxy0qt0ljyqr7pu02n2fhc7qmqahhc }, register: ["south"], reach: [Prefix("plant-")] }] })"#);
    let collector = settings.collector.expect("a collector");
    assert_eq!(collector.state_dir, std::path::Path::new("/srv/collector"));
    assert_snapshot!(format!("{:?}", collector.ledger), @r#"Some(Ledger { dir: "/srv/ledger", bytes_max: 2147483648 })"#);
    let shown: Vec<String> = collector.sinks.iter().map(|sink| format!("{sink:?}")).collect();
    let [mqtt, nats, _, _, http, _, _, file, null] = shown.as_slice() else {
        panic!("nine sinks")
    };
    assert_snapshot!(mqtt, @r#"Sink { name: "broker", kind: Mqtt(MqttSink { address: HostPort { host: "localhost", port: 1883 }, tls: Some(SinkTls { ca: Some("/etc/fieldgate/broker-ca.pem"), own: Some(("/etc/fieldgate/collector.pem", "/etc/fieldgate/collector.key")) }), client_id: "collector", login: Some(Login { username: "fieldgate", password: Some(Environment("BROKER_PASSWORD")) }), version: V311, inflight_max: 20, on_rejected: SetAside, commands: Some(BrokerCommands { command_topic: "plant/command", result_topic: "plant/result" }) }), output: Output { topic: TopicTemplate { parts: [Literal("plant/"), Variable(Gateway), Literal("/"), Variable(Device), Literal("/"), Variable(Resource)] }, renames: [Rename { from: TopicPattern { levels: [Literal("line"), One(Some("line")), Rest(Some("rest"))] }, to: TopicTemplate { parts: [Literal("plant/"), Capture("line", 0), Literal("/"), Capture("rest", 1)] } }], format: Json, fields: [Id, Topic, Payload], set: {"site": "north"} } }"#);
    assert_snapshot!(nats, @r#"Sink { name: "nats", kind: Nats(NatsSink { address: HostPort { host: "nats.example.net", port: 4222 }, tls: Some(SinkTls { ca: None, own: None }), auth: Credentials(Credential("nats-creds")), stream: "READINGS", create: Some(StreamCreate { replicas: 3, duplicate_window: 600s, bytes_max: Some(10737418240), age_max: Some(86400s) }), inflight_max: 1000, on_rejected: Stop }), output: Output { topic: TopicTemplate { parts: [Literal("fieldgate/"), Variable(Gateway), Literal("/"), Variable(Path)] }, renames: [], format: Raw, fields: [Id, Gateway, Device, Resource, Class, CapturedAt, TimeQuality, ContentType, Properties, Payload], set: {} } }"#);
    assert_snapshot!(http, @r#"Sink { name: "http", kind: Http(HttpSink { url: HttpUrl { is_https: true, address: HostPort { host: "ingest.example.net", port: 443 }, target: "/readings", authority: "ingest.example.net" }, tls: SinkTls { ca: None, own: None }, token: Some(File("/etc/fieldgate/token")), batch_count: 100, batch_bytes: 65536, linger: 0ns, timeout: 5s, gzip: true, on_rejected: Stop }), output: Output { topic: TopicTemplate { parts: [Variable(Gateway), Literal("/"), Variable(Path)] }, renames: [], format: CloudEvents, fields: [Id, Gateway, Device, Resource, Class, CapturedAt, TimeQuality, ContentType, Properties, Payload], set: {} } }"#);
    assert_snapshot!(file, @r#"Sink { name: "file", kind: File(FileSink { path: "/srv/readings.cbor", rotate_bytes: Some(67108864), rotate_after: Some(3600s), keep_files: Some(48) }), output: Output { topic: TopicTemplate { parts: [Variable(Gateway), Literal("/"), Variable(Path)] }, renames: [], format: Cbor, fields: [Id, Gateway, Device, Resource, Class, CapturedAt, TimeQuality, ContentType, Properties, Payload], set: {} } }"#);
    assert_snapshot!(null, @r#"Sink { name: "null", kind: Null, output: Output { topic: TopicTemplate { parts: [Variable(Gateway), Literal("/"), Variable(Path)] }, renames: [], format: Json, fields: [Id, Gateway, Device, Resource, Class, CapturedAt, TimeQuality, ContentType, Properties, Payload], set: {} } }"#);
}

#[test]
fn what_a_sink_says_goes_together() {
    let file = "[[collector.sink]]\nkind = 'file'\npath = 'f'\n";
    let nats = "[[collector.sink]]\nkind = 'nats'\naddress = 'localhost:4222'\nstream = 's'\n";
    let http = "[[collector.sink]]\nkind = 'http'\nurl = 'http://localhost/'\n";
    let mqtt = "[[collector.sink]]\nkind = 'mqtt'\naddress = 'localhost:1883'\n";
    assert_snapshot!(about_collector(&format!("{file}format = 'raw'")), @r#"8:10 error: `collector.sink[0].format` is "raw", in which one payload runs into the next"#);
    assert_snapshot!(about_collector(&format!("{file}keep_files = 3")), @r"8:14 error: `collector.sink[0].keep_files` needs `rotate_bytes` or `rotate_secs`");
    assert_snapshot!(about_collector("[[collector.sink]]\nkind = 'file'\npath = '-'\nrotate_secs = 9"), @r"7:8 error: `collector.sink[0].path` is standard output, which does not rotate");
    assert_snapshot!(about_collector(&format!("{file}url = 'http://h/'")), @r#"8:7 error: `collector.sink[0].url` goes with `kind = "http"`, not with "file""#);
    assert_snapshot!(about_collector(&format!("{nats}topic = '{{gateway}}/{{path}}'")), @r#"9:9 error: `collector.sink[0].topic` is "{gateway}/{path}", whose first level is not fixed or no token of a NATS subject"#);
    assert_snapshot!(about_collector(&format!("{nats}topic = '$JS/{{path}}'")), @r#"9:9 error: `collector.sink[0].topic` is "$JS/{path}", whose first level is not fixed or no token of a NATS subject"#);
    assert_snapshot!(about_collector(&format!("{nats}token = {{ env = 'T' }}\ncredentials = {{ env = 'C' }}")), @r"5:1 error: `collector.sink[0]` has more than one of `username`, `token` and `credentials`");
    assert_snapshot!(about_collector(&format!("{nats}rename = [{{ from = 'a/{{x}}', to = 'a/{{y}}' }}]")), @r"9:34 error: `collector.sink[0].rename[0].to` uses `{y}`, which does not exist");
    assert_snapshot!(about_collector(&format!("{http}tls = {{ ca = 'c' }}")), @r"7:7 error: `collector.sink[0].url` is not `https://`, but `tls` is there");
    assert_snapshot!(about_collector(&format!("{}token = {{ env = 'T' }}", http.replace("localhost", "h"))), @r"7:7 warning: `collector.sink[0].url` is another machine: the token and all readings go there unencrypted");
    assert_snapshot!(about_collector(&format!("{http}format = 'cloudevents'\nfields = ['payload']")), @r#"9:10 error: `collector.sink[0].fields` goes with `format` "json" or "cbor" only"#);
    assert_snapshot!(about_collector(&format!("{http}format = 'cloudevents'\nset = {{ Site = 'n', id = 'x' }}")), @r"
    9:7 error: `collector.sink[0].set` has `Site`, which has a meaning or form of its own here
    9:7 error: `collector.sink[0].set` has `id`, which has a meaning or form of its own here
    ");
    assert_snapshot!(about_collector(&format!("{http}set = {{ payload = 'x', site = 'n' }}")), @r"8:7 error: `collector.sink[0].set` has `payload`, which has a meaning or form of its own here");
    assert_snapshot!(about_collector(&format!("{mqtt}protocol = '3.1.1'")), @r"8:12 warning: `collector.sink[0].protocol` has no place for the id of a raw reading");
    assert_snapshot!(about_collector(&format!("{mqtt}tls = {{ certificate = 'c' }}")), @r"8:23 error: `collector.sink[0].tls.certificate` needs `key`");
    assert_snapshot!(about_collector(&format!("{mqtt}topic = '{{divice}}'")), @r#"8:9 error: `collector.sink[0].topic` is "{divice}", which uses `{divice}`, which does not exist"#);
    assert_snapshot!(about_collector("[[collector.sink]]\nkind = 'http'\nurl = 'https://u:Gehe1m@h/'"), @r"7:7 error: `collector.sink[0].url` holds a user name or password");
}

/// Complaints about a node with outlets, which are reachable over a link; `more` follows the header of one.
fn about_outlet(more: &str) -> String {
    complaints(&format!(
        "{IDENTITY}[link.tcp]\n[[portal.outlet]]\nname = 'o'\naddress = 'plc:502'\n{more}"
    ))
}

/// Complaints about a node with an inlet; `more` follows its keys.
fn about_inlet(more: &str) -> String {
    complaints(&format!("{IDENTITY}{INLET}{more}"))
}

const INLET: &str = "[[portal.inlet]]\nname = 'i'\nlisten = '127.0.0.1:0'\nnode = '$GATEWAY'\noutlet = 'o'\ndirect = { address = 'g:1' }\n";

#[test]
fn portals_have_two_ends() {
    assert_eq!(about_inlet(""), "");
    assert_eq!(about_outlet("allow = ['$OTHER']"), "");
    assert_snapshot!(complaints(&format!("{IDENTITY}[portal]")), @r"2:1 error: `portal` has neither `[[portal.inlet]]` nor `[[portal.outlet]]`");
    assert_snapshot!(complaints(&format!("{IDENTITY}[[portal.outlet]]\nname = 'o'\naddress = 'plc:502'\nallow = ['$OTHER']")), @r"2:3 error: `portal` has outlets, but neither `register` nor `[link.tcp]`: no inlet could reach them");
    assert_snapshot!(about_outlet("allow = []"), @r"3:1 warning: an outlet without `allow`, and there is no `[trust]`: nobody may open streams to it");
    assert_eq!(about_outlet("[trust]"), "");
    assert_snapshot!(about_outlet("allow = ['$OTHER', '$OTHER']"), @r#"6:75 error: `portal.outlet[0].allow[1]` is "fg1xr2mk6wxjjy9cc6d7lugvmrgnwqrhxy0qt0ljyqr7pu02n2fhc7qmqahhc", an identifier that is taken already"#);
    assert_snapshot!(complaints(&format!("{IDENTITY}[portal]\nregister = [{{ relay = {{ address = 'r:1', identifier = '$RELAY' }}, name = 'g' }}]\n{INLET}")), @r"3:12 warning: `portal.register` is not used: there is no `[[portal.outlet]]` that anybody would look for");
    assert_snapshot!(complaints(&format!("{IDENTITY}{INLET}[link.tcp]")), @r"8:1 warning: `link.tcp` listens, but nothing in this file answers there");
}

#[test]
fn inlets_let_in_whom_they_name() {
    assert_snapshot!(about_inlet("allow = []"), @r"8:9 warning: `portal.inlet[0].allow` has no network whose addresses could reach 127.0.0.1:0: nobody gets in");
    assert_snapshot!(about_inlet("allow = ['fd00::/8']"), @r"8:9 warning: `portal.inlet[0].allow` has no network whose addresses could reach 127.0.0.1:0: nobody gets in");
    assert_snapshot!(about_inlet("allow = ['10.0.0.1/8', '10.0.0.0/33', 'hall']"), @r#"
    8:10 error: `portal.inlet[0].allow[0]` is "10.0.0.1/8", which has bits behind its prefix
    8:24 error: `portal.inlet[0].allow[1]` is "10.0.0.0/33", which has a prefix length outside 0..=32
    8:39 error: `portal.inlet[0].allow[2]` is "hall", which does not begin with an IP address
    "#);
    let everywhere = INLET.replace("127.0.0.1:0", "0.0.0.0:1");
    assert_snapshot!(complaints(&format!("{IDENTITY}{everywhere}")), @r"4:10 warning: `portal.inlet[0].listen` is 0.0.0.0:1, but without `allow` only this machine itself gets in");
    assert_eq!(
        complaints(&format!("{IDENTITY}{everywhere}allow = ['10.0.0.0/8']")),
        ""
    );
    let portal = load(&format!("{IDENTITY}{INLET}"))
        .settings
        .and_then(|settings| settings.portal);
    let allow = &portal.expect("no errors").inlets[0].allow;
    let lets_in = |address: &str| {
        let address = address.parse().expect(address);
        allow.iter().any(|network| network.contains(address))
    };
    assert!(lets_in("127.0.0.1") && lets_in("::1"));
    assert!(
        !lets_in("10.0.0.1") && !lets_in("::2"),
        "only this machine, unless said otherwise"
    );
}

#[test]
fn portals_have_ends_of_several_kinds() {
    let unix = INLET.replace("127.0.0.1:0", "unix:/run/plc.sock");
    // Without the end of the last line.
    let said = |file: String| complaints(&(IDENTITY.to_owned() + &file)).trim_end().to_owned();
    let inlet = |more: &str| said(format!("{unix}{more}"));
    let tcp = |more: &str| said(format!("{INLET}{more}"));
    assert_eq!(inlet("mode = '0660'"), "");
    assert_eq!(
        inlet("mode = '660 '"),
        r#"8:8 error: `portal.inlet[0].mode` is "660 ", which is not three octal digits"#
    );
    assert_eq!(
        inlet("allow = []\naccept_proxy_from = ['10.0.0.5']"),
        concat!(
            r#"8:9 error: `portal.inlet[0].allow` has no meaning for this `listen`"#,
            "\n",
            r#"9:21 error: `portal.inlet[0].accept_proxy_from` has no meaning for this `listen`"#
        )
    );
    assert_eq!(
        tcp("mode = '0660'"),
        r#"8:8 error: `portal.inlet[0].mode` has no meaning for this `listen`"#
    );
    assert_eq!(
        tcp(
            "socks = { users = [{ name = 'a', password = { env = 'A' } }, { name = 'a', password = { env = 'B' } }] }"
        ),
        r#"8:71 error: `portal.inlet[0].socks.users[1].name` is "a", a name that is taken already"#
    );
    assert_eq!(tcp("accept_proxy_from = ['10.0.0.5']\nallow = ['fd00::/8']"), "");
    for path in ["unix:run/a", "unix:/run/"] {
        let listen = INLET.replace("127.0.0.1:0", path);
        assert!(said(listen).contains("error"), "{path}");
    }
    let outlet = |what: &str| {
        said(format!(
            "[link.tcp]\n[[portal.outlet]]\nname = 'o'\nallow = ['$OTHER']\n{what}"
        ))
    };
    assert_eq!(outlet("address = 'unix:/run/a'\nsend_proxy = 'v2'"), "");
    assert_eq!(
        outlet("targets = ['10.0.0.0/8:22', 'plc-*.local:502', '[fd00::/8]:*']"),
        ""
    );
    assert_eq!(
        outlet(""),
        r#"3:1 error: `portal.outlet[0]` needs one of `address`, `targets`"#
    );
    assert_eq!(
        outlet("address = 'plc:502'\ntargets = ['*:22']"),
        r#"7:1 error: `portal.outlet[0]` has 2 of `address`, `targets`, but takes exactly one"#
    );
    assert_eq!(
        outlet("targets = ['*:22']\nsend_proxy = 'v1'"),
        r#"7:14 error: `portal.outlet[0].send_proxy` goes with `address`, which is not there"#
    );
    assert_eq!(
        outlet("targets = ['10.0.0.1/8:22', 'plc', 'plc:0', '10.0:22']"),
        concat!(
            r#"6:12 error: `portal.outlet[0].targets[0]` is "10.0.0.1/8:22", which has bits behind the prefix of its network"#,
            "\n",
            r#"6:29 error: `portal.outlet[0].targets[1]` is "plc", which has no port"#,
            "\n",
            r#"6:36 error: `portal.outlet[0].targets[2]` is "plc:0", which has no port from 1 to 65535, no range of them and no *"#,
            "\n",
            r#"6:45 error: `portal.outlet[0].targets[3]` is "10.0:22", which has neither a network nor a name for the host"#
        )
    );
}

#[test]
fn portals_are_for_datagrams_too() {
    let udp = INLET.replace("127.0.0.1:0", "udp:127.0.0.1:7");
    let said = |file: String| complaints(&(IDENTITY.to_owned() + &file)).trim_end().to_owned();
    assert_eq!(said(udp.clone()), "");
    assert_eq!(
        said(format!(
            "{udp}mode = '0660'\naccept_proxy_from = ['10.0.0.5']\nsocks = {{}}\nkeep_alive_secs = 5"
        )),
        [
            "8:8 error: `portal.inlet[0].mode` has no meaning for this `listen`",
            "9:21 error: `portal.inlet[0].accept_proxy_from` has no meaning for this `listen`",
            "10:9 error: `portal.inlet[0].socks` has no meaning for this `listen`",
            "11:19 error: `portal.inlet[0].keep_alive_secs` has no meaning for this `listen`",
        ]
        .join("\n")
    );
    // One port for streams and for datagrams are two.
    let second = INLET.replace("'i'", "'j'").replace("127.0.0.1:0", "127.0.0.1:7");
    assert_eq!(said(format!("{udp}{second}")), "");
    let second = udp.replace("'i'", "'j'");
    assert_eq!(
        said(format!("{udp}{second}")),
        "10:10 error: `portal.inlet[1].listen` is 127.0.0.1:7, which `portal.inlet[0].listen` (127.0.0.1:7) already takes"
    );
    let everywhere = INLET.replace("127.0.0.1:0", "udp:0.0.0.0:7");
    assert!(said(everywhere).contains("without `allow` only this machine itself gets in"));
    let outlet = |what: &str| {
        said(format!(
            "[link.tcp]\n[[portal.outlet]]\nname = 'o'\nallow = ['$OTHER']\naddress = 'udp:ntp:123'\n{what}"
        ))
    };
    assert_eq!(outlet(""), "");
    assert_eq!(
        outlet("send_proxy = 'v2'\nkeep_alive_secs = 5"),
        [
            "7:14 error: `portal.outlet[0].send_proxy` has no meaning for this `address`",
            "8:19 error: `portal.outlet[0].keep_alive_secs` has no meaning for this `address`",
        ]
        .join("\n")
    );
    let idle = |file: &str| {
        let portal = load(&format!("{IDENTITY}{file}"))
            .settings
            .and_then(|settings| settings.portal);
        portal.expect("no errors").inlets[0].idle.as_secs()
    };
    assert_eq!((idle(&udp), idle(INLET)), (60, 86_400));
    assert_eq!(idle(&format!("{udp}idle_secs = 30")), 30);
}

#[test]
fn outlets_lead_to_serial_lines() {
    let outlet = |what: &str| {
        let text = format!("{IDENTITY}[link.tcp]\n[[portal.outlet]]\nname = 'o'\nallow = ['$OTHER']\n{what}");
        complaints(&text).trim_end().to_owned()
    };
    let line = "address = 'serial:/dev/ttyUSB0'";
    assert_eq!(
        outlet(&format!(
            "{line}\nserial = {{ baud = 19200, parity = 'even', rs485 = {{}} }}"
        )),
        ""
    );
    assert_eq!(
        outlet(line),
        r#"6:11 error: `portal.outlet[0].address` is a serial line, and nothing says how it is set"#
    );
    assert_eq!(
        outlet("address = 'serial:ttyS0'"),
        r#"6:11 error: `portal.outlet[0].address` is "serial:ttyS0", which is no absolute path of a device"#
    );
    // All that is wrong with a line, and what goes with something else.
    assert_eq!(
        outlet(&format!(
            "{line}\nserial = {{ baud = 0, data_bits = 9, parity = 'mark', stop_bits = 3 }}\nsend_proxy = 'v1'\nstreams_max = 2\nkeep_alive_secs = 5"
        )),
        [
            r#"7:19 error: `portal.outlet[0].serial.baud` is 0, outside 50..=4000000"#,
            r#"7:34 error: `portal.outlet[0].serial.data_bits` is 9, outside 5..=8"#,
            r#"7:46 error: `portal.outlet[0].serial.parity` is "mark", not one of "none", "even", "odd""#,
            r#"7:66 error: `portal.outlet[0].serial.stop_bits` is 3, outside 1..=2"#,
            r#"8:14 error: `portal.outlet[0].send_proxy` has no meaning for this `address`"#,
            r#"9:15 error: `portal.outlet[0].streams_max` has no meaning for this `address`"#,
            r#"10:19 error: `portal.outlet[0].keep_alive_secs` has no meaning for this `address`"#,
        ]
        .join("\n")
    );
    assert_eq!(
        outlet("address = 'plc:502'\nserial = { baud = 9600 }"),
        r#"7:10 error: `portal.outlet[0].serial` has no meaning for this `address`"#
    );
    let settings = load(&format!(
        "{IDENTITY}[link.tcp]\n[[portal.outlet]]\nname = 'o'\n{line}\nserial = {{ baud = 9600 }}"
    ));
    let portal = settings
        .settings
        .and_then(|settings| settings.portal)
        .expect("no errors");
    assert_eq!(portal.outlets[0].streams_max, 1);
}

#[test]
fn inlets_that_lead_to_one_node_share_the_way() {
    let second = INLET.replace("'i'", "'j'").replace("127.0.0.1:0", "127.0.0.1:1");
    assert_eq!(about_inlet(&second), "");
    assert_snapshot!(about_inlet(INLET), @r#"9:8 error: `portal.inlet[1].name` is "i", a name that is taken already"#);
    assert_snapshot!(about_inlet(&second.replace("g:1", "g:2")), @r"11:8 error: `portal.inlet[1].node` is the node that inlet `i` leads to, but the ways to it, `pq`, `live_proof` or `direct_path` differ");
    assert_snapshot!(about_inlet(&format!("{second}pq = 'off'")), @r"11:8 error: `portal.inlet[1].node` is the node that inlet `i` leads to, but the ways to it, `pq`, `live_proof` or `direct_path` differ");
    assert_snapshot!(about_inlet("via = 'g'"), @r"8:7 error: `portal.inlet[0].via` goes with `relay` or `relays`, which is not there");
    assert_snapshot!(about_inlet(&second.replace("127.0.0.1:1'", "127.0.0.1:1'\nstreams_max = 0\nidle_secs = 9")), @r"
    11:15 error: `portal.inlet[1].streams_max` is 0, outside 1..=1024
    12:13 error: `portal.inlet[1].idle_secs` is 9, outside 10..=31536000
    ");
    assert_snapshot!(complaints(&format!("{IDENTITY}{}[metrics]\nlisten = '127.0.0.1:7'", INLET.replace("127.0.0.1:0", "127.0.0.1:7"))), @r"9:10 error: `metrics.listen` is 127.0.0.1:7, which `portal.inlet[0].listen` (127.0.0.1:7) already takes");
    let twice = about_outlet(
        "allow = ['$OTHER']\n[[portal.outlet]]\nname = 'o'\naddress = 'plc:503'\nallow = ['$OTHER']",
    );
    assert_snapshot!(twice, @r#"8:8 error: `portal.outlet[1].name` is "o", a name that is taken already"#);
}

#[test]
fn links_over_websockets_need_a_certificate_where_others_come() {
    let relay =
        "[relay]\nmember = [{ name = 'm', identifier = '$GATEWAY', hold = ['a'] }]\n[link.websocket]\n";
    let about = |more: &str| complaints(&format!("{IDENTITY}{relay}{more}"));
    assert_eq!(about("listen = ['127.0.0.1:8080']"), "");
    assert_eq!(
        about("listen = ['0.0.0.0:443']\ncertificate = 'c'\nkey = 'k'"),
        ""
    );
    let open = about("listen = ['0.0.0.0:443']");
    assert!(
        open.contains(
            "error: `link.websocket` has no certificate, and 0.0.0.0:443 can be reached by other machines"
        ),
        "{open}"
    );
    let nobody = about("");
    assert!(nobody.contains("`relay` needs `[link.tcp]`"), "{nobody}");
    let idle = about("certificate = 'c'\nkey = 'k'");
    assert!(
        idle.contains("`link.websocket.certificate` is not used"),
        "{idle}"
    );
    for (more, complaint) in [
        ("proxy = 'https://p:1'", "does not begin with `http://`"),
        ("proxy = 'http://p'", "has no port"),
        ("proxy = 'http://p:1'\nproxy_username = 'a:b'", "has a colon"),
        ("proxy_username = 'a'", "proxy"),
        ("proxy = 'http://p:1'\nproxy_username = 'a'", "proxy_password"),
        ("listen = ['127.0.0.1:1']\ncertificate = 'c'", "key"),
    ] {
        let text = about(more);
        assert!(
            text.contains("error") && text.contains(complaint),
            "{more}: {text}"
        );
    }
}

#[test]
fn any_listener_for_links_serves_a_relay() {
    let relay = "[relay]\nmember = [{ name = 'm', identifier = '$GATEWAY', hold = ['a'] }]\n";
    let about = |more: &str| complaints(&format!("{IDENTITY}{relay}{more}"));
    assert_eq!(about("[link.quic]"), "");
    assert_eq!(about("[link.unix]"), "");
    // The same port is another one over UDP.
    assert_eq!(about("[link.quic]\n[link.tcp]"), "");
    for (more, complaint) in [
        ("[link.quic]\nlisten = []", "`link.quic.listen`"),
        (
            "[link.quic]\nlisten = ['0.0.0.0:1', '127.0.0.1:1']",
            "which `link.quic.listen[0]` (0.0.0.0:1) already takes",
        ),
        ("[link.unix]\nmode = '999'", "is not three octal digits"),
    ] {
        let text = about(more);
        assert!(
            text.contains("error") && text.contains(complaint),
            "{more}: {text}"
        );
    }
    let idle = complaints(&format!("{IDENTITY}{UPLINK}{LOCAL}[link.quic]\n[link.unix]"));
    for name in ["link.quic", "link.unix"] {
        let idles = format!("warning: `{name}` listens, but nothing in this file answers there");
        assert!(idle.contains(&idles), "{idle}");
    }
}

#[test]
fn settings_of_links_hold_what_the_file_says() {
    let settings = load(include_str!("every_key.toml")).settings.expect("no errors");
    assert_snapshot!(format!("{:?} {:?}", settings.link_quic, settings.link_unix), @r#"Some(LinkQuic { listen: [127.0.0.1:4435] }) Some(LinkUnix { listen: "/run/links.sock", mode: 432 })"#);
    assert_snapshot!(format!("{:?}", settings.link_websocket), @r#"Some(LinkWebSocket { listen: [0.0.0.0:443], tls: Some(("/etc/fieldgate/relay.pem", "/etc/fieldgate/relay.key")), path: "/links", ca: Some("/etc/fieldgate/ca.pem"), proxy: Some(Proxy { address: HostPort { host: "proxy.example.net", port: 3128 }, login: Some(("plant", Environment("PROXY_PASSWORD"))) }) })"#);
}

#[test]
fn paths_without_relays_are_off_unless_the_file_says_so() {
    let settings = load(include_str!("every_key.toml")).settings.expect("no errors");
    assert!(settings.has_direct_paths());
    let allow: Vec<String> = settings.direct_allow.iter().map(ToString::to_string).collect();
    assert_eq!(allow, ["10.0.0.0/8", "fd00::/8"]);
    let settings = |more: &str| {
        let text = format!("{IDENTITY}{UPLINK}{more}");
        load(&text).settings.expect("no errors")
    };
    let plain = settings("");
    assert!(!plain.has_direct_paths());
    let allow: Vec<String> = plain.direct_allow.iter().map(ToString::to_string).collect();
    assert_eq!(allow, ["0.0.0.0/0", "::/0"]);
    assert_eq!(settings("[link.direct]\n").direct_allow, plain.direct_allow);
    let unused = complaints(&format!("{IDENTITY}{UPLINK}[link.direct]\n"));
    assert!(unused.contains("`link.direct` is not used"), "{unused}");
}
