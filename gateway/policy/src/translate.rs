//! Questions in the words of Cedar.

use std::sync::LazyLock;

use cedar_policy::{
    Context as CedarContext, Entities, Entity, EntityId, EntityTypeName, EntityUid, Request as CedarRequest,
    RestrictedExpression,
};

use crate::request::{Action, Context, Principal, Request, Resource, ResourceKind};

/// A question and what it speaks about, as Cedar's evaluator takes them.
#[derive(Debug)]
pub(crate) struct Translated {
    pub(crate) request: CedarRequest,
    pub(crate) entities: Entities,
}

/// Puts a question into Cedar's words. It fits the schema, because [`Request`] does.
pub(crate) fn translate(request: &Request) -> Translated {
    let principal = principal_entity(request.principal());
    let resource = resource_uid(request.resource());
    let question = CedarRequest::new(
        principal.uid(),
        action_uid(request.action()),
        resource.clone(),
        context(request.action(), request.context()),
        None,
    );
    let attributes = resource_attributes(request.resource());
    let resource = (!attributes.is_empty())
        .then(|| Entity::new_with_tags(resource, attributes, [], []).expect("texts have values"));
    let entities = Entities::from_entities(std::iter::once(principal).chain(resource), None);
    Translated {
        request: question.expect("nothing is checked without a schema"),
        entities: entities.expect("a node, its groups and a resource are of different types"),
    }
}

/// Returns the name of an action in policies.
pub(crate) fn action_uid(action: Action) -> EntityUid {
    uid(&NAMES.action, action.as_str())
}

/// Returns whether `uid` names a node; if so, with which id.
pub(crate) fn node_id(uid: &EntityUid) -> Option<&str> {
    (*uid.type_name() == NAMES.node).then(|| uid.id().unescaped())
}

/// Returns whether `uid` names a group; if so, which.
pub(crate) fn group_id(uid: &EntityUid) -> Option<&str> {
    (*uid.type_name() == NAMES.group).then(|| uid.id().unescaped())
}

/// Returns the name of a resource in policies.
pub(crate) fn resource_uid(resource: &Resource) -> EntityUid {
    let type_name = match resource.kind() {
        ResourceKind::Service => &NAMES.service,
        ResourceKind::RelayName => &NAMES.relay_name,
        ResourceKind::Device => &NAMES.device,
        ResourceKind::Portal => &NAMES.portal,
        ResourceKind::Authority => &NAMES.authority,
        ResourceKind::Configuration => &NAMES.configuration,
    };
    uid(type_name, resource.id())
}

fn principal_entity(principal: &Principal) -> Entity {
    let attributes = [
        ("name", text(&principal.name)),
        ("named", flag(principal.named)),
        ("member", flag(principal.member)),
        ("enroller", flag(principal.enroller)),
        ("administrator", flag(principal.administrator)),
        ("key", text(principal.key.as_str())),
    ];
    let groups = principal
        .groups()
        .into_iter()
        .map(|group| uid(&NAMES.group, group));
    let tags = principal
        .attributes
        .iter()
        .map(|(key, value)| (key.clone(), text(value)));
    let entity = Entity::new_with_tags(
        uid(&NAMES.node, &principal.identifier.to_string()),
        attributes.map(|(key, value)| (key.to_owned(), value)),
        groups,
        tags,
    );
    entity.expect("texts and flags have values")
}

fn resource_attributes(resource: &Resource) -> Vec<(String, RestrictedExpression)> {
    let pair = |key: &str, value: &str| (key.to_owned(), text(value));
    match resource {
        Resource::RelayName(name) => vec![pair("name", name)],
        Resource::Device { name, gateway } => vec![pair("name", name), pair("gateway", gateway)],
        Resource::Portal { name, kind } => vec![pair("name", name), pair("kind", kind)],
        Resource::Service(_) | Resource::Authority | Resource::Configuration => Vec::new(),
    }
}

fn context(action: Action, context: &Context) -> CedarContext {
    let always = [
        ("timeQuality", text(context.time_quality.as_str())),
        ("postQuantum", flag(context.post_quantum)),
        ("liveProof", flag(context.live_proof)),
        ("granted", flag(context.granted)),
        ("revocation", text(context.revocation.as_str())),
    ];
    let ticket = context
        .ticket
        .filter(|_| action == Action::IssueTicket)
        .map(|ticket| {
            [
                ("grantsAdministrator", flag(ticket.grants_administrator)),
                ("grantsEnroller", flag(ticket.grants_enroller)),
            ]
        });
    let stream = (action == Action::OpenPortal).then(|| {
        let stream = context.stream.clone().unwrap_or_default();
        [
            ("origin", text(&stream.origin)),
            ("user", text(&stream.user)),
            ("destination", text(&stream.destination)),
            (
                "minuteOfDay",
                RestrictedExpression::new_long(i64::from(stream.minute_of_day)),
            ),
            ("weekday", text(stream.weekday.as_str())),
        ]
    });
    let link = context.link.map(|link| ("link", text(link.as_str())));
    let hops = context
        .hops
        .map(|hops| ("hops", RestrictedExpression::new_long(i64::from(hops))));
    let pairs = always
        .into_iter()
        .chain(link)
        .chain(hops)
        .chain(ticket.into_iter().flatten())
        .chain(stream.into_iter().flatten());
    CedarContext::from_pairs(pairs.map(|(key, value)| (key.to_owned(), value)))
        .expect("each key stands there once")
}

