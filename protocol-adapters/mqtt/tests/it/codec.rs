//! Every packet, written and read again.

use fieldgate_mqtt::{
    encode::EncodeError,
    frame::{Split, split},
    packet::{
        Packet, PacketIdentifier, Qos,
        acknowledgement::{Acknowledgement, AcknowledgementKind},
        connack::{self, ConnAck},
        connect::{Connect, Will},
        disconnect::{AUTH_REASONS, Auth, DISCONNECT_REASONS, Disconnect},
        publish::Publish,
        suback::{Reasons, SUBACK_REASONS, SUBACK_REASONS_311, SubAck, UNSUBACK_REASONS, UnsubAck},
        subscribe::{RetainHandling, Subscribe, Subscription, Subscriptions},
        unsubscribe::{Filters, Unsubscribe},
    },
    property::{Properties, Property, PropertySite, SubscriptionIdentifier},
    reason::ReasonCode,
    version::ProtocolVersion,
};
use proptest::{collection::vec, option, prelude::*, sample::select};

use crate::bytes::{V5, V311};

/// Packets borrow; a test may leak.
fn leak<T: ?Sized>(value: impl Into<Box<T>>) -> &'static T {
    Box::leak(value.into())
}

fn text() -> impl Strategy<Value = &'static str> {
    prop_oneof!["[^\\x00]{0,12}", "\\PC{0,300}"].prop_map(leak::<str>)
}

fn topic() -> impl Strategy<Value = &'static str> {
    "[^\\x00#+]{1,20}".prop_map(leak::<str>)
}

fn bytes() -> impl Strategy<Value = &'static [u8]> {
    vec(any::<u8>(), 0..40).prop_map(leak::<[u8]>)
}

fn packet_id() -> impl Strategy<Value = PacketIdentifier> {
    any::<PacketIdentifier>()
}

fn qos() -> impl Strategy<Value = Qos> {
    select(vec![Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce])
}

fn version() -> impl Strategy<Value = ProtocolVersion> {
    select(vec![V311, V5])
}

fn property() -> impl Strategy<Value = Property<'static>> {
    let flags = (0..8_u8, any::<bool>()).prop_map(|(which, flag)| match which {
        0 => Property::PayloadFormatIndicator(flag),
        1 => Property::RequestProblemInformation(flag),
        2 => Property::RequestResponseInformation(flag),
        3 => Property::MaximumQos(flag),
        4 => Property::RetainAvailable(flag),
        5 => Property::WildcardSubscriptionAvailable(flag),
        6 => Property::SubscriptionIdentifierAvailable(flag),
        _ => Property::SharedSubscriptionAvailable(flag),
    });
    let numbers = (0..9_u8, any::<u32>(), any::<u16>()).prop_map(|(which, long, short)| match which {
        0 => Property::MessageExpiryInterval(long),
        1 => Property::SessionExpiryInterval(long),
        2 => Property::WillDelayInterval(long),
        3 => Property::MaximumPacketSize(long.max(1)),
        4 => Property::SubscriptionIdentifier(SubscriptionIdentifier((long >> 4).max(1))),
        5 => Property::ServerKeepAlive(short),
        6 => Property::ReceiveMaximum(short.max(1)),
        7 => Property::TopicAliasMaximum(short),
        _ => Property::TopicAlias(short.max(1)),
    });
    let texts =
        (0..9_u8, text(), text(), topic(), bytes()).prop_map(|(which, a, b, topic, bytes)| match which {
            0 => Property::ContentType(a),
            1 => Property::ResponseTopic(topic),
            2 => Property::CorrelationData(bytes),
            3 => Property::AssignedClientIdentifier(a),
            4 => Property::AuthenticationMethod(a),
            5 => Property::AuthenticationData(bytes),
            6 => Property::ServerReference(a),
            7 => Property::ReasonString(a),
            _ => Property::UserProperty((a, b)),
        });
    prop_oneof![1 => flags, 1 => numbers, 2 => texts]
}

