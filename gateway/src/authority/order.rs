//! What operators may ask for: the bounds of tickets and members, checked before anything is decided.

use std::collections::BTreeMap;

use fieldgate_proto::{
    relay::NamePattern,
    trust::{ATTRIBUTES_MAX, NAME_LEN_MAX, PATTERNS_MAX, Rights},
};

use super::{
    Refusal,
    record::Grant,
    wire::{GrantOrder, REASON_BYTES_MAX, TicketOrder},
};

/// Shortest life of a ticket, in seconds.
pub(super) const TICKET_SECS_MIN: u64 = 60;
/// Longest life of a ticket, in seconds: 400 days.
pub(super) const TICKET_SECS_MAX: u64 = 400 * 86_400;
/// Most uses of one ticket.
pub(super) const TICKET_USES_MAX: u32 = 100_000;
/// Longest name of an attribute, in bytes.
pub(super) const ATTRIBUTE_KEY_BYTES_MAX: usize = 63;
/// Longest value of an attribute, in bytes.
pub(super) const ATTRIBUTE_VALUE_BYTES_MAX: usize = 255;
/// Attributes and patterns of one member together, in bytes. With a history of 16 changes in front, a credential that
/// holds as much still fits a presentation.
pub(super) const GRANT_BYTES_MAX: usize = 2048;

/// How every identifier begins.
pub(super) const IDENTIFIER_START: &str = "fg1";

/// Reads the order of a ticket.
///
/// # Errors
/// [`Refusal::Order`].
pub(super) fn ticket(order: &TicketOrder) -> Result<Grant, Refusal> {
    if !(TICKET_SECS_MIN..=TICKET_SECS_MAX).contains(&order.expires_secs) {
        return Err(out_of_bounds(
            "expires",
            order.expires_secs,
            TICKET_SECS_MIN,
            TICKET_SECS_MAX,
        ));
    }
    if !(1..=TICKET_USES_MAX).contains(&order.uses) {
        let max = u64::from(TICKET_USES_MAX);
        return Err(out_of_bounds("uses", u64::from(order.uses), 1, max));
    }
    let name = order.name.as_deref().unwrap_or_default();
    if order.name.is_some() {
        check_name(name)?;
        if order.uses > 1 {
            return Err(Refusal::Order {
                field: "uses",
                problem: format!(
                    "is {}, but only one member can have the name {name:?}",
                    order.uses
                ),
            });
        }
    }
    grant(name, &order.grant)
}

/// Reads what is to be granted to `name`.
///
/// # Errors
/// [`Refusal::Order`].
pub(super) fn grant(name: &str, order: &GrantOrder) -> Result<Grant, Refusal> {
    let attributes = attributes(&order.attributes)?;
    let hold = patterns("hold", &order.hold)?;
    let reach = patterns("reach", &order.reach)?;
    let pairs: usize = attributes
        .iter()
        .map(|(key, value)| key.len() + value.len() + 2)
        .sum();
    let texts = order.hold.iter().chain(&order.reach);
    let bytes = pairs + texts.map(|text| text.len() + 1).sum::<usize>();
    if bytes > GRANT_BYTES_MAX {
        return Err(Refusal::Order {
            field: "attributes and patterns",
            problem: format!("take {bytes} bytes together, more than {GRANT_BYTES_MAX}"),
        });
    }
    Ok(Grant {
        name: name.to_owned(),
        attributes,
        hold,
        reach,
        rights: Rights {
            enroller: order.enroller,
            administrator: order.administrator,
        },
    })
}

/// Checks the name of a member: 1 to 63 of `a-z0-9-`, as names of nodes are, and not to be taken for an identifier: who
/// revokes one by its identifier must not hit another who is called so.
///
/// # Errors
/// [`Refusal::Order`].
pub(super) fn check_name(name: &str) -> Result<(), Refusal> {
    let known = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if name.is_empty() || name.len() > NAME_LEN_MAX || !name.bytes().all(known) {
        return Err(Refusal::Order {
            field: "name",
            problem: format!("is {name:?}, not 1 to {NAME_LEN_MAX} of a-z 0-9 -"),
        });
    }
    if name.starts_with(IDENTIFIER_START) {
        return Err(Refusal::Order {
            field: "name",
            problem: format!("is {name:?}, and begins as identifiers do"),
        });
    }
    Ok(())
}