fn text(value: &str) -> RestrictedExpression {
    RestrictedExpression::new_string(value.to_owned())
}

fn flag(value: bool) -> RestrictedExpression {
    RestrictedExpression::new_bool(value)
}

fn uid(type_name: &EntityTypeName, id: &str) -> EntityUid {
    EntityUid::from_type_name_and_id(type_name.clone(), EntityId::new(id))
}

/// The entity types of the schema, parsed once.
struct Names {
    node: EntityTypeName,
    group: EntityTypeName,
    action: EntityTypeName,
    service: EntityTypeName,
    relay_name: EntityTypeName,
    device: EntityTypeName,
    portal: EntityTypeName,
    authority: EntityTypeName,
    configuration: EntityTypeName,
}

static NAMES: LazyLock<Names> = LazyLock::new(|| {
    let name = |basename: &str| -> EntityTypeName {
        format!("Fieldgate::{basename}")
            .parse()
            .expect("two words joined by colons are a name")
    };
    Names {
        node: name("Node"),
        group: name("Group"),
        action: name("Action"),
        service: name(ResourceKind::Service.as_str()),
        relay_name: name(ResourceKind::RelayName.as_str()),
        device: name(ResourceKind::Device.as_str()),
        portal: name(ResourceKind::Portal.as_str()),
        authority: name(ResourceKind::Authority.as_str()),
        configuration: name(ResourceKind::Configuration.as_str()),
    }
});

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use cedar_policy::{Request as CedarRequest, Schema};
    use fieldgate_proto::identity::Identifier;

    use super::*;
    use crate::request::{LinkKind, Service, TicketRights};

    fn schema() -> Schema {
        crate::SCHEMA.parse().expect("the schema is good")
    }

    fn resources() -> Vec<Resource> {
        let name = || "a \"name\" \\ with \n everything".to_owned();
        let services = Service::ALL.iter().map(|service| Resource::Service(*service));
        let others = [
            Resource::RelayName(name()),
            Resource::Device {
                name: name(),
                gateway: name(),
            },
            Resource::Portal {
                name: name(),
                kind: name(),
            },
            Resource::Authority,
            Resource::Configuration,
        ];
        services.chain(others).collect()
    }

    #[test]
    fn every_action_of_the_schema_is_known_with_its_resource() {
        let schema = schema();
        assert_eq!(schema.actions().count(), Action::ALL.len());
        for action in Action::ALL {
            let resources: Vec<_> = schema
                .resources_for_action(&action_uid(*action))
                .expect("it is in the schema")
                .map(ToString::to_string)
                .collect();
            assert_eq!(resources, [format!("Fieldgate::{}", action.resource_kind())]);
        }
    }

    /// Cedar itself checks against the schema what `translate` takes for granted.
    #[test]
    fn every_question_fits_the_schema() {
        let schema = schema();
        let mut full = Principal::new(Identifier::from_bytes([1; 32]));
        full.name = "n".to_owned();
        full.attributes = BTreeMap::from([
            ("site".to_owned(), "north".to_owned()),
            ("groups".to_owned(), "a,b".to_owned()),
        ]);
        let bare = Context {
            ticket: Some(TicketRights {
                grants_administrator: true,
                grants_enroller: false,
            }),
            ..Context::default()
        };
        let rich = Context {
            link: Some(LinkKind::Quic),
            hops: Some(u32::MAX),
            ..bare.clone()
        };
        let mut asked = 0;
        for action in Action::ALL {
            for resource in resources() {
                for context in [&bare, &rich] {
                    let Ok(request) = Request::new(full.clone(), *action, resource.clone(), context.clone())
                    else {
                        continue;
                    };
                    asked += 1;
                    let translated = translate(&request);
                    let question = translated.request;
                    let checked = CedarRequest::new(
                        question.principal().expect("known").clone(),
                        question.action().expect("known").clone(),
                        question.resource().expect("known").clone(),
                        question.context().expect("known").clone(),
                        Some(&schema),
                    );
                    checked.expect("the question fits");
                    let entities: Vec<_> = translated.entities.iter().cloned().collect();
                    Entities::from_entities(entities, Some(&schema)).expect("the entities fit");
                }
            }
        }
        // Ten actions with one resource each, two with all five services; each with two contexts.
        assert_eq!(asked, 2 * (10 + 2 * 5));
    }
}
