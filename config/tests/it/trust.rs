//! What the file says of authorities, their members, and the process that holds the token.

use insta::assert_snapshot;

use crate::{complaints, load};

const IDENTITY: &str = "identity = { file = 'k', passphrase = { env = 'P' } }\n";

fn about_trust(lines: &str) -> String {
    let uplink = "[[uplink]]\nname = 'u'\ncollector = '$COLLECTOR'\ndirect = { address = 'c:1' }\n";
    let mqtt = "[mqtt]\nanonymous = true\nlisten = ['127.0.0.1:1883']\n";
    complaints(&format!("{IDENTITY}{uplink}{mqtt}[trust]\n{lines}"))
}

fn about_authority(lines: &str) -> String {
    complaints(&format!("{IDENTITY}[authority]\n{lines}"))
}

fn about_member(lines: &str) -> String {
    about_authority(&format!(
        "[[authority.member]]\nname = 'm'\nidentifier = '$GATEWAY'\n{lines}"
    ))
}

fn about_sandbox(sandbox: &str) -> String {
    let token = "pkcs11 = 'pkcs11:object=a'\nmodule = 'm'\npin = { env = 'PIN' }\n";
    complaints(&format!("[identity]\n{token}sandbox = {sandbox}\n[authority]"))
}

#[test]
fn the_fixtures_have_no_faults_of_their_own() {
    assert_eq!(about_trust(""), "");
    assert_eq!(about_authority(""), "");
    assert_eq!(about_member(""), "");
    assert_eq!(about_sandbox("{}"), "");
}

