//! What a message of the broker asks for, and what its result looks like.

use data_encoding::BASE64;
use fieldgate_config::settings::sink::BrokerCommands;
use rumqttc::v5::mqttbytes::v5::PublishProperties;

use crate::{
    control::command::{CommandState, SendJob},
    runtime::commanding::{
        job::unhex,
        owed::{BrokerResult, Origin, REPLY_TEXT_MAX, ReplyTo},
    },
    sinks::mqtt::client::{Brought, Message},
};

/// What is told about a command that was not taken.
#[derive(Debug)]
pub(super) struct NotTaken {
    pub(super) result: BrokerResult,
}

impl NotTaken {
    /// The collector refuses the command.
    pub(super) fn refused(job: &SendJob, reply_to: ReplyTo, message: &str, hint: &str) -> Self {
        Self {
            result: BrokerResult {
                id: None,
                reply_to,
                state: CommandState {
                    id: String::new(),
                    gateway: job.gateway.clone(),
                    device: job.device.clone(),
                    resource: job.resource.clone(),
                    submitted_ms: 0,
                    deadline_ms: 0,
                    cancelled: false,
                    state: "refused".to_owned(),
                    finished: true,
                    succeeded: false,
                    reason_code: None,
                    answer: None,
                },
                refusal: Some(format!("{message}: {hint}")),
            },
        }
    }
}

/// Reads a message: `<command_topic>/<gateway>/<device>[/<resource>]`.
///
/// # Errors
/// [`NotTaken`] if it cannot be a command.
pub(super) fn read(
    sink: &str,
    commands: &BrokerCommands,
    message: &Brought,
) -> Result<(Origin, SendJob), Box<NotTaken>> {
    let below = message.topic.strip_prefix(commands.command_topic.as_str());
    let below = below
        .and_then(|below| below.strip_prefix('/'))
        .unwrap_or_default();
    let mut levels = below.splitn(3, '/');
    let mut level = || levels.next().unwrap_or_default().to_owned();
    let properties = &message.properties;
    let mut job = SendJob {
        gateway: level(),
        device: level(),
        resource: level(),
        content_type: properties.content_type.clone().unwrap_or_default(),
        payload: BASE64.encode(&message.payload),
        deadline_ms: properties
            .message_expiry_interval
            .map_or(DEADLINE_MS, |secs| u64::from(secs) * 1000),
        at_most_once: false,
        answer: properties.response_topic.is_some(),
        wait: false,
    };
    let reply_to = ReplyTo {
        topic: properties.response_topic.clone(),
        correlation_data: properties.correlation_data.as_ref().map(|data| data.to_vec()),
    };
    let refuse = |job: &SendJob, reply_to: ReplyTo, message: &str, hint: &str| {
        Err(Box::new(NotTaken::refused(job, reply_to, message, hint)))
    };
    if let Some(problem) = unusable(commands, &reply_to) {
        // It can be told on the usual topic only.
        let hint = "choose a topic without + and #, and 1,024 bytes at most for it and for correlation data";
        return refuse(&job, ReplyTo::default(), problem, hint);
    }
    if message.retained {
        let hint = "publish it without the retain flag: it would be carried out with each new connection";
        return refuse(&job, reply_to, "a command cannot be retained", hint);
    }
    if job.gateway.is_empty() || job.device.is_empty() {
        let hint = "publish to <command_topic>/<gateway>/<device>/<resource>";
        return refuse(&job, reply_to, "the topic names no gateway and device", hint);
    }
    let id = match wishes(properties, &mut job) {
        Ok(id) => id,
        Err((problem, hint)) => return refuse(&job, reply_to, problem, hint),
    };
    let sink = sink.to_owned();
    Ok((Origin { sink, id, reply_to }, job))
}

/// Returns why results cannot be told there, if so.
fn unusable(commands: &BrokerCommands, reply_to: &ReplyTo) -> Option<&'static str> {
    let data = reply_to.correlation_data.as_ref();
    if data.is_some_and(|data| data.len() > REPLY_TEXT_MAX) {
        return Some("its correlation data are too long");
    }
    let topic = reply_to.topic.as_ref()?;
    let rest = topic.strip_prefix(commands.command_topic.as_str());
    if topic.is_empty() || topic.len() > REPLY_TEXT_MAX || topic.contains(['+', '#', '\0']) {
        Some("its response topic cannot be used")
    } else if rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/')) {
        Some("its response topic is that of a command")
    } else {
        None
    }
}

