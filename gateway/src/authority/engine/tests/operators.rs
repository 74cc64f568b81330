//! Who may do what, and what is shown.

use super::*;

fn member_with(rig: &mut Rig, rights: Rights, change: impl FnOnce(&mut TicketOrder)) -> Node {
    rig.member(|order| {
        order.grant.enroller = rights.enroller;
        order.grant.administrator = rights.administrator;
        change(order);
    })
}

/// Every request that an operator can make, none of which does harm twice.
fn requests() -> Vec<(&'static str, ManageRequest)> {
    let identifier = Identifier::from_bytes([5; 32]).to_string();
    vec![
        ("enroller", ManageRequest::Status {}),
        ("enroller", ManageRequest::TicketIssue(order(|_| ()))),
        ("enroller", ManageRequest::TicketList { after: None }),
        (
            "administrator",
            ManageRequest::MemberList {
                revoked: false,
                after: None,
            },
        ),
        (
            "administrator",
            ManageRequest::MemberShow {
                member: "admin".to_owned(),
            },
        ),
        (
            "administrator",
            ManageRequest::MemberAdd(MemberOrder {
                identifier: identifier.clone(),
                name: "added".to_owned(),
                grant: crate::authority::wire::GrantOrder::default(),
            }),
        ),
        (
            "administrator",
            ManageRequest::MemberRevoke {
                member: identifier,
                reason: "test".to_owned(),
            },
        ),
        ("administrator", ManageRequest::Log { from: 1 }),
        ("administrator", ManageRequest::LogHead {}),
    ]
}

#[test]
fn rights_decide_who_may_manage() {
    for (needed, request) in requests() {
        let mut rig = Rig::new();
        let administrator = member_with(&mut rig, ADMINISTRATOR, |order| {
            order.name = Some("admin".to_owned());
        });
        let enroller = member_with(&mut rig, ENROLLER, |_| ());
        let plain = member_with(&mut rig, NOTHING, |_| ());
        let ok = |answer: &ManageAnswer| !matches!(answer, ManageAnswer::Error(_));
        let everything = Rights {
            enroller: true,
            administrator: true,
        };
        for (who, from, may) in [
            ("stranger", Node::new().origin(NOTHING), false),
            ("plain member", plain.origin(NOTHING), false),
            // What a channel claims does not count against the store.
            ("plain member with forged rights", plain.origin(everything), false),
            ("enroller", enroller.origin(ENROLLER), needed == "enroller"),
            (
                "administrator without credential",
                administrator.origin(NOTHING),
                false,
            ),
            ("administrator", administrator.origin(ADMINISTRATOR), true),
            (
                "named in the node's file",
                Node::new().origin(ADMINISTRATOR),
                true,
            ),
        ] {
            let answer = rig.manage_from(from, request.clone());
            let refused_as_repeated = matches!(&answer, ManageAnswer::Error(error) if error.code == "already-a-member" || error.code == "revoked-identity");
            assert_eq!(
                ok(&answer) || refused_as_repeated,
                may,
                "{who}: {request:?}: {answer:?}"
            );
            if let ManageAnswer::Error(error) = &answer
                && !may
            {
                let plainly = error.message == "not allowed" && error.hint.is_none();
                assert_eq!(plainly, who != "enroller", "{who}: {error:?}");
            }
        }
        rig.verify_log();
    }
}

#[test]
fn a_revoked_administrator_is_a_stranger() {
    let mut rig = Rig::new();
    let administrator = member_with(&mut rig, ADMINISTRATOR, |order| {
        order.name = Some("admin".to_owned());
    });
    rig.revoke("admin");
    let from = administrator.origin(ADMINISTRATOR);
    assert_eq!(
        refused(rig.manage_from(from, ManageRequest::Log { from: 1 })).message,
        "not allowed"
    );
}

