use super::*;
use crate::device::{Login, tests::login};

fn authenticator(logins: Vec<Login>, anonymous: Anonymous) -> Authenticator {
    Authenticator::new(Arc::new(DeviceTable::new(logins).unwrap()), anonymous, &[7; 32])
}

fn everything() -> Anonymous {
    Anonymous::Allowed {
        topics: [TopicFilter::new("#").unwrap()].into(),
    }
}

fn ask(authenticator: &mut Authenticator, username: Option<&str>, password: Option<&str>) -> Option<String> {
    let credentials = Credentials {
        client_id: Some("id"),
        username,
        password: password.map(str::as_bytes),
    };
    match authenticator.authenticate(&credentials) {
        Authentication::Accepted(device) => Some(device.name().to_owned()),
        Authentication::Denied(Denial::BadCredentials) => None,
        other @ (Authentication::Denied(_) | Authentication::Pending) => panic!("{other:?}"),
    }
}

#[test]
fn only_the_right_pair_is_accepted() {
    let mut subject = authenticator(
        vec![login("u", "p", 2, "d"), login("v", "q", 3, "e")],
        everything(),
    );
    for _ in 0..2 {
        assert_eq!(ask(&mut subject, Some("u"), Some("p")).as_deref(), Some("d"));
        assert_eq!(ask(&mut subject, Some("v"), Some("q")).as_deref(), Some("e"));
        assert_eq!(ask(&mut subject, Some("u"), Some("q")), None);
        assert_eq!(ask(&mut subject, Some("v"), Some("p")), None);
        assert_eq!(ask(&mut subject, Some("x"), Some("p")), None);
        assert_eq!(ask(&mut subject, Some("up"), Some("")), None);
        assert_eq!(ask(&mut subject, Some("u"), None), None);
        assert_eq!(ask(&mut subject, None, Some("p")), None);
        assert_eq!(ask(&mut subject, Some(""), Some("")), None);
    }
}

#[test]
fn an_empty_table_denies_every_login() {
    assert_eq!(
        ask(&mut authenticator(vec![], everything()), Some("u"), Some("p")),
        None
    );
}

#[test]
fn a_pair_is_remembered_and_the_second_login_needs_no_iterations() {
    let mut subject = authenticator(vec![login("u", "p", 2_000, "d")], Anonymous::Refused);
    let right = Credentials {
        client_id: None,
        username: Some("u"),
        password: Some(b"p"),
    };
    assert_eq!(subject.authenticate(&right), Authentication::Pending);
    let checked = subject.take_check().unwrap().run();
    let Authentication::Accepted(device) = subject.handle_checked(&checked) else {
        panic!()
    };
    assert_eq!(device.name(), "d");
    assert!(
        matches!(subject.authenticate(&right), Authentication::Accepted(_)),
        "not pending any more"
    );
    assert!(subject.take_check().is_none());

    let wrong = Credentials {
        password: Some(b"q"),
        ..right
    };
    assert_eq!(subject.authenticate(&wrong), Authentication::Pending);
    let checked = subject.take_check().unwrap().run();
    assert_eq!(
        subject.handle_checked(&checked),
        Authentication::Denied(Denial::BadCredentials)
    );
    assert!(
        matches!(subject.authenticate(&right), Authentication::Accepted(_)),
        "still remembered"
    );
}

#[test]
fn an_unknown_user_costs_what_a_known_one_costs() {
    let mut subject = authenticator(vec![login("u", "p", 2_000, "d")], Anonymous::Refused);
    let unknown = Credentials {
        client_id: None,
        username: Some("nobody"),
        password: Some(b"p"),
    };
    assert_eq!(subject.authenticate(&unknown), Authentication::Pending);
    let check = subject.take_check().unwrap();
    assert_eq!(check.hash.iterations(), 2_000);
    // The password is the stand-in's, and still nobody gets in.
    assert_eq!(
        subject.handle_checked(&check.run()),
        Authentication::Denied(Denial::BadCredentials)
    );
    assert_eq!(subject.authenticate(&unknown), Authentication::Pending);

    let mut cheap = authenticator(vec![login("u", "p", 2, "d")], Anonymous::Refused);
    assert_eq!(
        cheap.authenticate(&unknown),
        Authentication::Denied(Denial::BadCredentials)
    );
}

