use fieldgate_adapters::reading::UserProperties;
use fieldgate_config::template::{Rename, TopicTemplate};
use serde_json::{Value, json};

use super::*;
use crate::sinks::{
    Delivery,
    testing::{gap, output, reading, source},
};

fn body(output: &Output, item: &Item<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    body_into(output, &mut out, item);
    out
}

fn parsed(output: &Output, item: &Item<'_>) -> Value {
    serde_json::from_slice(&body(output, item)).expect("JSON")
}

fn item<'a>(source: &'a Source, reading: Reading<'a>) -> Item<'a> {
    Item::Reading {
        source,
        sequence: 12,
        reading,
    }
}

#[test]
fn a_record_has_the_usual_fields_and_begins_with_the_id() {
    let source = source();
    let pairs = [("k", "v")];
    let reading = Reading {
        content_type: Some("text/plain"),
        user_properties: UserProperties::from_pairs(&pairs),
        ..reading(b"21.5")
    };
    let item = item(&source, reading);
    let text = String::from_utf8(body(&output(Format::Json), &item)).unwrap();
    assert!(
        text.starts_with(&format!("{{\"id\":\"{}\",", source.reading_id(12))),
        "{text}"
    );
    let wanted = json!({
        "id": source.reading_id(12), "gateway": "plant-7", "device": "press \"1\"", "resource": "temp", "class": "normal",
        "captured_at": "2026-11-21T14:45:00.123Z", "time_quality": "synchronised", "content_type": "text/plain",
        "properties": { "k": "v" }, "payload": "21.5",
    });
    assert_eq!(parsed(&output(Format::Json), &item), wanted);
}

#[test]
fn payloads_that_are_no_text_are_base64_in_json_and_bytes_in_cbor() {
    let source = source();
    let item = item(&source, reading(&[0xff, 0x00]));
    let json = parsed(&output(Format::Json), &item);
    assert_eq!(
        (json.get("payload"), &json["payload_base64"]),
        (None, &json!("/wA="))
    );
    let cbor = body(&output(Format::Cbor), &item);
    assert!(cbor.windows(11).any(|part| part == b"\x67payload\x42\xff\x00"));
}

#[test]
fn chosen_fields_and_fixed_texts_are_what_is_there() {
    let source = source();
    let mut output = output(Format::Json);
    output.fields = vec![
        FieldName::Id,
        FieldName::Identifier,
        FieldName::Topic,
        FieldName::Path,
    ];
    output.set.insert("site".to_owned(), "north".to_owned());
    let wanted = json!({
        "id": source.reading_id(12), "identifier": source.gateway.to_string(), "topic": "plant-7/press \"1\"/temp",
        "path": ["plant-7", "hall"], "site": "north",
    });
    assert_eq!(parsed(&output, &item(&source, reading(b"x"))), wanted);
}

#[test]
fn renames_make_the_topic_of_readings_but_not_of_gaps() {
    let source = source();
    let mut output = output(Format::Raw);
    let from = "{what}".parse().unwrap();
    let to = TopicTemplate::parse_with("all/{what}", &from).unwrap();
    output.renames.push(Rename { from, to });
    let topic = |item: &Item<'_>| {
        let mut topic = String::new();
        topic_into(&output, &mut topic, item);
        topic
    };
    assert_eq!(topic(&item(&source, reading(b"x"))), "all/temp");
    let gap = gap(&source, 3, 9);
    let items: Vec<Item<'_>> = gap.items(4).collect();
    assert_eq!(topic(&items[0]), "plant-7/$gap/normal");
    let wanted = json!({
        "id": source.gap_id(5, 9), "event": "gap", "gateway": "plant-7", "class": "normal", "reason": "discarded",
        "first": 5, "last": 9, "count": 5,
        "captured_from": "1970-01-01T00:00:00.000Z", "captured_to": "1970-01-01T00:00:01.000Z",
    });
    assert_eq!(
        parsed(&output, &items[0]),
        wanted,
        "a gap is JSON also where readings are raw"
    );
    assert_eq!(body(&output, &item(&source, reading(b"x"))), b"x");
}

#[test]
fn events_carry_data_as_what_it_is() {
    let source = source();
    let mut output = output(Format::CloudEvents);
    output.set.insert("site".to_owned(), "north".to_owned());
    let event = |content_type: Option<&'static str>, payload: &'static [u8]| {
        let reading = Reading {
            content_type,
            ..reading(payload)
        };
        parsed(&output, &item(&source, reading))
    };
    let wanted = json!({
        "id": source.reading_id(12), "specversion": "1.0", "source": format!("fieldgate:{}", source.gateway),
        "type": "fieldgate.reading", "subject": "plant-7/press \"1\"/temp", "time": "2026-11-21T14:45:00.123Z",
        "timequality": "synchronised", "device": "press \"1\"", "gateway": "plant-7", "class": "normal", "site": "north",
        "datacontenttype": "application/json; charset=utf-8", "data": { "v": 1 },
    });
    assert_eq!(
        event(Some("application/json; charset=utf-8"), b"{\"v\":\n1}"),
        wanted
    );
    for (content_type, payload, kind, name, data) in [
        (
            Some("application/senml+json"),
            &b"[1]"[..],
            "application/senml+json",
            "data",
            json!([1]),
        ),
        (
            Some("application/json"),
            b"{",
            "application/json",
            "data_base64",
            json!("ew=="),
        ),
        (
            Some("application/xml"),
            b"<a/>",
            "application/xml",
            "data",
            json!("<a/>"),
        ),
        (None, b"21.5", "text/plain", "data", json!("21.5")),
        (
            None,
            b"\xff",
            "application/octet-stream",
            "data_base64",
            json!("/w=="),
        ),
    ] {
        let event = event(content_type, payload);
        assert_eq!((&event["datacontenttype"], &event[name]), (&json!(kind), &data));
    }
    let gap = gap(&source, 3, 9);
    let items: Vec<Item<'_>> = gap.items(0).collect();
    let event = parsed(&output, &items[0]);
    assert_eq!(event["type"], "fieldgate.gap");
    assert_eq!(event["data"]["count"], 7);
}

#[test]
fn what_does_not_decode_is_passed_over() {
    let source = source();
    let batch = Delivery::Readings(std::sync::Arc::new(crate::sinks::Batch {
        source,
        first: 4,
        count: 2,
        readings: vec![1, 0xff],
        seal: None,
    }));
    let items: Vec<Item<'_>> = batch.items(0).collect();
    assert!(matches!(
        items.as_slice(),
        [
            Item::Undecodable { sequence: 4 },
            Item::Undecodable { sequence: 5 }
        ]
    ));
    assert_eq!(body(&output(Format::Json), &items[0]), b"");
}
