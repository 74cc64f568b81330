use clap::Parser as _;

use super::*;
use crate::cli::{Cli, Command};

fn command(words: &[&str]) -> PolicyCommand {
    let words = ["fieldgate", "policy"].iter().chain(words);
    match Cli::try_parse_from(words).map(|cli| cli.command) {
        Ok(Command::Policy(command)) => command,
        other => panic!("{other:?}"),
    }
}

fn asked(words: &[&str]) -> Result<Request, Failure> {
    let PolicyCommand::Explain(args) = command(words) else {
        panic!("{words:?} do not explain");
    };
    request(&args)
}

fn node() -> String {
    Identifier::from_bytes([7; 32]).to_string()
}

fn file(text: impl AsRef<[u8]>) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().expect("there is room");
    file.write_all(text.as_ref()).expect("there is room");
    file
}

fn checked(text: impl AsRef<[u8]>) -> Result<(), Failure> {
    let file = file(text);
    run(&PolicyCommand::Check {
        file: file.path().to_owned(),
        json: false,
    })
}

#[test]
fn the_example_is_good_and_permits_what_it_says() {
    let example = Path::new(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../packaging/examples/policy.cedar"
    ));
    let read = read(example).expect("it is there");
    assert_eq!(read.problems.render_json(), "[]");
    let policy = read.policy.expect("it is good");
    let node = node();
    let portal = [
        "explain",
        "--principal",
        &node,
        "--action",
        "openPortal",
        "--resource",
        "Portal::\"plc\"",
        "--resource-attribute",
        "kind=tcp",
        "--attribute",
        "groups=maintenance",
        "--member",
    ];
    let request = asked(&portal).expect("it can be asked");
    assert!(!policy.decide(&request).allowed);
    assert!(policy.demands_live_proof(&request));
    let decision = policy.decide(&request.with_live_proof(true));
    assert!(decision.allowed, "{decision:?}");
    assert_eq!(decision.reasons[0].as_str(), "maintenance-opens-tcp");
}

#[test]
fn checking_says_good_or_ends_with_wrong_input() {
    assert!(checked("permit (principal, action, resource) when { principal.member };").is_ok());
    // Warnings keep nobody from using it.
    assert!(checked("// nothing\n").is_ok());
    for text in [
        &b"permit (principal, action, resource) when { principal.membr };"[..],
        b"permit",
        b"\xff",
        &vec![b'/'; fieldgate_policy::SIZE_MAX + 1],
        &vec![0xc3; fieldgate_policy::SIZE_MAX + 1],
    ] {
        let failure = checked(text).expect_err("it is not good");
        assert_eq!(failure.code, 2);
    }
    let failure = run(&command(&["check", "/nowhere/policy.cedar"])).expect_err("it is not there");
    assert_eq!(failure.code, 2);
    assert!(failure.message.contains("/nowhere/policy.cedar"));
}

#[test]
fn a_question_is_put_together_from_its_options() {
    let node = node();
    let request = asked(&[
        "explain",
        "--principal",
        &node,
        "--name",
        "press-gateway",
        "--named",
        "--member",
        "--enroller",
        "--administrator",
        "--key",
        "token",
        "--attribute",
        "site=north",
        "--attribute",
        "note=a=b",
        "--action",
        "issueTicket",
        "--resource",
        "Fieldgate::Authority::\"this\"",
        "--context",
        "timeQuality=floor",
        "--context",
        "link=none",
        "--context",
        "hops=3",
        "--context",
        "postQuantum=false",
        "--context",
        "liveProof=true",
        "--context",
        "granted=true",
        "--context",
        "revocation=stale",
        "--context",
        "grantsEnroller=true",
    ])
    .expect("it can be asked");
    let principal = request.principal();
    assert_eq!(
        (
            principal.name.as_str(),
            principal.named,
            principal.member,
            principal.enroller,
            principal.administrator,
            principal.key
        ),
        (
            "press-gateway",
            true,
            true,
            true,
            true,
            fieldgate_policy::KeyStorage::Token
        )
    );
    assert_eq!(principal.attributes["note"], "a=b");
    assert_eq!(
        *request.context(),
        Context {
            time_quality: TimeQuality::Floor,
            link: None,
            hops: Some(3),
            post_quantum: false,
            live_proof: true,
            granted: true,
            revocation: Revocation::Stale,
            ticket: Some(TicketRights {
                grants_administrator: false,
                grants_enroller: true
            }),
            stream: None,
        }
    );
}