#[test]
fn a_new_table_keeps_unchanged_pairs_and_forgets_changed_ones() {
    let slow = |username: &str, password: &str, name: &str| login(username, password, 1_001, name);
    let mut subject = authenticator(vec![slow("u", "p", "d"), slow("v", "q", "e")], Anonymous::Refused);
    let as_u = Credentials {
        client_id: None,
        username: Some("u"),
        password: Some(b"p"),
    };
    let as_v = Credentials {
        client_id: None,
        username: Some("v"),
        password: Some(b"q"),
    };
    for credentials in [as_u, as_v] {
        assert_eq!(subject.authenticate(&credentials), Authentication::Pending);
        let checked = subject.take_check().unwrap().run();
        assert!(matches!(
            subject.handle_checked(&checked),
            Authentication::Accepted(_)
        ));
    }
    let table = DeviceTable::new(vec![
        slow("w", "r", "f"),
        slow("v", "new", "e"),
        slow("u", "p", "renamed"),
    ]);
    subject.replace(Arc::new(table.unwrap()), Anonymous::Refused);
    let Authentication::Accepted(device) = subject.authenticate(&as_u) else {
        panic!()
    };
    assert_eq!(device.name(), "renamed");
    assert_eq!(subject.authenticate(&as_v), Authentication::Pending);
    let checked = subject.take_check().unwrap().run();
    assert_eq!(
        subject.handle_checked(&checked),
        Authentication::Denied(Denial::BadCredentials)
    );
}

#[test]
fn a_check_of_an_old_table_lets_nobody_into_the_new_one() {
    let mut subject = authenticator(vec![login("u", "p", 1_001, "d")], Anonymous::Refused);
    let credentials = Credentials {
        client_id: None,
        username: Some("u"),
        password: Some(b"p"),
    };
    assert_eq!(subject.authenticate(&credentials), Authentication::Pending);
    let checked = subject.take_check().unwrap().run();
    subject.replace(Arc::new(DeviceTable::default()), Anonymous::Refused);
    assert_eq!(
        subject.handle_checked(&checked),
        Authentication::Denied(Denial::Busy)
    );
}

#[test]
fn anonymous_clients_bear_their_client_identifier_but_never_a_device_name() {
    let long = "x".repeat(256);
    let anonymous = |subject: &mut Authenticator, client_id| {
        let credentials = Credentials {
            client_id,
            username: None,
            password: None,
        };
        match subject.authenticate(&credentials) {
            Authentication::Accepted(device) => Ok(device.name().to_owned()),
            Authentication::Denied(denial) => Err(denial),
            Authentication::Pending => panic!("anonymous clients are decided at once"),
        }
    };
    let mut open = authenticator(vec![login("u", "p", 1, "d")], everything());
    assert_eq!(anonymous(&mut open, Some("sensor")), Ok("sensor".to_owned()));
    assert_eq!(anonymous(&mut open, None), Ok(UNNAMED.to_owned()));
    assert_eq!(anonymous(&mut open, Some("d")), Err(Denial::NotAuthorized));
    assert_eq!(anonymous(&mut open, Some(&long)), Err(Denial::NotAuthorized));
    let mut closed = authenticator(vec![login("u", "p", 1, "d")], Anonymous::Refused);
    assert_eq!(anonymous(&mut closed, Some("sensor")), Err(Denial::NotAuthorized));
}

#[test]
fn debug_shows_no_secret() {
    let mut subject = authenticator(vec![login("u", "p", 1_001, "d")], Anonymous::Refused);
    let credentials = Credentials {
        client_id: None,
        username: Some("u"),
        password: Some(b"hunter2"),
    };
    assert_eq!(subject.authenticate(&credentials), Authentication::Pending);
    let shown = format!("{credentials:?} {subject:?} {:?}", subject.check);
    assert!(!shown.contains("hunter2") && !shown.contains("104"), "{shown}");
}
