//! The JSON schema says the same as the checks, as far as a schema can.

use serde_json::{Map, Value};

use fieldgate_config::schema;

use crate::{filled, load};

/// Whether a value fits a schema, by the keywords the schema uses (JSON Schema 2020-12); others are a fault of the schema.
fn fits(schema: &Value, value: &Value) -> bool {
    let Value::Object(schema) = schema else {
        return schema.as_bool().expect("a schema is an object or a truth value");
    };
    schema
        .iter()
        .all(|(keyword, operand)| fits_keyword(schema, keyword, operand, value))
}

fn is_of_type(one: &Value, value: &Value) -> bool {
    match one.as_str().expect("a type") {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        other => panic!("type {other}"),
    }
}

fn fits_keyword(schema: &Map<String, Value>, keyword: &str, operand: &Value, value: &Value) -> bool {
    let schemas = || operand.as_array().expect("a list of schemas").iter();
    let number = || operand.as_u64().expect("a number");
    match keyword {
        "$schema" | "title" | "description" | "default" | "then" | "else" => true,
        "type" => match operand.as_array() {
            Some(types) => types.iter().any(|one| is_of_type(one, value)),
            None => is_of_type(operand, value),
        },
        "properties" => value.as_object().is_none_or(|object| {
            let properties = operand.as_object().expect("properties");
            properties
                .iter()
                .all(|(name, schema)| object.get(name).is_none_or(|value| fits(schema, value)))
        }),
        "additionalProperties" if operand.is_object() => value
            .as_object()
            .is_none_or(|object| object.values().all(|value| fits(operand, value))),
        "additionalProperties" => {
            assert_eq!(operand, &Value::Bool(false));
            let properties = schema
                .get("properties")
                .and_then(Value::as_object)
                .expect("properties");
            value
                .as_object()
                .is_none_or(|object| object.keys().all(|name| properties.contains_key(name)))
        }
        "required" => value.as_object().is_none_or(|object| {
            let names = operand.as_array().expect("names").iter();
            names
                .map(|name| name.as_str().expect("a name"))
                .all(|name| object.contains_key(name))
        }),
        "items" => value
            .as_array()
            .is_none_or(|items| items.iter().all(|item| fits(operand, item))),
        "maxProperties" => value
            .as_object()
            .is_none_or(|object| object.len() as u64 <= number()),
        "not" => !fits(operand, value),
        "minItems" => value
            .as_array()
            .is_none_or(|items| items.len() as u64 >= number()),
        "maxItems" => value
            .as_array()
            .is_none_or(|items| items.len() as u64 <= number()),
        "minimum" => value
            .as_i64()
            .is_none_or(|have| i128::from(have) >= i128::from(number())),
        "maximum" => value
            .as_i64()
            .is_none_or(|have| i128::from(have) <= i128::from(number())),
        "enum" => operand.as_array().expect("values").contains(value),
        "const" => operand == value,
        "pattern" => {
            assert_eq!(
                operand, "^[0-9]+ ?(B|KiB|MiB|GiB|TiB)$",
                "the only pattern this validator knows"
            );
            value.as_str().is_none_or(|text| {
                let unit = text.trim_start_matches(|c: char| c.is_ascii_digit());
                unit.len() < text.len()
                    && ["B", "KiB", "MiB", "GiB", "TiB"].contains(&unit.strip_prefix(' ').unwrap_or(unit))
            })
        }
        "oneOf" => schemas().filter(|schema| fits(schema, value)).count() == 1,
        "anyOf" => schemas().any(|schema| fits(schema, value)),
        "allOf" => schemas().all(|schema| fits(schema, value)),
        "if" => {
            let branch = if fits(operand, value) { "then" } else { "else" };
            schema.get(branch).is_none_or(|schema| fits(schema, value))
        }
        other => panic!("the schema uses {other}, which this validator does not know"),
    }
}

fn to_json(text: &str) -> Value {
    let table: toml::Table = filled(text).parse().expect("TOML");
    serde_json::to_value(table).expect("JSON")
}

#[test]
fn the_examples_and_the_file_with_every_key_fit() {
    let schema = schema();
    for text in [
        include_str!("every_key.toml"),
        include_str!("../../../packaging/examples/gateway.toml"),
        include_str!("../../../packaging/examples/relay.toml"),
        include_str!("../../../packaging/examples/collector.toml"),
        include_str!("../../../packaging/examples/gateway-minimal.toml"),
        include_str!("../../../packaging/examples/gateway-listeners.toml"),
        include_str!("../../../packaging/examples/collector-minimal.toml"),
        include_str!("../../../packaging/examples/authority.toml"),
        include_str!("../../../packaging/examples/relay-fleet.toml"),
        include_str!("../../../packaging/examples/collector-fleet.toml"),
        include_str!("../../../packaging/examples/gateway-fleet.toml"),
    ] {
        assert!(fits(&schema, &to_json(text)), "{text}");
    }
}

