//! Random sequences of what can happen, compared with a model that a page explains.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

/// Something that happens. Nodes and tickets are numbers, taken modulo how many there are.
#[derive(Clone, Debug)]
enum Event {
    Issue { uses: u32, hours: u64 },
    Enrol { node: usize, ticket: usize },
    Renew { node: usize },
    RevokeTicket { ticket: usize },
    RevokeMember { node: usize },
    Add { node: usize },
    Wait { hours: u64 },
    Restart,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        3 => (1_u32..4, 1_u64..48).prop_map(|(uses, hours)| Event::Issue { uses, hours }),
        10 => (0_usize..NODES, any::<usize>()).prop_map(|(node, ticket)| Event::Enrol { node, ticket }),
        3 => (0_usize..NODES).prop_map(|node| Event::Renew { node }),
        1 => any::<usize>().prop_map(|ticket| Event::RevokeTicket { ticket }),
        1 => (0_usize..NODES).prop_map(|node| Event::RevokeMember { node }),
        1 => (0_usize..NODES).prop_map(|node| Event::Add { node }),
        2 => (1_u64..30).prop_map(|hours| Event::Wait { hours }),
        1 => Just(Event::Restart),
    ]
}

/// Nodes of the model.
const NODES: usize = 6;

/// A ticket of the model.
struct ModelTicket {
    ticket: Ticket,
    uses: usize,
    not_after: u64,
    revoked: bool,
    spent_for: BTreeSet<usize>,
}

/// What must be true, without store, log and signatures.
#[derive(Default)]
struct Model {
    tickets: Vec<ModelTicket>,
    members: BTreeSet<usize>,
    revoked: BTreeSet<usize>,
}

impl Model {
    fn may_enrol(&self, node: usize, ticket: usize, now: u64) -> bool {
        let Some(ticket) = self.tickets.get(ticket) else {
            return false;
        };
        if ticket.revoked || self.revoked.contains(&node) {
            return false;
        }
        let left = now <= ticket.not_after && ticket.spent_for.len() < ticket.uses;
        ticket.spent_for.contains(&node) || left
    }
}

fn step(rig: Rig, model: &mut Model, nodes: &mut [Node], event: Event) -> Rig {
    let mut rig = rig;
    let now = rig.now.wall.unix_secs();
    match event {
        Event::Issue { uses, hours } => {
            let ticket = rig.ticket(|order| {
                order.uses = uses;
                order.expires_secs = hours * 3600;
            });
            model.tickets.push(ModelTicket {
                not_after: now + hours * 3600,
                uses: uses as usize,
                revoked: false,
                spent_for: BTreeSet::new(),
                ticket,
            });
        }
        Event::Enrol { node, ticket } => {
            if model.tickets.is_empty() {
                return rig;
            }
            let ticket = ticket % model.tickets.len();
            let request = nodes[node].request(&model.tickets[ticket].ticket, "node");
            let answer = rig.enrol(request);
            let may = model.may_enrol(node, ticket, now);
            assert_eq!(matches!(answer, AuthorityAnswer::Issued(_)), may, "{answer:?}");
            if may {
                assert_eq!(rig.credential(&answer).subject, nodes[node].id());
                model.tickets[ticket].spent_for.insert(node);
                model.members.insert(node);
            } else {
                assert_eq!(answer, AuthorityAnswer::Denied);
            }
        }
        Event::Renew { node } => {
            let answer = rig.renew(&nodes[node]);
            let may = model.members.contains(&node);
            assert_eq!(matches!(answer, AuthorityAnswer::Issued(_)), may, "{answer:?}");
        }
        Event::RevokeTicket { ticket } => {
            if model.tickets.is_empty() {
                return rig;
            }
            let ticket = ticket % model.tickets.len();
            let ticket = &mut model.tickets[ticket];
            let id = data_encoding::HEXLOWER.encode(ticket.ticket.id());
            let answer = rig.manage(ManageRequest::TicketRevoke { id });
            assert!(matches!(answer, ManageAnswer::Revoked { .. }), "{answer:?}");
            ticket.revoked = true;
        }
        Event::RevokeMember { node } => {
            let answer = rig.revoke(&nodes[node].id().to_string());
            assert!(matches!(answer, ManageAnswer::Revoked { .. }), "{answer:?}");
            model.members.remove(&node);
            model.revoked.insert(node);
            assert!(rig.list().is_revoked(&nodes[node].id()));
        }
        Event::Add { node } => {
            let answer = rig.add(&nodes[node], &format!("added-{node}"));
            let may = !model.members.contains(&node) && !model.revoked.contains(&node);
            assert_eq!(matches!(answer, ManageAnswer::Member(_)), may, "{answer:?}");
            if may {
                model.members.insert(node);
            }
        }
        Event::Wait { hours } => rig.wait(hours * 3600),
        Event::Restart => rig = rig.restart(),
    }
    rig
}

fn compare(rig: &mut Rig, model: &Model, nodes: &[Node]) {
    rig.verify_log();
    for ticket in &model.tickets {
        assert_eq!(used(rig, &ticket.ticket) as usize, ticket.spent_for.len());
    }
    let status = rig.engine.status();
    assert_eq!(status.members, model.members.len() as u64);
    assert_eq!(status.revoked, model.revoked.len() as u64);
    let list = rig.list();
    for (index, node) in nodes.iter().enumerate() {
        assert_eq!(list.is_revoked(&node.id()), model.revoked.contains(&index));
    }
    // The log tells the same story: as many enrolments as uses were spent.
    let spent: usize = model.tickets.iter().map(|ticket| ticket.spent_for.len()).sum();
    let enrolled = rig
        .log()
        .iter()
        .filter(|line| line.starts_with("enrol done"))
        .count();
    assert_eq!(enrolled, spent);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn whatever_happens_the_model_agrees(events in proptest::collection::vec(event(), 1..40)) {
        let mut rig = Rig::new();
        let mut model = Model::default();
        let mut nodes: Vec<Node> = (0..NODES).map(|_| Node::new()).collect();
        for event in events {
            rig = step(rig, &mut model, &mut nodes, event);
        }
        compare(&mut rig, &model, &nodes);
    }
}