#[test]
fn a_stream_and_a_device_are_put_together_from_their_options() {
    let node = node();
    let stream = asked(&[
        "explain",
        "--principal",
        &node,
        "--action",
        "openPortal",
        "--resource",
        "Portal::plc",
        "--context",
        "user=ops",
        "--context",
        "destination=plc-7:502",
        "--context",
        "weekday=friday",
        "--context",
        "minuteOfDay=480",
    ]);
    let stream = stream.expect("it can be asked").context().stream.clone();
    let stream = stream.expect("that is what it is about");
    assert_eq!(
        (stream.user.as_str(), stream.destination.as_str()),
        ("ops", "plc-7:502")
    );
    assert_eq!((stream.weekday.as_str(), stream.minute_of_day), ("friday", 480));
    let device = asked(&[
        "explain",
        "--principal",
        &node,
        "--action",
        "command",
        "--resource",
        "Device::press-1",
        "--resource-attribute",
        "gateway=north-1",
    ])
    .expect("it can be asked");
    assert_eq!(
        *device.resource(),
        Resource::Device {
            name: "press-1".to_owned(),
            gateway: "north-1".to_owned()
        }
    );
    assert_eq!(device.context().ticket, None);
}

#[test]
fn a_question_that_cannot_be_asked_is_wrong_input_with_a_hint() {
    let node = node();
    let uplink = "Service::\"uplink\"";
    let ask = |principal: &str, action: &str, resource: &str, more: &[&str]| {
        let words = [
            "explain",
            "--principal",
            principal,
            "--action",
            action,
            "--resource",
            resource,
        ];
        asked(&[&words, more].concat())
    };
    assert!(ask(&node, "connect", uplink, &[]).is_ok());
    for (wrong, part) in [
        (ask("fg1press", "connect", uplink, &[]), "fg1press"),
        (ask(&node, "conect", uplink, &[]), "conect"),
        (ask(&node, "connect", "uplink", &[]), "uplink"),
        (ask(&node, "connect", "Service::\"up\"", &[]), "up"),
        (ask(&node, "configure", uplink, &[]), "Configuration"),
        (ask(&node, "connect", uplink, &["--key", "hsm"]), "hsm"),
        (ask(&node, "connect", uplink, &["--attribute", "site"]), "site"),
        (
            ask(&node, "connect", uplink, &["--resource-attribute", "kind=tcp"]),
            "kind",
        ),
        (
            ask(&node, "connect", uplink, &["--context", "granted=yes"]),
            "yes",
        ),
        (ask(&node, "connect", uplink, &["--context", "hops=-1"]), "-1"),
        (ask(&node, "connect", uplink, &["--context", "moon=full"]), "moon"),
        (ask(&node, "connect", uplink, &["--context", "link=wifi"]), "wifi"),
    ] {
        let failure = wrong.expect_err(part);
        assert_eq!(failure.code, 2, "{part}");
        assert!(
            failure.message.contains(part) && failure.hint.is_some(),
            "{failure:?}"
        );
    }
}

#[test]
fn explaining_a_bad_policy_is_wrong_input() {
    let bad = file("permit (principal, action);");
    let path = bad.path().display().to_string();
    let node = node();
    let words = [
        "explain",
        "--policy",
        &path,
        "--principal",
        &node,
        "--action",
        "connect",
        "--resource",
        "Service::uplink",
    ];
    assert_eq!(run(&command(&words)).expect_err("it is bad").code, 2);
}
