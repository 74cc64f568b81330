//! `fieldgate status`.

use super::{Failure, print, print_json};
use crate::{cli::StatusArgs, control};

pub(super) fn run(args: &StatusArgs) -> Result<(), Failure> {
    let socket = match &args.socket {
        Some(socket) => socket.clone(),
        None => super::check::settings(&args.config)?.node.control_socket,
    };
    let status = control::ask_status(&socket).map_err(|error| {
        Failure::chain("status", &error).hint("is the node running, and may you open its control socket? (`fieldgate run`, group of the socket)")
    })?;
    if args.json {
        print_json(&status)
    } else {
        print(&status.to_text())
    }
}
