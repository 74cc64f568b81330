//! `fieldgate command send|list|show|cancel`: commands to devices, through the control socket of a collector.

use std::{
    io::{self, Read as _},
    path::PathBuf,
    time::Duration,
};

use data_encoding::BASE64;
use fieldgate_proto::command::PAYLOAD_LEN_MAX;

use super::{Failure, operator::table, print, print_json};
use crate::{
    cli::{CollectorArgs, CommandSendArgs, DeviceOrder},
    control::{
        self,
        command::{CommandAnswer, CommandJob, CommandReply, CommandState, SendJob},
    },
    sinks::json::rfc3339,
};

pub(super) fn run(command: DeviceOrder) -> Result<(), Failure> {
    match command {
        DeviceOrder::Send(args) => send(args),
        DeviceOrder::List { node } => list(&node),
        DeviceOrder::Show { id, node } => show(id, &node),
        DeviceOrder::Cancel { id, node } => cancel(id, &node),
    }
}

fn send(args: CommandSendArgs) -> Result<(), Failure> {
    let payload = payload(args.payload, args.file)?;
    let wait = args.wait;
    let job = CommandJob::Send(Box::new(SendJob {
        gateway: args.gateway,
        device: args.device,
        resource: args.resource,
        content_type: args.content_type,
        payload: BASE64.encode(&payload),
        deadline_ms: u64::try_from(args.deadline.as_millis()).unwrap_or(u64::MAX),
        at_most_once: args.at_most_once,
        answer: args.answer,
        wait,
    }));
    let patience = if wait { args.deadline } else { Duration::ZERO };
    match ask(&args.node, job, patience)? {
        CommandReply::Kept { id } => {
            if args.node.json {
                print_json(&CommandReply::Kept { id })
            } else {
                print(&format!("{id}\n"))
            }
        }
        CommandReply::Is { state } => finished(&state, args.node.json),
        reply @ (CommandReply::List { .. } | CommandReply::Refused { .. }) => Err(unexpected(&reply)),
    }
}

/// Prints how a command has ended, and fails if the device did not get it.
fn finished(state: &CommandState, json: bool) -> Result<(), Failure> {
    if json {
        print_json(state)?;
    } else if let Some(answer) = &state.answer {
        print(&format!("{}\n", answer_text(answer)))?;
    } else if state.succeeded {
        print(&format!("{}\n", state.state))?;
    }
    if state.succeeded {
        return Ok(());
    }
    let message = format!("command {}: {}", state.id, standing(state));
    Err(Failure::new(message).hint(hint(&state.state)))
}

/// What to do about a command that has ended so.
fn hint(state: &str) -> &'static str {
    match state {
        "expired" => {
            "the device was not reached in time: does it subscribe to its command topic? Or give it a longer --deadline"
        }
        "not_authorised" => {
            "let the gateway permit it: `commands = true` in its [[uplink]], or a rule for the action command in its policy"
        }
        "limit" => "the gateway keeps as many commands as it may: wait for its devices, or cancel some",
        "storage" => "look at the gateway's disk: it cannot keep commands",
        "unknown_device" => "the gateway has no [[mqtt.device]] of this name",
        "lost" => "it never came to the gateway; send it again",
        "unconfirmed" => "the device may have had it: find out before you send it again",
        "rejected" => "the device has got it and refuses it: ask its maker what the reason code means",
        "cancelled" => "it was taken back",
        _ => "`fieldgate command list` shows where it stands",
    }
}

fn payload(text: Option<String>, file: Option<PathBuf>) -> Result<Vec<u8>, Failure> {
    let Some(path) = file else {
        return Ok(text.unwrap_or_default().into_bytes());
    };
    let mut payload = Vec::new();
    let limit = PAYLOAD_LEN_MAX as u64;
    std::fs::File::open(&path)
        .and_then(|file| file.take(limit + 1).read_to_end(&mut payload))
        .map_err(|error| Failure::chain(&path.display().to_string(), &error))?;
    if payload.len() > PAYLOAD_LEN_MAX {
        let message = format!("{} has more than {PAYLOAD_LEN_MAX} bytes", path.display());
        return Err(
            Failure::input(message).hint("put it where the device can fetch it, and send its address")
        );
    }
    Ok(payload)
}

