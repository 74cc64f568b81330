//! What operators and brokers want with commands, and how commands are shown to them.

use std::collections::BTreeMap;

use data_encoding::{BASE64, HEXLOWER, HEXLOWER_PERMISSIVE};
use fieldgate_proto::{
    command::{CommandId, CommandView, Guarantee, Order, PAYLOAD_LEN_MAX, Report, Stage, State},
    entropy::Entropy as _,
    identity::Identifier,
    node::Node,
    time::Now,
};

use crate::{
    control::command::{CommandAnswer, CommandReply, CommandState, SendJob},
    runtime::entropy::SystemEntropy,
};

pub(super) fn refused(message: impl ToString, hint: &str) -> CommandReply {
    CommandReply::Refused {
        message: message.to_string(),
        hint: hint.to_owned(),
    }
}

pub(super) fn submit(
    now: Now,
    node: &mut Node,
    names: &BTreeMap<Identifier, String>,
    job: SendJob,
    id: Option<CommandId>,
) -> Result<CommandId, CommandReply> {
    let gateway = find_gateway(node, names, &job.gateway).ok_or_else(|| {
        refused(
            format!("no gateway is called {}", job.gateway),
            "name one of [[collector.gateway]], a member that is connected, or an identifier fg1…",
        )
    })?;
    let payload = BASE64
        .decode(job.payload.as_bytes())
        .map_err(|_| refused("the payload is no Base64", "encode it with padding"))?;
    if payload.len() > PAYLOAD_LEN_MAX {
        return Err(refused(
            format!(
                "the payload has {} bytes, more than {PAYLOAD_LEN_MAX}",
                payload.len()
            ),
            "put it where the device can fetch it, and send its address",
        ));
    }
    let order = Order {
        guarantee: if job.at_most_once {
            Guarantee::AtMostOnce
        } else {
            Guarantee::AtLeastOnce
        },
        answer_wanted: job.answer,
        device: job.device.into(),
        resource: job.resource.into(),
        content_type: job.content_type.into(),
        payload: payload.into(),
    };
    let id = id.unwrap_or_else(|| {
        let mut id = [0; 16];
        SystemEntropy.fill(&mut id);
        id
    });
    let remaining = std::time::Duration::from_millis(job.deadline_ms);
    let commander = node
        .commander_mut()
        .ok_or_else(|| refused("this node is no collector", "ask the collector"))?;
    commander
        .submit(now, id, gateway, order, remaining)
        .map_err(|error| {
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
            refused(format!("{error}{}", cause.unwrap_or_default()), error.hint())
        })?;
    Ok(id)
}

fn parse(id: &str) -> Result<CommandId, CommandReply> {
    unhex(id).ok_or_else(|| {
        refused(
            format!("{id} is no command's id"),
            "an id has 32 hexadecimal digits; `fieldgate command list` shows them",
        )
    })
}

pub(super) fn show(
    node: &Node,
    names: &BTreeMap<Identifier, String>,
    id: &str,
) -> Result<CommandReply, CommandReply> {
    let id = parse(id)?;
    let view = node.commander().and_then(|commander| commander.command(&id));
    let view = view.ok_or_else(|| {
        refused(
            "no command has this id",
            "`fieldgate command list` shows those of the last day",
        )
    })?;
    let state = Box::new(describe(node, names, &view));
    Ok(CommandReply::Is { state })
}

pub(super) fn cancel(
    now: Now,
    node: &mut Node,
    names: &BTreeMap<Identifier, String>,
    id: &str,
) -> Result<CommandReply, CommandReply> {
    let parsed = parse(id)?;
    let commander = node
        .commander_mut()
        .ok_or_else(|| refused("this node is no collector", "ask the collector"))?;
    commander
        .cancel(now, &parsed)
        .map_err(|error| refused(error, error.hint()))?;
    show(node, names, id)
}

fn find_gateway(node: &Node, names: &BTreeMap<Identifier, String>, wanted: &str) -> Option<Identifier> {
    let mut named = names.iter().filter(|(_, name)| *name == wanted);
    let named = named.next().map(|(identifier, _)| *identifier);
    named
        .or_else(|| wanted.parse().ok())
        .or_else(|| node.member_called(wanted))
}

pub(super) fn describe(
    node: &Node,
    names: &BTreeMap<Identifier, String>,
    view: &CommandView,
) -> CommandState {
    let gateway = names.get(&view.gateway).cloned();
    let gateway = gateway.or_else(|| node.member_name(&view.gateway).map(ToOwned::to_owned));
    let (state, end) = match &view.stage {
        Stage::Keeping => ("keeping", None),
        Stage::Waiting => ("waiting", None),
        Stage::Sent => ("sent", None),
        Stage::Known(state) => (state.name(), None),
        Stage::Finished(report) => (report.state.name(), Some(report)),
    };
    let reason_code = end.and_then(|report| {
        if let State::Rejected(code) = report.state {
            Some(code)
        } else {
            None
        }
    });
    CommandState {
        id: hex(&view.id),
        gateway: gateway.unwrap_or_else(|| view.gateway.to_string()),
        device: (*view.order.device).to_owned(),
        resource: (*view.order.resource).to_owned(),
        submitted_ms: view.submitted,
        deadline_ms: view.deadline,
        cancelled: view.cancelled,
        state: state.to_owned(),
        finished: end.is_some(),
        succeeded: end.is_some_and(|report| report.state.is_success()),
        reason_code,
        answer: end.and_then(answer),
    }
}

fn answer(report: &Report) -> Option<CommandAnswer> {
    report.state.answer().map(|answer| CommandAnswer {
        content_type: (*answer.content_type).to_owned(),
        payload: BASE64.encode(&answer.payload),
    })
}

/// Returns the text form of an id.
pub(crate) fn hex(id: &CommandId) -> String {
    HEXLOWER.encode(id)
}

/// Reads the text form of an id.
pub(crate) fn unhex(text: &str) -> Option<CommandId> {
    let bytes = HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok()?;
    CommandId::try_from(bytes).ok()
}