/// Checks the reason of a revocation.
///
/// # Errors
/// [`Refusal::Order`].
pub(super) fn check_reason(reason: &str) -> Result<(), Refusal> {
    if reason.trim().is_empty() || reason.len() > REASON_BYTES_MAX || reason.chars().any(char::is_control) {
        return Err(Refusal::Order {
            field: "reason",
            problem: format!("is not 1 to {REASON_BYTES_MAX} bytes of text on one line"),
        });
    }
    Ok(())
}

fn attributes(order: &BTreeMap<String, String>) -> Result<BTreeMap<String, String>, Refusal> {
    if order.len() > ATTRIBUTES_MAX {
        return Err(Refusal::Order {
            field: "attributes",
            problem: format!("are {}, more than {ATTRIBUTES_MAX}", order.len()),
        });
    }
    for (key, value) in order {
        let short = !key.is_empty() && key.len() <= ATTRIBUTE_KEY_BYTES_MAX;
        if !short || key.chars().any(char::is_control) {
            return Err(Refusal::Order {
                field: "attribute",
                problem: format!(
                    "{key:?} has a name that is not 1 to {ATTRIBUTE_KEY_BYTES_MAX} bytes of text"
                ),
            });
        }
        if value.len() > ATTRIBUTE_VALUE_BYTES_MAX || value.chars().any(char::is_control) {
            return Err(Refusal::Order {
                field: "attribute",
                problem: format!(
                    "{key:?} has a value that is not at most {ATTRIBUTE_VALUE_BYTES_MAX} bytes of text"
                ),
            });
        }
    }
    Ok(order.clone())
}

fn patterns(field: &'static str, order: &[String]) -> Result<Vec<NamePattern>, Refusal> {
    if order.len() > PATTERNS_MAX {
        return Err(Refusal::Order {
            field,
            problem: format!("has {} patterns, more than {PATTERNS_MAX}", order.len()),
        });
    }
    order
        .iter()
        .map(|text| {
            if text.chars().any(char::is_control) {
                return Err(Refusal::Order {
                    field,
                    problem: format!("{text:?} holds control characters"),
                });
            }
            text.parse().map_err(|error| Refusal::Order {
                field,
                problem: format!("is wrong: {error}"),
            })
        })
        .collect()
}

fn out_of_bounds(field: &'static str, got: u64, min: u64, max: u64) -> Refusal {
    Refusal::Order {
        field,
        problem: format!("is {got}, outside {min}..={max}"),
    }
}

/// Returns the first thing in `wanted` that an issuer with `own` does not have itself, if there is one.
///
/// Attributes must be its own, word for word; a pattern must lie within one of its own; rights at the authority are not
/// its to give.
pub(super) fn exceeds(own: &Grant, wanted: &Grant) -> Option<String> {
    if wanted.rights != Rights::default() {
        return Some("rights at the authority".to_owned());
    }
    let foreign = wanted
        .attributes
        .iter()
        .find(|(key, value)| own.attributes.get(*key) != Some(value));
    if let Some((key, value)) = foreign {
        return Some(format!("the attribute {key}={value}"));
    }
    let outside = |own: &[NamePattern], wanted: &[NamePattern]| {
        wanted
            .iter()
            .find(|wanted| !own.iter().any(|own| covers(own, wanted)))
            .map(ToString::to_string)
    };
    if let Some(pattern) = outside(&own.hold, &wanted.hold) {
        return Some(format!("to hold {pattern}"));
    }
    outside(&own.reach, &wanted.reach).map(|pattern| format!("to reach {pattern}"))
}