/// Reads the user properties that say how the command is to be given; returns its id, if it has one.
fn wishes(
    properties: &PublishProperties,
    job: &mut SendJob,
) -> Result<Option<[u8; 16]>, (&'static str, &'static str)> {
    let mut id = None;
    for (name, text) in &properties.user_properties {
        match (name.as_str(), text.as_str()) {
            (ID, text) => {
                let parsed =
                    unhex(text).ok_or(("its fieldgate-id is none", "write 32 hexadecimal digits"))?;
                id = Some(parsed);
            }
            (GUARANTEE, "at-most-once") => job.at_most_once = true,
            (GUARANTEE, "at-least-once") => job.at_most_once = false,
            (GUARANTEE, _) => {
                let hint = "write at-least-once or at-most-once";
                return Err(("its fieldgate-guarantee is none", hint));
            }
            (ANSWER, "true") => job.answer = true,
            (ANSWER, "false") => job.answer = false,
            (ANSWER, _) => return Err(("its fieldgate-answer is neither", "write true or false")),
            _ => {}
        }
    }
    if job.at_most_once && id.is_none() {
        // The broker may bring it twice.
        let hint = "give it the user property fieldgate-id, 32 hexadecimal digits that no other command has";
        return Err(("at most once needs an id", hint));
    }
    Ok(id)
}

/// Makes the message that tells a result: the answer itself for who named a response topic, and everything as JSON otherwise.
pub(super) fn result_message(commands: &BrokerCommands, result: BrokerResult) -> Message {
    let BrokerResult {
        reply_to,
        state,
        refusal,
        ..
    } = result;
    let own = |name: &str, text: &str| (name.to_owned(), text.to_owned());
    let mut user_properties = vec![
        own(STATE, &state.state),
        own("fieldgate-gateway", &state.gateway),
        own("fieldgate-device", &state.device),
    ];
    if !state.id.is_empty() {
        user_properties.push(own(ID, &state.id));
    }
    if let Some(code) = state.reason_code {
        user_properties.push(own("fieldgate-reason-code", &code.to_string()));
    }
    if let Some(refusal) = &refusal {
        user_properties.push(own("fieldgate-refusal", refusal));
    }
    let (topic, content_type, payload) = match reply_to.topic {
        Some(topic) => {
            let (content_type, payload) = state.answer.map_or_else(Default::default, |answer| {
                let payload = BASE64.decode(answer.payload.as_bytes()).unwrap_or_default();
                (answer.content_type, payload)
            });
            (topic, content_type, payload)
        }
        None => (
            usual_topic(commands, &state),
            "application/json".to_owned(),
            json(&state, refusal.as_deref()),
        ),
    };
    Message {
        topic,
        payload,
        content_type: Some(content_type).filter(|text| !text.is_empty()),
        user_properties,
        correlation_data: reply_to.correlation_data,
    }
}

fn usual_topic(commands: &BrokerCommands, state: &CommandState) -> String {
    let mut topic = commands.result_topic.clone();
    let levels = [&state.gateway, &state.device, &state.resource];
    for level in levels.into_iter().filter(|level| !level.is_empty()) {
        topic.push('/');
        // Nothing but what came in a topic name is told here, so nothing is replaced.
        topic.extend(
            level
                .chars()
                .map(|c| if matches!(c, '+' | '#' | '\0') { '_' } else { c }),
        );
    }
    topic
}

fn json(state: &CommandState, refusal: Option<&str>) -> Vec<u8> {
    let mut value = serde_json::to_value(state).unwrap_or_default();
    if let (Some(object), Some(refusal)) = (value.as_object_mut(), refusal) {
        object.insert("refusal".to_owned(), refusal.into());
    }
    value.to_string().into_bytes()
}

/// User property: the command's id, 32 hexadecimal digits.
const ID: &str = "fieldgate-id";
/// User property: `at-least-once` or `at-most-once`.
const GUARANTEE: &str = "fieldgate-guarantee";
/// User property: whether the device's answer is waited for; as a matter of course where there is a response topic.
const ANSWER: &str = "fieldgate-answer";
/// User property of a result: what became of the command.
const STATE: &str = "fieldgate-state";
/// Time to the deadline of a command without message expiry interval, in milliseconds.
const DEADLINE_MS: u64 = 30_000;

#[cfg(test)]
mod tests {
    use rumqttc::v5::mqttbytes::{QoS, v5::Publish};

    use super::*;
    use crate::control::command::CommandAnswer;

    fn commands() -> BrokerCommands {
        BrokerCommands {
            command_topic: "fieldgate/command".to_owned(),
            result_topic: "fieldgate/result".to_owned(),
        }
    }

    fn brought(below: &str, properties: PublishProperties) -> Brought {
        let topic = format!("fieldgate/command/{below}");
        Brought::v5(Publish::new(topic, QoS::AtLeastOnce, "open", Some(properties)))
    }

