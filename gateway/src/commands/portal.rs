//! `fieldgate portal`.

use super::{Failure, check, print, print_json};
use crate::{
    cli::{
        AddArgs, InletAddArgs, InletCommand, NodeArgs, OutletAddArgs, OutletCommand, PortalCommand,
        StatusArgs,
    },
    control::{
        self,
        portal::{PortalDone, PortalJob, PortalKind},
    },
    runtime::portals::book::quoted,
};

/// Carries out a command about portals.
pub(super) fn run(command: &PortalCommand) -> Result<(), Failure> {
    match command {
        PortalCommand::List(args) => list(args),
        PortalCommand::Inlet(InletCommand::Add(args)) => {
            let done = add(PortalKind::Inlet, &args.name, inlet_keys(args)?, &args.more)?;
            told("inlet", &args.name, &done, &args.more)
        }
        PortalCommand::Outlet(OutletCommand::Add(args)) => {
            let done = add(PortalKind::Outlet, &args.name, outlet_keys(args)?, &args.more)?;
            told("outlet", &args.name, &done, &args.more)
        }
        PortalCommand::Inlet(InletCommand::Remove(args)) => {
            remove(PortalKind::Inlet, &args.name, args.now, &args.node_args)
        }
        PortalCommand::Outlet(OutletCommand::Remove(args)) => {
            remove(PortalKind::Outlet, &args.name, true, &args.node_args)
        }
    }
}

fn list(args: &StatusArgs) -> Result<(), Failure> {
    let status = super::status::ask(args)?;
    let Some(portals) = status.portals else {
        return Err(Failure::new("this node has no portals").hint(
            "add [[portal.inlet]] or [[portal.outlet]] to its file, or use `fieldgate portal inlet add` or `outlet add`",
        ));
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

fn inlet_keys(args: &InletAddArgs) -> Result<Vec<(String, String)>, Failure> {
    let mut keys = vec![
        key("listen", &args.listen),
        key("node", &args.node),
        key("outlet", &args.outlet),
    ];
    keys.extend(args.via.iter().map(|via| key("via", via)));
    let direct = args.direct.iter();
    keys.extend(direct.map(|address| {
        (
            "direct".to_owned(),
            format!("{{ address = {} }}", quoted(address)),
        )
    }));
    if !args.relay.is_empty() {
        let relays = args.relay.iter().map(|relay| {
            let Some((address, identifier)) = relay.split_once(',') else {
                return Err(
                    Failure::new(format!("the relay {relay} is no address and identifier"))
                        .hint("write them with a comma between: --relay relay.example:20327,fg1…"),
                );
            };
            let (address, identifier) = (quoted(address.trim()), quoted(identifier.trim()));
            Ok(format!("{{ address = {address}, identifier = {identifier} }}"))
        });
        let relays = relays.collect::<Result<Vec<_>, _>>()?;
        keys.push(("relays".to_owned(), format!("[{}]", relays.join(", "))));
    }
    Ok(keys)
}

fn outlet_keys(args: &OutletAddArgs) -> Result<Vec<(String, String)>, Failure> {
    let mut keys: Vec<_> = args
        .address
        .iter()
        .map(|address| key("address", address))
        .collect();
    for (name, values) in [("targets", &args.targets), ("allow", &args.allow)] {
        if !values.is_empty() {
            let values: Vec<String> = values.iter().map(|value| quoted(value)).collect();
            keys.push((name.to_owned(), format!("[{}]", values.join(", "))));
        }
    }
    Ok(keys)
}

fn key(name: &str, value: &str) -> (String, String) {
    (name.to_owned(), quoted(value))
}

fn add(
    kind: PortalKind,
    name: &str,
    mut keys: Vec<(String, String)>,
    more: &AddArgs,
) -> Result<PortalDone, Failure> {
    for set in &more.set {
        let Some((key, value)) = set.split_once('=') else {
            return Err(Failure::new(format!("--set {set} has no value"))
                .hint("write it as in a file: --set 'streams_max = 4'"));
        };
        keys.push((key.trim().to_owned(), value.trim().to_owned()));
    }
    let job = PortalJob::Add {
        kind,
        name: name.to_owned(),
        keys,
        keep: more.keep,
    };
    ask(&more.node_args, job)
}

fn told(kind: &str, name: &str, done: &PortalDone, more: &AddArgs) -> Result<(), Failure> {
    if more.node_args.json {
        return print_json(done);
    }
    let direction = if kind == "inlet" { "on" } else { "to" };
    let until = if more.keep {
        "also after a restart"
    } else {
        "until the node ends; --keep keeps it"
    };
    let mut text = format!("{kind} {name} {direction} {}, {until}\n", done.address);
    for warning in &done.warnings {
        text.push_str(&format!("warning: {warning}\n"));
    }
    print(&text)
}

fn remove(kind: PortalKind, name: &str, now: bool, node: &NodeArgs) -> Result<(), Failure> {
    let job = PortalJob::Remove {
        kind,
        name: name.to_owned(),
        now,
    };
    let done = ask(node, job)?;
    if node.json {
        return print_json(&done);
    }
    let streams = if now { "" } else { "; its streams go on" };
    let warnings: String = done
        .warnings
        .iter()
        .map(|warning| format!("warning: {warning}\n"))
        .collect();
    print(&format!("{} {name} is no more{streams}\n{warnings}", kind.name()))
}

fn ask(node: &NodeArgs, job: PortalJob) -> Result<PortalDone, Failure> {
    let socket = match &node.socket {
        Some(socket) => socket.clone(),
        None => check::settings(&node.config)?.node.control_socket,
    };
    control::ask_portal(&socket, job).map_err(|error| Failure::chain("portal", &error))
}