fn list(args: &CollectorArgs) -> Result<(), Failure> {
    let reply = ask(args, CommandJob::List {}, Duration::ZERO)?;
    let CommandReply::List { commands } = reply else {
        return Err(unexpected(&reply));
    };
    if args.json {
        return print_json(&commands);
    }
    if commands.is_empty() {
        return print("no commands\n");
    }
    let rows: Vec<Vec<String>> = commands
        .into_iter()
        .map(|command| {
            let (submitted, standing) = (rfc3339(command.submitted_ms), standing(&command));
            vec![
                command.id,
                submitted,
                command.gateway,
                command.device,
                command.resource,
                standing,
            ]
        })
        .collect();
    let head = ["ID", "SUBMITTED", "GATEWAY", "DEVICE", "RESOURCE", "STATE"];
    print(&table(&head, &rows))
}

fn show(id: String, args: &CollectorArgs) -> Result<(), Failure> {
    let reply = ask(args, CommandJob::Show { id }, Duration::ZERO)?;
    let CommandReply::Is { state } = reply else {
        return Err(unexpected(&reply));
    };
    if args.json {
        return print_json(&state);
    }
    let payload = state.answer.as_ref().map(answer_text);
    print(&format!(
        "command    {}\ndevice     {} at {}\nresource   {}\nsubmitted  {}\ndeadline   {}\nstate      {}\n",
        state.id,
        state.device,
        state.gateway,
        state.resource,
        rfc3339(state.submitted_ms),
        rfc3339(state.deadline_ms),
        standing(&state),
    ))?;
    payload.map_or(Ok(()), |payload| print(&format!("answer     {payload}\n")))
}

fn answer_text(answer: &CommandAnswer) -> String {
    let payload = BASE64.decode(answer.payload.as_bytes()).unwrap_or_default();
    String::from_utf8_lossy(&payload).into_owned()
}

/// Returns where a command stands, for people.
fn standing(state: &CommandState) -> String {
    let code = state
        .reason_code
        .map(|code| format!(" with reason code {code:#04x}"));
    let cancelled = if state.cancelled && !state.finished {
        ", to be cancelled"
    } else {
        ""
    };
    format!("{}{}{cancelled}", state.state, code.unwrap_or_default())
}

fn cancel(id: String, args: &CollectorArgs) -> Result<(), Failure> {
    let reply = ask(args, CommandJob::Cancel { id }, Duration::ZERO)?;
    let CommandReply::Is { state } = reply else {
        return Err(unexpected(&reply));
    };
    if args.json {
        print_json(&state)
    } else if state.finished {
        print(&format!("{}\n", state.state))
    } else {
        print("asked the gateway to take it back; `fieldgate command list` shows whether it was in time\n")
    }
}

fn ask(args: &CollectorArgs, job: CommandJob, patience: Duration) -> Result<CommandReply, Failure> {
    let socket = match &args.socket {
        Some(socket) => socket.clone(),
        None => super::check::settings(&args.config)?.node.control_socket,
    };
    let reply = control::ask_command(&socket, job, patience).map_err(|error| {
        let failure = Failure::chain("command", &error);
        if error.kind() == io::ErrorKind::Other {
            failure.hint("name the collector's file with --config, or its socket with --socket")
        } else {
            failure.hint("is the collector running, and may you open its control socket?")
        }
    })?;
    if let CommandReply::Refused { message, hint } = reply {
        return Err(Failure::new(message).hint(hint));
    }
    Ok(reply)
}

fn unexpected(reply: &CommandReply) -> Failure {
    let what = match reply {
        CommandReply::Kept { .. } => "kept",
        CommandReply::Is { .. } => "a state",
        CommandReply::List { .. } => "a list",
        CommandReply::Refused { .. } => "a refusal",
    };
    Failure::new(format!(
        "the collector has answered another question, with {what}"
    ))
}