#[test]
fn what_the_schema_refuses_the_checks_refuse() {
    const IDENTITY: &str = "identity = { file = 'k', passphrase = { env = 'P' } }\n";
    const ANONYMOUS: &str = "anonymous = true\ndangerous_anonymous = true\n";
    let schema = schema();
    let good = format!("{IDENTITY}[mqtt]\n{ANONYMOUS}");
    assert!(fits(&schema, &to_json(&good)) && load(&good).problems.error_count() == 0);
    for bad in [
        format!("[mqtt]\n{ANONYMOUS}"),
        format!("identity = {{}}\n[mqtt]\n{ANONYMOUS}"),
        format!("identity = {{ file = 'k' }}\n[mqtt]\n{ANONYMOUS}"),
        format!("identity = {{ file = 'k', passphrase = 'secret' }}\n[mqtt]\n{ANONYMOUS}"),
        format!("identity = {{ file = 'k', passphrase = {{}} }}\n[mqtt]\n{ANONYMOUS}"),
        format!("identity = {{ file = 'k', passphrase = {{ env = 'P', file = 'p' }} }}\n[mqtt]\n{ANONYMOUS}"),
        format!(
            "identity = {{ file = 'k', passphrase = {{ env = 'P' }}, pin = {{ env = 'P' }} }}\n[mqtt]\n{ANONYMOUS}"
        ),
        format!("{good}colour = 1"),
        format!("{good}latency_ms = 101"),
        format!("{good}latency_ms = -1"),
        format!("{good}latency_ms = '1'"),
        format!("{good}latency_ms = 1.5"),
        format!("{good}packet_bytes_max = 1"),
        format!("{good}packet_bytes_max = '64 KB'"),
        format!("{good}alarm_topics = 'a'"),
        format!("{good}alarm_topics = [1]"),
        format!("{good}device = []"),
        format!("{good}device = [{{ name = 'a', username = 'u' }}]"),
        format!("{good}device = [{{ name = 'a', certificate = {{}} }}]"),
        format!("{good}device = [{{ name = 'a', psk = {{ identity = 'i', key = '00' }} }}]"),
        format!("{good}tls = {{ certificate = 'c', key = 'k', client_auth = 'required' }}"),
        format!("{good}websocket = {{ listen = 'x' }}"),
        format!("{good}tls = {{ certificate = 'c', key = 'k', listen = [] }}"),
        format!("{good}[node]\nio = 'kqueue'"),
        format!("{good}[[uplink]]\nname = 'u'\ncollector = '$COLLECTOR'\nvia = 'c'"),
        format!(
            "{good}[[uplink]]\nname = 'u'\ncollector = '$COLLECTOR'\nrelay = {{ address = 'r:1', identifier = '$RELAY' }}"
        ),
        format!(
            "{good}[[uplink]]\nname = 'u'\ncollector = '$COLLECTOR'\nvia = 'c'\ndirect = {{ address = 'r:1' }}"
        ),
        format!("{good}[link.tcp]\n[collector]\n[[collector.sink]]\nkind = 'mqtt'"),
        format!("{good}[link.tcp]\n[collector]\n[[collector.sink]]\nkind = 'null'\npath = 'p'"),
        format!("{good}[link.tcp]\n[collector]\n[[collector.sink]]\nkind = 'kafka'"),
        format!("{good}[trust]\nvia = 'a'"),
        format!("{good}[trust]\nrelay = {{ address = 'r:1', identifier = '$RELAY' }}"),
        format!(
            "{good}[trust]\nvia = 'a'\nrelay = {{ address = 'r:1', identifier = '$RELAY' }}\ndirect = {{ address = 'a:1' }}"
        ),
        format!("{good}[trust]\nafter_grace = 'go on'"),
        format!("{good}[authority]\ncredential_valid_secs = 599"),
        format!(
            "{good}[authority]\nmember = [{{ name = 'm', identifier = '$GATEWAY', attributes = {{ site = 1 }} }}]"
        ),
    ] {
        assert!(!fits(&schema, &to_json(&bad)), "the schema takes\n{bad}");
        assert!(load(&bad).settings.is_none(), "the checks take\n{bad}");
    }
}

#[test]
fn defaults_stand_in_the_schema() {
    let schema = schema();
    let mqtt = &schema["properties"]["mqtt"]["properties"];
    assert_eq!(mqtt["clients_max"]["default"], 10_000);
    assert_eq!(mqtt["packet_bytes_max"]["default"], "63 KiB");
    assert_eq!(
        mqtt["tls"]["properties"]["listen"]["default"],
        serde_json::json!(["0.0.0.0:8883"])
    );
    assert_eq!(
        mqtt["anonymous"]["description"],
        "Whether devices without credentials are let in; only on loopback addresses."
    );
}