#[test]
fn the_way_to_the_authority_is_one_or_none() {
    let relay = "{ address = 'r:1', identifier = '$RELAY' }";
    assert_eq!(about_trust(&format!("via = 'a'\nrelay = {relay}")), "");
    assert_eq!(about_trust(&format!("via = 'a'\nrelays = [{relay}]")), "");
    assert_eq!(about_trust("direct = { address = 'a:1' }"), "");
    assert_snapshot!(about_trust("via = 'a'"), @r"10:7 error: `trust.via` goes with `relay` or `relays`, which is not there");
    assert_snapshot!(about_trust(&format!("relay = {relay}")), @r"9:1 error: `trust.via` is missing");
    assert_snapshot!(about_trust(&format!("via = 'a'\nrelay = {relay}\nrelays = [{relay}]\ndirect = {{ address = 'a:1' }}")), @r"12:1 error: `trust` has 3 of `relay`, `relays`, `direct`, but takes at most one");
    assert_snapshot!(about_trust(&format!("via = 'a'\nrelays = [{relay}, {relay}]")), @r#"11:122 error: `trust.relays[1].address` is "r:1", an address that is taken already"#);
}

#[test]
fn slips_in_trust_are_recognised() {
    assert_snapshot!(about_trust("after_grace = 'goon'\ngrace_secs = 34560001\nauthority = 'fg1'\nautority = 'fg1'"), @r#"
    10:15 error: `trust.after_grace` is "goon", not one of "refuse", "go-on"
    11:14 error: `trust.grace_secs` is 34560001, outside 0..=34560000
    12:13 error: `trust.authority` is "fg1", which has a typing error
    13:1 error: `autority` in `trust` is not a key fieldgate knows
    "#);
    let unknown = load(&format!("{IDENTITY}[trusted]\n[autority]\n"));
    let hints: Vec<&str> = unknown.problems.iter().map(|problem| problem.hint()).collect();
    for meant in ["did you mean `trust`?", "did you mean `authority`?"] {
        assert!(
            hints.iter().any(|hint| hint.starts_with(meant)),
            "no {meant} in {hints:?}"
        );
    }
    let word = load(&format!("{IDENTITY}[trust]\nafter_grace = 'goon'"));
    assert!(
        word.problems
            .iter()
            .any(|problem| problem.hint() == "did you mean \"go-on\"?")
    );
}

#[test]
fn a_role_without_peers_and_without_trust_serves_nobody() {
    let relay = format!("{IDENTITY}[link.tcp]\n[relay]\n");
    assert_snapshot!(complaints(&relay), @r"3:1 warning: `relay` has no `[[relay.member]]`, and there is no `[trust]`: it serves nobody");
    let collector = format!("{IDENTITY}[link.tcp]\n[collector]\nsink = [{{ kind = 'file', path = '-' }}]\n");
    assert_snapshot!(complaints(&collector), @r"3:1 warning: `collector` has no `[[collector.gateway]]`, and there is no `[trust]`: it serves nobody");
    for more in ["[trust]", "[authority]"] {
        assert_eq!(complaints(&format!("{relay}{more}")), "");
        assert_eq!(complaints(&format!("{collector}{more}")), "");
    }
}

#[test]
fn names_that_are_open_are_held_by_somebody() {
    let relay = format!("{IDENTITY}[link.tcp]\n[relay]\nopen = ['authority', 'autority']\n");
    let member = "[[relay.member]]\nname = 'a'\nidentifier = '$OTHER'\nhold = ['authority']\n";
    assert_snapshot!(complaints(&format!("{relay}{member}")), @r#"4:22 warning: `relay.open[1]` is "autority", which no member may hold"#);
    // Credentials may let others hold it.
    assert_eq!(complaints(&format!("{relay}{member}[trust]")), "");
    assert_snapshot!(complaints(&format!("{IDENTITY}[trust]\n[link.tcp]\n[relay]\nopen = ['a', 'a', 'b*', '']\nguests_max = 0")), @r#"
    5:14 error: `relay.open[1]` is "a", a name that is taken already
    5:19 error: `relay.open[2]` is "b*", which has a wildcard
    5:25 error: `relay.open[3]` is "", which is not a name at a relay
    6:14 error: `relay.guests_max` is 0, outside 1..=4096
    "#);
    let slip = "[[relay.member]]\nname = 'g'\nidentifier = '$GATEWAY'\nreach = ['nobody']\n";
    assert_eq!(
        complaints(&format!("{IDENTITY}[trust]\n[link.tcp]\n[relay]\n{slip}")),
        ""
    );
}

#[test]
fn an_authority_alone_is_a_node() {
    // Air-gapped: tickets, requests and responses travel as files.
    let settings = load(&format!("{IDENTITY}[authority]\n"))
        .settings
        .expect("no errors");
    let authority = settings.authority.expect("an authority");
    assert_eq!(
        authority.store,
        std::path::Path::new("/var/lib/fieldgate/authority.redb")
    );
    assert!(authority.members.is_empty() && authority.registrations.is_empty());
    assert!(settings.link_tcp.is_none());
}

#[test]
fn ways_to_an_authority_lead_somewhere() {
    assert_snapshot!(about_authority("public = ['a:4433']"), @r"3:10 error: `authority.public` needs `[link.tcp]`: nothing would answer there");
    assert_eq!(about_authority("public = ['a:4433', 'b:4433']\n[link.tcp]"), "");
    assert_snapshot!(about_authority("public = ['a:4433', 'A:4433', 'a']\n[link.tcp]"), @r#"
    3:21 error: `authority.public[1]` is "a:4433", an address that is taken already
    3:31 error: `authority.public[2]` is "a", which has no port
    "#);
    let register = "{ relay = { address = 'r:1', identifier = '$RELAY' }, name = 'authority' }";
    assert_eq!(about_authority(&format!("register = [{register}]")), "");
    assert_snapshot!(about_authority(&format!("register = [{register}, {register}]")), @r#"3:260 error: `authority.register[1].name` is "authority at r:1", a registration that is taken already"#);
}

#[test]
fn members_differ() {
    let member = |name: &str, identifier: &str| {
        format!("[[authority.member]]\nname = '{name}'\nidentifier = '{identifier}'\n")
    };
    let about = |one: String, other: String| about_authority(&format!("{one}{other}"));
    assert_eq!(about(member("a", "$GATEWAY"), member("b", "$RELAY")), "");
    assert_snapshot!(about(member("a", "$GATEWAY"), member("a", "$GATEWAY")), @r#"
    7:8 error: `authority.member[1].name` is "a", a name that is taken already
    8:14 error: `authority.member[1].identifier` is "fg1d582kw6m4ndcxy0lgpxzg9464jwwsrrw5xgcxgq5fshccu9qqqvqymxy6r", an identifier that is taken already
    "#);
    assert_snapshot!(about_member("hold = ['a', 'a']\nreach = ['b', 'b']"), @r#"
    6:14 error: `authority.member[0].hold[1]` is "a", a name that is taken already
    7:15 error: `authority.member[0].reach[1]` is "b", a name that is taken already
    "#);
}

#[test]
fn attributes_fit_a_credential() {
    assert_eq!(
        about_member("attributes = { site = 'north', \"line.4\" = '' }"),
        ""
    );
    assert_snapshot!(about_member("attributes = 'north'"), @r#"6:14 error: `authority.member[0].attributes` is the text "north", not a table"#);
    assert_snapshot!(about_member("attributes = { site = 1, \"a b\" = 'x', \"\" = 'x', note = \"\\u0007\" }"), @r#"
    6:23 error: `authority.member[0].attributes.site` is the integer 1, not text of at most 255 bytes
    6:26 error: `authority.member[0].attributes` has "a b", which is not the name of an attribute
    6:39 error: `authority.member[0].attributes` has "", which is not the name of an attribute
    6:56 error: `authority.member[0].attributes.note` is longer than 255 bytes or has control characters
    "#);
    let long = "x".repeat(256);
    assert_snapshot!(about_member(&format!("attributes = {{ site = '{long}' }}")), @r"6:23 error: `authority.member[0].attributes.site` is longer than 255 bytes or has control characters");
    let attributes = |count: usize, len: usize| {
        let list: Vec<String> = (0..count)
            .map(|n| format!("a{n:02} = '{}'", "x".repeat(len)))
            .collect();
        format!("attributes = {{ {} }}", list.join(", "))
    };
    assert_eq!(about_member(&attributes(32, 59)), "", "exactly 2,048 bytes");
    assert_snapshot!(about_member(&attributes(33, 1)), @r"6:14 error: `authority.member[0].attributes` has 33 attributes, more than 32");
    assert_snapshot!(about_member(&attributes(32, 60)), @r"3:1 error: attributes and names of `authority.member[0]` take 2080 bytes, more than 2048: they would not fit its credential");
    assert_snapshot!(about_member(&format!("{}\nhold = ['c']", attributes(32, 59))), @r"3:1 error: attributes and names of `authority.member[0]` take 2050 bytes, more than 2048: they would not fit its credential");
}

#[test]
fn the_token_process_gets_what_it_needs_and_no_secret() {
    assert_eq!(
        about_sandbox("{ paths = ['/srv/tokens'], network = true, environment = ['SOFTHSM2_CONF'] }"),
        ""
    );
    assert_snapshot!(about_sandbox("{ environment = ['SOFTHSM2_CONF', 'PIN', '$X'] }"), @r#"
    5:45 error: `identity.sandbox.environment[1]` hands the PIN to the module's environment
    5:52 error: `identity.sandbox.environment[2]` is "$X", which is not the name of an environment variable
    "#);
    assert_snapshot!(about_sandbox("{ paths = ['/var/lib/fieldgate', '/', '/var/lib/fieldgate/token', ''] }"), @r#"
    5:22 warning: `identity.sandbox.paths[0]` is /var/lib/fieldgate, which opens the state of this node to the module
    5:44 warning: `identity.sandbox.paths[1]` is /, which opens the state of this node to the module
    5:77 error: `identity.sandbox.paths[3]` is "", which is no path
    "#);
    assert_snapshot!(about_sandbox("{ network = 'yes', files = [] }"), @r#"
    5:23 error: `identity.sandbox.network` is the text "yes", not `true` or `false`
    5:30 error: `files` in `identity.sandbox` is not a key fieldgate knows
    "#);
    let file = "[identity]\nfile = 'k'\npassphrase = { env = 'P' }\nsandbox = {}\n[authority]";
    assert_snapshot!(complaints(file), @r"4:11 error: `identity.sandbox` goes with `pkcs11`, which is not there");
}

#[test]
fn settings_hold_what_the_file_says() {
    let settings = load(include_str!("every_key.toml")).settings.expect("no errors");
    assert_snapshot!(format!("{:?}", settings.sandbox), @r#"Sandbox { paths: ["/srv/token"], network: true, environment: ["TOKEN_CONF"] }"#);
    assert_snapshot!(format!("{:?}", settings.trust), @r#"Some(Trust { authority: Some(fg1xr2mk6wxjjy9cc6d7lugvmrgnwqrhxy0qt0ljyqr7pu02n2fhc7qmqahhc), path: Some(Relays { via: "authority", relays: [RelayWay { relay: RelayAddress { address: Tcp(HostPort { host: "relay.example.net", port: 4433 }), also: [], identifier: fg1wrwssj5734a52879dr84mn8t0azmvgd87tt7revw5r6ry9zthgdserc5lc }, through: [], through_identifiers: [] }] }), pq: Preferred, policy: Some("/etc/fieldgate/policy.cedar"), grace: 0ns, after_grace: GoOn })"#);
    assert_snapshot!(format!("{:?}", settings.authority), @r#"Some(Authority { store: "/srv/authority.redb", credential_valid: 600s, status_valid: 601s, pq: Off, registrations: [Registration { relay: RelayAddress { address: Tcp(HostPort { host: "relay", port: 4433 }), also: [], identifier: fg1wrwssj5734a52879dr84mn8t0azmvgd87tt7revw5r6ry9zthgdserc5lc }, name: "authority" }], public: [HostPort { host: "authority.example.net", port: 4433 }], members: [AuthorityMember { name: "g", identifier: fg1d582kw6m4ndcxy0lgpxzg9464jwwsrrw5xgcxgq5fshccu9qqqvqymxy6r, attributes: {"line": "", "site": "north"}, hold: [Prefix("plant-")], reach: [Exact("collector-1")], enroller: true, administrator: true }], cluster: Some(AuthorityCluster { servers: [HostPort { host: "nats-1.example.net", port: 4222 }, HostPort { host: "nats-2.example.net", port: 4222 }], tls: Some(SinkTls { ca: Some("/etc/fieldgate/nats-ca.pem"), own: Some(("/etc/fieldgate/nats.pem", "/etc/fieldgate/nats.key")) }), auth: Login(Login { username: "authority", password: Some(Credential("nats")) }), key: Credential("authority-cluster"), stream: "authority-north", replicas: 1, entries_max: 1000, found: true }) })"#);
    let live: Vec<bool> = settings.uplinks.iter().map(|uplink| uplink.live_proof).collect();
    assert_eq!(live, [true, false, false]);
}

#[test]
fn an_identity_needs_only_its_own_sections() {
    let rest =
        "[[uplink]]\nname = 'u'\ncollector = 'fg1-to-be-filled-in'\ndirect = { address = 'c:1' }\n[mtqq]\n";
    let loaded = load(&format!(
        "[node]\nname = 'a'\n[identity]\nfile = 'k'\npassphrase = {{ env = 'P' }}\n{rest}"
    ));
    assert!(loaded.settings.is_none());
    let own = loaded.own_identity.expect("its sections are good");
    assert_eq!(own.node.name, "a");
    // Nor does it need that the file switches something on.
    let loaded = load("[identity]\nfile = 'k'\npassphrase = { env = 'P' }\n");
    assert!(loaded.settings.is_none() && loaded.own_identity.is_some());
    let errors = loaded.problems.iter();
    assert!(
        errors
            .clone()
            .all(|problem| !problem.is_about(&["node", "identity"]))
    );

    for broken in [
        // The form of the file, duplicates included: which of two is meant nobody knows.
        "[identity\nfile = 'k'\npassphrase = { env = 'P' }\n",
        "[identity]\nfile = 'k'\nfile = 'l'\npassphrase = { env = 'P' }\n",
        // The sections themselves.
        "[mqtt]\nanonymous = true\n",
        "[identity]\nfile = 'k'\n",
        "[identity]\nfile = 'k'\npassphrase = { env = 'P' }\nalgorithm = 'rsa'\n",
        "[node]\nname = 'A B'\n[identity]\nfile = 'k'\npassphrase = { env = 'P' }\n",
        "node = 1\nidentity = { file = 'k', passphrase = { env = 'P' } }\n",
        "[identity]\npkcs11 = 'pkcs11:object=a'\nmodule = 'm'\npin = { env = 'PIN' }\nsandbox = { environment = ['PIN'] }\n",
    ] {
        assert!(load(broken).own_identity.is_none(), "{broken}");
    }
    // Of errors that are not shown nobody knows what they are about.
    let many: String = (0..2000).map(|index| format!("[wrong{index}]\n")).collect();
    let loaded = load(&format!("{IDENTITY}{many}"));
    assert!(loaded.own_identity.is_none());
}