    fn with(user_properties: &[(&str, &str)]) -> PublishProperties {
        let own = user_properties.iter();
        PublishProperties {
            user_properties: own
                .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()))
                .collect(),
            ..PublishProperties::default()
        }
    }

    fn answered_at(topic: &str) -> PublishProperties {
        PublishProperties {
            response_topic: Some(topic.to_owned()),
            ..PublishProperties::default()
        }
    }

    fn taken(below: &str, properties: PublishProperties) -> (Origin, SendJob) {
        read("broker", &commands(), &brought(below, properties)).expect("it is a command")
    }

    fn refused(message: &Brought) -> BrokerResult {
        let not_taken = read("broker", &commands(), message).expect_err("it is none");
        not_taken.result
    }

    #[test]
    fn topic_and_properties_say_what_is_wanted() {
        let (origin, job) = taken("press-3/pump-7/valve/left", PublishProperties::default());
        assert_eq!(
            (&*job.gateway, &*job.device, &*job.resource),
            ("press-3", "pump-7", "valve/left")
        );
        assert_eq!(
            (job.deadline_ms, job.at_most_once, job.answer),
            (30_000, false, false)
        );
        assert_eq!((origin.id, origin.reply_to), (None, ReplyTo::default()));
        // A device as a whole has no resource.
        assert_eq!(taken("g/d", PublishProperties::default()).1.resource, "");

        let id = "000102030405060708090a0b0c0d0e0F";
        let mut properties = with(&[
            ("fieldgate-id", id),
            ("fieldgate-guarantee", "at-most-once"),
            ("else", "x"),
        ]);
        properties.message_expiry_interval = Some(7);
        properties.response_topic = Some("app/1".to_owned());
        properties.correlation_data = Some(vec![1, 2].into());
        properties.content_type = Some("text/plain".to_owned());
        let (origin, job) = taken("g/d/r", properties);
        assert_eq!(
            (job.deadline_ms, job.at_most_once, job.answer),
            (7000, true, true)
        );
        assert_eq!(job.content_type, "text/plain");
        assert_eq!(origin.id.map(|id| id[15]), Some(15));
        assert_eq!(origin.reply_to.topic.as_deref(), Some("app/1"));
        assert_eq!(origin.reply_to.correlation_data, Some(vec![1, 2]));
    }

    #[test]
    fn what_cannot_be_a_command_is_answered_with_the_reason() {
        let plain = PublishProperties::default;
        let mut retained = brought("g/d/r", plain());
        retained.retained = true;
        let cases = [
            (retained, "retained"),
            (brought("g", plain()), "gateway and device"),
            (brought("g//r", plain()), "gateway and device"),
            (brought("g/d/r", with(&[("fieldgate-id", "12")])), "fieldgate-id"),
            (
                brought("g/d/r", with(&[("fieldgate-guarantee", "twice")])),
                "fieldgate-guarantee",
            ),
            (
                brought("g/d/r", with(&[("fieldgate-guarantee", "at-most-once")])),
                "needs an id",
            ),
            (
                brought("g/d/r", with(&[("fieldgate-answer", "perhaps")])),
                "fieldgate-answer",
            ),
        ];
        for (message, reason) in cases {
            let refusal = refused(&message).refusal.unwrap_or_default();
            assert!(refusal.contains(reason), "{refusal}");
        }
    }

    #[test]
    fn a_result_never_goes_where_it_cannot_or_where_it_would_be_a_command() {
        let cases = [
            "",
            "a/+",
            "a/#",
            "fieldgate/command",
            "fieldgate/command/g/d/r",
            &"a".repeat(1025),
        ];
        for topic in cases {
            let result = refused(&brought("g/d/r", answered_at(topic)));
            let message = result_message(&commands(), result);
            assert_eq!(message.topic, "fieldgate/result/g/d/r", "{topic}");
        }
        assert_eq!(
            taken("g/d/r", answered_at("fieldgate/commander"))
                .0
                .reply_to
                .topic
                .as_deref(),
            Some("fieldgate/commander")
        );
    }

    #[test]
    fn whoever_named_a_response_topic_gets_the_answer_itself_and_others_all_of_it() {
        let result = |topic: Option<&str>| BrokerResult {
            id: Some([7; 16]),
            reply_to: ReplyTo {
                topic: topic.map(ToOwned::to_owned),
                correlation_data: Some(vec![9]),
            },
            state: CommandState {
                id: "07".repeat(16),
                gateway: "g".to_owned(),
                device: "d".to_owned(),
                resource: String::new(),
                submitted_ms: 1,
                deadline_ms: 2,
                cancelled: false,
                state: "answered".to_owned(),
                finished: true,
                succeeded: true,
                reason_code: None,
                answer: Some(CommandAnswer {
                    content_type: "text/plain".to_owned(),
                    payload: BASE64.encode(b"done"),
                }),
            },
            refusal: None,
        };
        let message = result_message(&commands(), result(Some("app/1")));
        assert_eq!((&*message.topic, &*message.payload), ("app/1", &b"done"[..]));
        assert_eq!(message.content_type.as_deref(), Some("text/plain"));
        assert_eq!(message.correlation_data, Some(vec![9]));
        let state = ("fieldgate-state".to_owned(), "answered".to_owned());
        assert!(message.user_properties.contains(&state));
        let message = result_message(&commands(), result(None));
        assert_eq!(message.topic, "fieldgate/result/g/d");
        let told: serde_json::Value = serde_json::from_slice(&message.payload).expect("JSON");
        assert_eq!(
            (&told["state"], &told["succeeded"]),
            (&"answered".into(), &true.into())
        );
    }
}
