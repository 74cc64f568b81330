//! `fieldgate status`.

use super::{Failure, print, print_json};
use crate::{cli::StatusArgs, control, status::NodeStatus};

pub(super) fn run(args: &StatusArgs) -> Result<(), Failure> {
    let status = ask(args)?;
    if args.json {
        print_json(&status)
    } else {
        print(&status.to_text())
    }
}

/// Asks a running node what it is doing.
pub(super) fn ask(args: &StatusArgs) -> Result<NodeStatus, Failure> {
    let socket = match &args.socket {
        Some(socket) => socket.clone(),
        None => super::check::settings(&args.config)?.node.control_socket,
    };
    control::ask_status(&socket).map_err(|error| {
        Failure::chain("status", &error).hint("is the node running, and may you open its control socket? (`fieldgate run`, group of the socket)")
    })
}