/// Returns whether every name that `inner` means is meant by `outer`.
fn covers(outer: &NamePattern, inner: &NamePattern) -> bool {
    match (outer, inner) {
        (_, NamePattern::Exact(name)) => outer.matches(name),
        (NamePattern::Prefix(outer), NamePattern::Prefix(inner)) => inner.starts_with(outer.as_str()),
        (NamePattern::Exact(_), NamePattern::Prefix(_)) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patterned(hold: &[&str]) -> Grant {
        Grant {
            hold: hold
                .iter()
                .map(|text| text.parse().expect("the text is a pattern"))
                .collect(),
            ..Grant::default()
        }
    }

    /// Spoils an order.
    type Change = fn(&mut TicketOrder);

    fn order() -> TicketOrder {
        TicketOrder {
            name: None,
            uses: 1,
            expires_secs: 3600,
            grant: GrantOrder::default(),
        }
    }

    #[test]
    fn takes_a_plain_order() {
        assert_eq!(ticket(&order()), Ok(Grant::default()));
    }

    #[test]
    fn refuses_what_is_out_of_bounds() {
        let bad: [(&str, Change); 12] = [
            ("name", |order| order.name = Some("fg1qqq".to_owned())),
            ("expires", |order| order.expires_secs = TICKET_SECS_MIN - 1),
            ("expires", |order| order.expires_secs = TICKET_SECS_MAX + 1),
            ("uses", |order| order.uses = 0),
            ("uses", |order| order.uses = TICKET_USES_MAX + 1),
            ("name", |order| order.name = Some("Press 3".to_owned())),
            ("name", |order| order.name = Some("a".repeat(64))),
            ("uses", |order| {
                order.name = Some("press-3".to_owned());
                order.uses = 2;
            }),
            ("attribute", |order| {
                order.grant.attributes.insert("a\nb".to_owned(), String::new());
            }),
            ("attribute", |order| {
                order.grant.attributes.insert("site".to_owned(), "x".repeat(256));
            }),
            ("hold", |order| order.grant.hold = vec!["a*b".to_owned()]),
            ("reach", |order| order.grant.reach = vec!["a".to_owned(); 17]),
        ];
        for (want, change) in bad {
            let mut order = order();
            change(&mut order);
            match ticket(&order) {
                Err(Refusal::Order { field, .. }) => assert_eq!(field, want),
                other => panic!("{want}: {other:?}"),
            }
        }
    }

    #[test]
    fn bounds_all_texts_together() {
        let mut order = order();
        for index in 0..9 {
            order
                .grant
                .attributes
                .insert(format!("key-{index}"), "x".repeat(ATTRIBUTE_VALUE_BYTES_MAX));
        }
        assert!(matches!(
            ticket(&order),
            Err(Refusal::Order {
                field: "attributes and patterns",
                ..
            })
        ));
    }

    #[test]
    fn an_issuer_gives_only_what_it_has() {
        let own = Grant {
            attributes: BTreeMap::from([("site".to_owned(), "north".to_owned())]),
            rights: Rights {
                enroller: true,
                administrator: false,
            },
            ..patterned(&["press-*", "hall"])
        };
        for inner in ["press-3", "press-*", "press-hall-*", "hall"] {
            assert_eq!(exceeds(&own, &patterned(&[inner])), None, "{inner}");
        }
        for outer in ["*", "pres*", "hall-2", "hall*", "collector"] {
            assert_eq!(
                exceeds(&own, &patterned(&[outer])),
                Some(format!("to hold {outer}")),
                "{outer}"
            );
        }
        let with = |key: &str, value: &str| Grant {
            attributes: BTreeMap::from([(key.to_owned(), value.to_owned())]),
            ..Grant::default()
        };
        assert_eq!(exceeds(&own, &with("site", "north")), None);
        assert!(exceeds(&own, &with("site", "south")).is_some());
        assert!(exceeds(&own, &with("line", "3")).is_some());
        let enroller = Grant {
            rights: own.rights,
            ..Grant::default()
        };
        assert!(exceeds(&own, &enroller).is_some());
    }
}