#[test]
fn an_enroller_gives_no_more_than_it_has() {
    let mut rig = Rig::new();
    let enroller = member_with(&mut rig, ENROLLER, |order| {
        order.grant.attributes = BTreeMap::from([("site".to_owned(), "north".to_owned())]);
        order.grant.hold = vec!["press-*".to_owned()];
        order.grant.reach = vec!["collector".to_owned()];
    });
    let from = enroller.origin(ENROLLER);
    let mut issue =
        |change: fn(&mut TicketOrder)| rig.manage_from(from, ManageRequest::TicketIssue(order(change)));
    let good = issued(issue(|order| {
        order.grant.attributes = BTreeMap::from([("site".to_owned(), "north".to_owned())]);
        order.grant.hold = vec!["press-3*".to_owned()];
        order.grant.reach = vec!["collector".to_owned()];
    }));
    let bad: [fn(&mut TicketOrder); 5] = [
        |order| order.grant.enroller = true,
        |order| order.grant.administrator = true,
        |order| order.grant.hold = vec!["*".to_owned()],
        |order| order.grant.reach = vec!["authority".to_owned()],
        |order| order.grant.attributes = BTreeMap::from([("site".to_owned(), "south".to_owned())]),
    ];
    for change in bad {
        assert_eq!(refused(issue(change)).code, "exceeds");
    }
    // It sees and ends its own tickets only.
    let foreign = rig.ticket(|_| ());
    let shown = {
        let answer = rig.manage_from(from, ManageRequest::TicketList { after: None });
        let ManageAnswer::Tickets { tickets, .. } = answer else {
            panic!("{answer:?}")
        };
        tickets
    };
    assert_eq!(
        shown.iter().map(|ticket| ticket.id.as_str()).collect::<Vec<_>>(),
        [good.id.as_str()]
    );
    let revoke =
        |rig: &mut Rig, id: &str| rig.manage_from(from, ManageRequest::TicketRevoke { id: id.to_owned() });
    let id = data_encoding::HEXLOWER.encode(foreign.id());
    assert_eq!(refused(revoke(&mut rig, &id)).code, "not-allowed");
    assert!(matches!(
        revoke(&mut rig, &good.id),
        ManageAnswer::Revoked { note: None, .. }
    ));
    assert!(matches!(
        revoke(&mut rig, &good.id),
        ManageAnswer::Revoked { note: Some(_), .. }
    ));
    let mut node = Node::new();
    let request = node.request(&read_ticket(&good), "");
    assert_eq!(rig.enrol(request), AuthorityAnswer::Denied);
}

#[test]
fn revoking_names_the_member_in_a_new_list() {
    let mut rig = Rig::new();
    assert_eq!(rig.list().number(), BEGINNING, "there is a list from the start");
    let node = rig.member(|order| order.name = Some("press-3".to_owned()));
    let answer = rig.revoke("press-3");
    assert_eq!(
        answer,
        ManageAnswer::Revoked {
            id: node.id().to_string(),
            list: Some(SECOND),
            note: None
        }
    );
    let list = rig.list();
    assert_eq!(list.number(), SECOND);
    assert!(list.is_revoked(&node.id()));
    // Again, by identifier now: nothing changes.
    let answer = rig.revoke(&node.id().to_string());
    assert!(matches!(
        answer,
        ManageAnswer::Revoked {
            list: Some(SECOND),
            note: Some(_),
            ..
        }
    ));
    assert_eq!(rig.list().number(), SECOND);
    let shown = {
        let answer = rig.manage(ManageRequest::MemberShow {
            member: node.id().to_string(),
        });
        let ManageAnswer::Member(shown) = answer else {
            panic!("{answer:?}")
        };
        shown
    };
    assert_eq!(shown.name, "press-3");
    assert!(
        shown
            .revoked
            .is_some_and(|revoked| revoked.listed && revoked.reason == "lost")
    );
    assert_eq!(refused(rig.revoke(&rig.authority.id().to_string())).code, "order");
    assert_eq!(refused(rig.revoke("nobody")).code, "no-such-member");
    let silent = rig.manage(ManageRequest::MemberRevoke {
        member: node.id().to_string(),
        reason: " ".to_owned(),
    });
    assert_eq!(refused(silent).code, "order");
}

#[test]
fn several_revocations_of_one_batch_make_one_list() {
    let mut rig = Rig::new();
    let nodes: Vec<Node> = (0..10).map(|_| Node::new()).collect();
    let requests = nodes
        .iter()
        .map(|node| {
            let request = ManageRequest::MemberRevoke {
                member: node.id().to_string(),
                reason: "stolen".to_owned(),
            };
            (LOCAL, RequestKind::Manage(Box::new(request)))
        })
        .collect();
    rig.engine.handle_requests(rig.now, requests);
    rig.settle();
    let list = rig.list();
    assert_eq!((list.number(), list.revoked().len()), (SECOND, 10));
    assert!(nodes.iter().all(|node| list.is_revoked(&node.id())));
}

