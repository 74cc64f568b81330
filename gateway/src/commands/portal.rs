//! `fieldgate portal`.

use super::{Failure, print, print_json};
use crate::cli::PortalCommand;

/// Carries out a command about portals.
pub(super) fn run(command: &PortalCommand) -> Result<(), Failure> {
    let PortalCommand::List(args) = command;
    let status = super::status::ask(args)?;
    let Some(portals) = status.portals else {
        return Err(Failure::new("this node has no portals")
            .hint("add [[portal.inlet]] or [[portal.outlet]] to its file"));
    };
    if args.json {
        return print_json(&portals);
    }
    let mut text = String::new();
    portals
        .write_text(&mut text)
        .expect("writing to memory cannot fail");
    print(&text)
}