/// Properties that may stand at `site` together.
fn properties(site: PropertySite) -> impl Strategy<Value = Properties<'static>> {
    vec(property(), 0..10).prop_map(move |mut list| {
        let mut seen = Vec::new();
        list.retain(|property| {
            let identifier = property.identifier();
            let repeats = matches!(property, Property::UserProperty(_));
            let first = repeats || !seen.contains(&identifier);
            seen.push(identifier);
            first && property.is_allowed_in(site)
        });
        if !list
            .iter()
            .any(|property| matches!(property, Property::AuthenticationMethod(_)))
        {
            list.retain(|property| !matches!(property, Property::AuthenticationData(_)));
        }
        Properties::from_list(leak::<[Property<'static>]>(list))
    })
}

fn for_version(version: ProtocolVersion, properties: Properties<'static>) -> Properties<'static> {
    if version == V5 {
        properties
    } else {
        Properties::EMPTY
    }
}

fn connect() -> impl Strategy<Value = (ProtocolVersion, Packet<'static>)> {
    let will = (
        qos(),
        any::<bool>(),
        topic(),
        bytes(),
        properties(PropertySite::Will),
    );
    let login = (option::of(text()), option::of(bytes()));
    (
        version(),
        any::<bool>(),
        any::<u16>(),
        text(),
        option::of(will),
        login,
        properties(PropertySite::Connect),
    )
        .prop_map(
            |(version, clean_start, keep_alive_secs, client_id, will, (username, password), properties)| {
                let will = will.map(|(qos, retain, topic, payload, properties)| Will {
                    qos,
                    retain,
                    topic,
                    payload,
                    properties: for_version(version, properties),
                });
                let password = password.filter(|_| version == V5 || username.is_some());
                let properties = for_version(version, properties);
                let packet = Connect {
                    version,
                    clean_start,
                    keep_alive_secs,
                    client_id,
                    will,
                    username,
                    password,
                    properties,
                };
                (version, Packet::Connect(packet))
            },
        )
}

fn connack() -> impl Strategy<Value = (ProtocolVersion, Packet<'static>)> {
    let reason = (select(connack::REASONS.to_vec()), 0..6_u8);
    (
        version(),
        any::<bool>(),
        reason,
        properties(PropertySite::ConnAck),
    )
        .prop_map(|(version, present, (reason, code), properties)| {
            let reason = match version {
                ProtocolVersion::V5 => reason,
                ProtocolVersion::V311 => ReasonCode::from_connect_return_code(code).unwrap(),
            };
            let session_present = present && reason == ReasonCode::Success;
            (
                version,
                Packet::ConnAck(ConnAck {
                    session_present,
                    reason,
                    properties: for_version(version, properties),
                }),
            )
        })
}

fn publish() -> impl Strategy<Value = (ProtocolVersion, Packet<'static>)> {
    let flags = (any::<bool>(), qos(), any::<bool>());
    (
        version(),
        flags,
        topic(),
        packet_id(),
        properties(PropertySite::Publish),
        bytes(),
        any::<bool>(),
    )
        .prop_map(
            |(version, (dup, qos, retain), topic, packet_id, properties, payload, by_alias)| {
                let properties = for_version(version, properties);
                let alias = properties
                    .iter()
                    .any(|property| matches!(property, Property::TopicAlias(_)));
                let packet = Publish {
                    dup: dup && qos != Qos::AtMostOnce,
                    qos,
                    retain,
                    topic: if alias && by_alias { "" } else { topic },
                    packet_id: (qos != Qos::AtMostOnce).then_some(packet_id),
                    properties,
                    payload,
                };
                (version, Packet::Publish(packet))
            },
        )
}

fn acknowledgement() -> impl Strategy<Value = (ProtocolVersion, Packet<'static>)> {
    select(AcknowledgementKind::ALL.to_vec())
        .prop_flat_map(|kind| {
            let (site, wrap): (_, fn(Acknowledgement<'static>) -> Packet<'static>) = match kind {
                AcknowledgementKind::PubAck => (PropertySite::PubAck, Packet::PubAck),
                AcknowledgementKind::PubRec => (PropertySite::PubRec, Packet::PubRec),
                AcknowledgementKind::PubRel => (PropertySite::PubRel, Packet::PubRel),
                AcknowledgementKind::PubComp => (PropertySite::PubComp, Packet::PubComp),
            };
            (
                Just(wrap),
                version(),
                packet_id(),
                select(kind.reasons().to_vec()),
                properties(site),
            )
        })
        .prop_map(|(wrap, version, packet_id, reason, properties)| {
            let reason = if version == V5 {
                reason
            } else {
                ReasonCode::Success
            };
            (
                version,
                wrap(Acknowledgement {
                    packet_id,
                    reason,
                    properties: for_version(version, properties),
                }),
            )
        })
}

fn subscribe() -> impl Strategy<Value = (ProtocolVersion, Packet<'static>)> {
    let handling = select(vec![
        RetainHandling::Always,
        RetainHandling::IfNew,
        RetainHandling::Never,
    ]);
    let subscription = (text(), qos(), any::<bool>(), any::<bool>(), handling);
    (
        version(),
        packet_id(),
        properties(PropertySite::Subscribe),
        vec(subscription, 1..6),
    )
        .prop_map(|(version, packet_id, properties, list)| {
            let list: Vec<Subscription<'static>> = list
                .into_iter()
                .map(
                    |(filter, qos, no_local, retain_as_published, retain_handling)| match version {
                        ProtocolVersion::V5 => Subscription {
                            filter,
                            qos,
                            no_local: no_local && !filter.starts_with("$share/"),
                            retain_as_published,
                            retain_handling,
                        },
                        ProtocolVersion::V311 => Subscription {
                            filter,
                            qos,
                            no_local: false,
                            retain_as_published: false,
                            retain_handling: RetainHandling::Always,
                        },
                    },
                )
                .collect();
            let subscriptions = Subscriptions::from_list(leak::<[Subscription<'static>]>(list));
            let properties = for_version(version, properties);
            (
                version,
                Packet::Subscribe(Subscribe {
                    packet_id,
                    properties,
                    subscriptions,
                }),
            )
        })
}

fn suback() -> impl Strategy<Value = (ProtocolVersion, Packet<'static>)> {
    version()
        .prop_flat_map(|version| {
            let allowed = if version == V5 {
                SUBACK_REASONS.to_vec()
            } else {
                SUBACK_REASONS_311.to_vec()
            };
            (
                Just(version),
                packet_id(),
                properties(PropertySite::SubAck),
                vec(select(allowed), 1..6),
            )
        })
        .prop_map(|(version, packet_id, properties, reasons)| {
            let reasons = Reasons::from_list(leak::<[ReasonCode]>(reasons));
            (
                version,
                Packet::SubAck(SubAck {
                    packet_id,
                    properties: for_version(version, properties),
                    reasons,
                }),
            )
        })
}

fn unsubscribe() -> impl Strategy<Value = (ProtocolVersion, Packet<'static>)> {
    (
        version(),
        packet_id(),
        properties(PropertySite::Unsubscribe),
        vec(text(), 1..6),
    )
        .prop_map(|(version, packet_id, properties, filters)| {
            let filters = Filters::from_list(leak::<[&'static str]>(filters));
            let properties = for_version(version, properties);
            (
                version,
                Packet::Unsubscribe(Unsubscribe {
                    packet_id,
                    properties,
                    filters,
                }),
            )
        })
}

fn unsuback() -> impl Strategy<Value = (ProtocolVersion, Packet<'static>)> {
    let reasons = vec(select(UNSUBACK_REASONS.to_vec()), 1..6);
    (
        version(),
        packet_id(),
        properties(PropertySite::UnsubAck),
        reasons,
    )
        .prop_map(|(version, packet_id, properties, reasons)| {
            let reasons = if version == V5 {
                Reasons::from_list(leak::<[ReasonCode]>(reasons))
            } else {
                Reasons::EMPTY
            };
            (
                version,
                Packet::UnsubAck(UnsubAck {
                    packet_id,
                    properties: for_version(version, properties),
                    reasons,
                }),
            )
        })
}

fn disconnect() -> impl Strategy<Value = (ProtocolVersion, Packet<'static>)> {
    (
        version(),
        select(DISCONNECT_REASONS.to_vec()),
        properties(PropertySite::Disconnect),
    )
        .prop_map(|(version, reason, properties)| {
            let reason = if version == V5 {
                reason
            } else {
                ReasonCode::Success
            };
            (
                version,
                Packet::Disconnect(Disconnect {
                    reason,
                    properties: for_version(version, properties),
                }),
            )
        })
}

fn auth() -> impl Strategy<Value = (ProtocolVersion, Packet<'static>)> {
    (select(AUTH_REASONS.to_vec()), properties(PropertySite::Auth))
        .prop_map(|(reason, properties)| (V5, Packet::Auth(Auth { reason, properties })))
}

/// Any packet of any version.
pub(crate) fn any_packet() -> impl Strategy<Value = (ProtocolVersion, Packet<'static>)> {
    prop_oneof![
        connect(),
        connack(),
        publish(),
        acknowledgement(),
        subscribe(),
        suback(),
        unsubscribe(),
        unsuback(),
        disconnect(),
        auth(),
        version().prop_map(|version| (version, Packet::PingReq)),
        version().prop_map(|version| (version, Packet::PingResp)),
    ]
}

fn decode(bytes: &[u8], version: ProtocolVersion) -> Option<Packet<'_>> {
    match split(bytes, u32::MAX) {
        Ok(Split::Complete { frame, rest: [] }) => Packet::decode(&frame, version).ok(),
        Ok(_) | Err(_) => None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn every_packet_comes_back((version, packet) in any_packet()) {
        let mut out = vec![0xaa];
        packet.encode(version, &mut out).unwrap();
        prop_assert_eq!(out[0], 0xaa);
        let decoded = decode(&out[1..], version);
        prop_assert_eq!(decoded, Some(packet));
        let mut again = Vec::new();
        decoded.unwrap().encode(version, &mut again).unwrap();
        prop_assert_eq!(&again, &out[1..]);
    }

    #[test]
    fn a_packet_cut_short_is_never_whole((version, packet) in any_packet(), at: prop::sample::Index) {
        let mut out = Vec::new();
        packet.encode(version, &mut out).unwrap();
        let cut = at.index(out.len());
        let incomplete = matches!(split(&out[..cut], u32::MAX), Ok(Split::Incomplete { need }) if need <= out.len() - cut);
        prop_assert!(incomplete);
    }

    #[test]
    fn a_changed_packet_is_refused_or_comes_back(
        (version, packet) in any_packet(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut out = Vec::new();
        packet.encode(version, &mut out).unwrap();
        for (at, value) in changes {
            let index = at.index(out.len());
            out[index] = value;
        }
        for version in [V5, V311] {
            if let Some(changed) = decode(&out, version) {
                let version = if let Packet::Connect(connect) = &changed { connect.version } else { version };
                let mut again = Vec::new();
                changed.encode(version, &mut again).unwrap();
                prop_assert_eq!(decode(&again, version), Some(changed));
            }
        }
    }

    #[test]
    fn any_bytes_are_refused_or_come_back(first: u8, body in vec(any::<u8>(), 0..60)) {
        let mut out = vec![first, u8::try_from(body.len()).unwrap()];
        out.extend_from_slice(&body);
        for version in [V5, V311] {
            if let Some(packet) = decode(&out, version) {
                let version = if let Packet::Connect(connect) = &packet { connect.version } else { version };
                let mut again = Vec::new();
                packet.encode(version, &mut again).unwrap();
                prop_assert_eq!(decode(&again, version), Some(packet));
            }
        }
    }
}

fn encode_error(packet: &Packet<'_>, version: ProtocolVersion) -> EncodeError {
    let mut out = vec![1, 2, 3];
    let error = packet.encode(version, &mut out).unwrap_err();
    assert_eq!(out, [1, 2, 3], "nothing is left behind");
    error
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn what_the_standard_forbids_is_not_written() {
    let publish = Publish {
        dup: false,
        qos: Qos::AtMostOnce,
        retain: false,
        topic: "t",
        packet_id: None,
        properties: Properties::EMPTY,
        payload: b"x",
    };
    let id = PacketIdentifier::MIN;
    let alias = [Property::TopicAlias(1)];
    let reasons = [ReasonCode::WildcardSubscriptionsNotSupported];
    let long = "x".repeat(65_536);
    let cases: Vec<(Packet<'_>, ProtocolVersion)> = vec![
        (Packet::Publish(Publish { topic: "", ..publish }), V5),
        (
            Packet::Publish(Publish {
                topic: "a/#",
                ..publish
            }),
            V5,
        ),
        (
            Packet::Publish(Publish {
                topic: "a\0",
                ..publish
            }),
            V311,
        ),
        (
            Packet::Publish(Publish {
                topic: &long,
                ..publish
            }),
            V311,
        ),
        (Packet::Publish(Publish { dup: true, ..publish }), V311),
        (
            Packet::Publish(Publish {
                packet_id: Some(id),
                ..publish
            }),
            V5,
        ),
        (
            Packet::Publish(Publish {
                qos: Qos::AtLeastOnce,
                ..publish
            }),
            V5,
        ),
        (
            Packet::Publish(Publish {
                properties: Properties::from_list(&alias),
                ..publish
            }),
            V311,
        ),
        (
            Packet::Subscribe(Subscribe {
                packet_id: id,
                properties: Properties::EMPTY,
                subscriptions: Subscriptions::from_list(&[]),
            }),
            V5,
        ),
        (
            Packet::Unsubscribe(Unsubscribe {
                packet_id: id,
                properties: Properties::EMPTY,
                filters: Filters::from_list(&[]),
            }),
            V5,
        ),
        (
            Packet::SubAck(SubAck {
                packet_id: id,
                properties: Properties::EMPTY,
                reasons: Reasons::from_list(&reasons),
            }),
            V311,
        ),
        (
            Packet::SubAck(SubAck {
                packet_id: id,
                properties: Properties::EMPTY,
                reasons: Reasons::EMPTY,
            }),
            V5,
        ),
        (
            Packet::UnsubAck(UnsubAck {
                packet_id: id,
                properties: Properties::EMPTY,
                reasons: Reasons::from_list(&reasons),
            }),
            V311,
        ),
        (
            Packet::ConnAck(ConnAck {
                session_present: true,
                reason: ReasonCode::ServerBusy,
                properties: Properties::EMPTY,
            }),
            V5,
        ),
        (
            Packet::ConnAck(ConnAck {
                session_present: false,
                reason: ReasonCode::ServerBusy,
                properties: Properties::EMPTY,
            }),
            V311,
        ),
        (
            Packet::ConnAck(ConnAck {
                session_present: false,
                reason: ReasonCode::GrantedQos1,
                properties: Properties::EMPTY,
            }),
            V5,
        ),
        (
            Packet::PubAck(Acknowledgement {
                packet_id: id,
                reason: ReasonCode::QuotaExceeded,
                properties: Properties::EMPTY,
            }),
            V311,
        ),
        (
            Packet::PubRel(Acknowledgement {
                packet_id: id,
                reason: ReasonCode::QuotaExceeded,
                properties: Properties::EMPTY,
            }),
            V5,
        ),
        (
            Packet::Disconnect(Disconnect {
                reason: ReasonCode::ServerBusy,
                properties: Properties::EMPTY,
            }),
            V311,
        ),
        (
            Packet::Disconnect(Disconnect {
                reason: ReasonCode::GrantedQos2,
                properties: Properties::EMPTY,
            }),
            V5,
        ),
        (
            Packet::Auth(Auth {
                reason: ReasonCode::Success,
                properties: Properties::EMPTY,
            }),
            V311,
        ),
    ];
    for (packet, version) in &cases {
        encode_error(packet, *version);
    }
    let max = 65_535;
    let too_long = EncodeError::TooLong {
        field: "topic name",
        len: 65_536,
        max,
    };
    assert_eq!(encode_error(&cases[3].0, V311), too_long);
}

#[test]
fn debug_shows_neither_payload_nor_password() {
    let connect = Connect {
        version: V311,
        clean_start: true,
        keep_alive_secs: 0,
        client_id: "c",
        will: Some(Will {
            qos: Qos::AtMostOnce,
            retain: false,
            topic: "t",
            payload: b"SECRET",
            properties: Properties::EMPTY,
        }),
        username: Some("u"),
        password: Some(b"SECRET"),
        properties: Properties::EMPTY,
    };
    let publish = Publish {
        dup: false,
        qos: Qos::AtMostOnce,
        retain: false,
        topic: "t",
        packet_id: None,
        properties: Properties::EMPTY,
        payload: b"SECRET",
    };
    let shown = format!("{connect:?} {publish:?}");
    assert!(!shown.contains("SECRET") && !shown.contains("83, 69"), "{shown}");
}