#[test]
fn long_lists_come_in_pages_that_fit_a_frame() {
    let mut rig = Rig::new();
    let long = |order: &mut crate::authority::wire::GrantOrder| {
        order.attributes = (0..7)
            .map(|index| (format!("key-{index}"), "\"".repeat(255)))
            .collect();
    };
    for _ in 0..150 {
        rig.ticket(|order| long(&mut order.grant));
    }
    for index in 0..150 {
        let mut grant = crate::authority::wire::GrantOrder::default();
        long(&mut grant);
        rig.manage(ManageRequest::MemberAdd(MemberOrder {
            identifier: Node::new().id().to_string(),
            name: format!("node-{index:03}"),
            grant,
        }));
    }
    let mut after = None;
    let (mut members, mut pages) = (Vec::new(), 0);
    loop {
        let answer = rig.manage(ManageRequest::MemberList {
            revoked: false,
            after,
        });
        assert!(answer.to_json().len() <= MESSAGE_BYTES_MAX);
        let ManageAnswer::Members { members: page, next } = answer else {
            panic!("no members");
        };
        members.extend(page.into_iter().map(|member| member.name));
        pages += 1;
        after = next;
        if after.is_none() {
            break;
        }
    }
    assert!(pages > 1);
    assert_eq!(
        members,
        (0..150)
            .map(|index| format!("node-{index:03}"))
            .collect::<Vec<_>>()
    );
    let mut after = None;
    let mut tickets = std::collections::BTreeSet::new();
    loop {
        let answer = rig.manage(ManageRequest::TicketList { after });
        assert!(answer.to_json().len() <= MESSAGE_BYTES_MAX);
        let ManageAnswer::Tickets { tickets: page, next } = answer else {
            panic!("no tickets");
        };
        tickets.extend(page.into_iter().map(|ticket| ticket.id));
        after = next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(tickets.len(), 150);
    for name in &members {
        rig.revoke(name);
    }
    let mut after = None;
    let mut revoked = std::collections::BTreeSet::new();
    loop {
        let answer = rig.manage(ManageRequest::MemberList { revoked: true, after });
        assert!(answer.to_json().len() <= MESSAGE_BYTES_MAX);
        let ManageAnswer::Members { members: page, next } = answer else {
            panic!("no members");
        };
        revoked.extend(page.into_iter().map(|member| member.name));
        after = next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(revoked.len(), 150);
}

#[test]
fn members_in_the_file_come_and_go_with_it() {
    let (stays, goes, changes) = (Node::new(), Node::new(), Node::new());
    let grant = |name: &str| Grant {
        name: name.to_owned(),
        ..Grant::default()
    };
    let members = BTreeMap::from([
        (stays.id(), grant("stays")),
        (goes.id(), grant("goes")),
        (changes.id(), grant("changes")),
    ]);
    let mut rig = Rig::with(|settings| settings.members = members);
    for node in [&stays, &goes, &changes] {
        assert!(matches!(rig.renew(node), AuthorityAnswer::Issued(_)));
    }
    // A ticket does not change what the file says.
    let ticket = rig.ticket(|_| ());
    let mut stays = stays;
    assert_eq!(rig.enrol(stays.request(&ticket, "")), AuthorityAnswer::Denied);
    let taken = rig.member(|order| order.name = Some("taken".to_owned()));
    let revoked = Node::new();
    rig.revoke(&revoked.id().to_string());
    let late = Node::new();
    let members = BTreeMap::from([
        (stays.id(), grant("stays")),
        (changes.id(), grant("changed")),
        (late.id(), grant("taken")),
        (revoked.id(), grant("revoked")),
    ]);
    let own_rules = Box::new(crate::authority::permit::OwnRules);
    let mut rig = rig.restart_with(own_rules, |settings| settings.members = members);
    assert_eq!(rig.renew(&goes), AuthorityAnswer::Denied);
    assert_eq!(rig.renew(&late), AuthorityAnswer::Denied);
    assert_eq!(rig.renew(&revoked), AuthorityAnswer::Denied);
    assert!(matches!(rig.renew(&taken), AuthorityAnswer::Issued(_)));
    let answer = rig.renew(&changes);
    assert_eq!(rig.credential(&answer).name, "changed");
    let problems = rig.engine.status().problems;
    assert_eq!(problems.len(), 2, "{problems:?}");
    let log = rig.log();
    for line in [
        "add-member done: stays stands in the file",
        "remove-member done: goes stands in the file no more",
        "change-member done: changed stands in the file",
    ] {
        assert!(log.iter().any(|entry| entry == line), "{line}: {log:?}");
    }
    rig.verify_log();
}

#[test]
fn the_head_of_the_log_is_signed() {
    let mut rig = Rig::new();
    let page = rig.log_page(1);
    let ManageAnswer::LogHead { statement } = rig.manage(ManageRequest::LogHead {}) else {
        panic!("no head");
    };
    let bytes = data_encoding::BASE64
        .decode(statement.as_bytes())
        .expect("the head is Base64");
    let presented = Presentation::decode(StatementKind::LogHead, &bytes).expect("the head is one");
    let (_, statement) = presented
        .verify_alone(rig.authority.id())
        .expect("the authority has signed it");
    let head = fieldgate_proto::trust::LogHead::decode(&statement).expect("the head is one");
    assert_eq!(head.entries, page.head);
    assert_eq!(data_encoding::HEXLOWER.encode(&head.hash), page.head_hash);
}
