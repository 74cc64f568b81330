//! The built-in policy without Cedar.
//!
//! Parsing it, and having been able to, costs a process 5 MiB of memory, which a small gateway does not have to spare for six rules. So they
//! stand here a second time. The text decides what is right: tests compare the two over all that the rules look at.

use crate::request::{Action, Request};

/// The ids of the rules, in the order of the text.
pub(crate) const IDS: [&str; 6] = [
    "named-peers",
    "members-connect",
    "members-granted",
    "enrollers-issue-tickets",
    "administrators",
    "anyone-enrolls",
];

/// Returns the rules that permit a request, by their index in the text. None forbids.
pub(crate) fn permits(request: &Request) -> Vec<usize> {
    let principal = request.principal();
    let context = request.context();
    let action = request.action();
    let gives_no_rights = context
        .ticket
        .is_some_and(|ticket| !ticket.grants_administrator && !ticket.grants_enroller);
    let is_administration = matches!(
        action,
        Action::IssueTicket | Action::Revoke | Action::Configure | Action::ReadStatus
    );
    let holds: [bool; IDS.len()] = [
        principal.named && context.granted,
        principal.member && matches!(action, Action::Connect | Action::Renew),
        principal.member && context.granted,
        principal.enroller && action == Action::IssueTicket && gives_no_rights,
        principal.administrator && is_administration,
        action == Action::Enroll,
    ];
    let permits = holds.iter().enumerate().filter(|(_, holds)| **holds);
    permits.map(|(index, _)| index).collect()
}

#[cfg(test)]
mod tests {
    use fieldgate_proto::identity::Identifier;
    use proptest::prelude::*;

    use super::*;
    use crate::{
        BUILT_IN, Context, KeyStorage, LinkKind, Policy, Principal, Resource, ResourceKind, Revocation,
        Service, StreamFacts, TicketRights, TimeQuality, Weekday, check,
    };

    fn resource(action: Action, name: &str) -> Resource {
        let name = name.to_owned();
        match action.resource_kind() {
            ResourceKind::Service => Resource::Service(Service::Uplink),
            ResourceKind::RelayName => Resource::RelayName(name),
            ResourceKind::Device => Resource::Device {
                gateway: name.clone(),
                name,
            },
            ResourceKind::Portal => Resource::Portal {
                kind: name.clone(),
                name,
            },
            ResourceKind::Authority => Resource::Authority,
            ResourceKind::Configuration => Resource::Configuration,
        }
    }

    fn text() -> Policy {
        check("built-in", BUILT_IN).policy.expect("it is good")
    }

    #[test]
    fn says_what_the_text_says_whatever_the_rules_look_at() {
        let text = text();
        let mut asked = 0;
        for bits in 0_u32..1 << 7 {
            let is = |bit: u32| bits >> bit & 1 == 1;
            let principal = Principal {
                named: is(0),
                member: is(1),
                enroller: is(2),
                administrator: is(3),
                ..Principal::new(Identifier::from_bytes([1; 32]))
            };
            let context = Context {
                granted: is(4),
                ticket: Some(TicketRights {
                    grants_administrator: is(5),
                    grants_enroller: is(6),
                }),
                ..Context::default()
            };
            for action in Action::ALL {
                let request = Request::new(
                    principal.clone(),
                    *action,
                    resource(*action, "a"),
                    context.clone(),
                )
                .expect("they fit");
                assert_eq!(
                    Policy::built_in().decide(&request),
                    text.decide(&request),
                    "{request:?}"
                );
                asked += 1;
            }
        }
        assert_eq!(asked, 128 * 12);
    }

    fn any_of<T: Copy + std::fmt::Debug + 'static>(words: &'static [T]) -> impl Strategy<Value = T> {
        prop::sample::select(words)
    }

    fn any_principal() -> impl Strategy<Value = Principal> {
        let flags = any::<[bool; 4]>();
        let attributes = prop::collection::btree_map("site|groups|[a-z]{0,3}", "[a-z,]{0,5}", 0..3);
        (
            flags,
            any::<[u8; 32]>(),
            "[a-z-]{0,8}",
            any_of(KeyStorage::ALL),
            attributes,
        )
            .prop_map(|(flags, identifier, name, key, attributes)| {
                let [named, member, enroller, administrator] = flags;
                Principal {
                    identifier: Identifier::from_bytes(identifier),
                    name,
                    named,
                    member,
                    enroller,
                    administrator,
                    key,
                    attributes,
                }
            })
    }

    fn any_context() -> impl Strategy<Value = Context> {
        (
            any::<[bool; 5]>(),
            any_of(TimeQuality::ALL),
            prop::option::of(any_of(LinkKind::ALL)),
            any::<Option<u32>>(),
            any_of(Revocation::ALL),
        )
            .prop_map(|(flags, time_quality, link, hops, revocation)| {
                let [
                    post_quantum,
                    live_proof,
                    granted,
                    grants_administrator,
                    grants_enroller,
                ] = flags;
                Context {
                    time_quality,
                    link,
                    hops,
                    post_quantum,
                    live_proof,
                    granted,
                    revocation,
                    ticket: Some(TicketRights {
                        grants_administrator,
                        grants_enroller,
                    }),
                    stream: None,
                }
            })
    }

    fn any_stream() -> impl Strategy<Value = StreamFacts> {
        (any::<[String; 3]>(), 0_u16..1_440, any_of(Weekday::ALL)).prop_map(
            |(texts, minute_of_day, weekday)| {
                let [origin, user, destination] = texts;
                StreamFacts {
                    origin,
                    user,
                    destination,
                    minute_of_day,
                    weekday,
                }
            },
        )
    }

    proptest! {
        /// Over everything that a rule could look at.
        #[test]
        fn says_what_the_text_says_about_anybody(
            principal in any_principal(),
            context in any_context(),
            stream in prop::option::of(any_stream()),
            action in any_of(Action::ALL),
            name in "\\PC{0,8}",
        ) {
            let context = Context { stream, ..context };
            let request = Request::new(principal, action, resource(action, &name), context).expect("they fit");
            let native = Policy::built_in();
            prop_assert_eq!(native.decide(&request), text().decide(&request));
            prop_assert_eq!(native.demands_live_proof(&request), text().demands_live_proof(&request));
            prop_assert_eq!(native.explain(&request).allowed, native.decide(&request).allowed);
        }
    }
}
