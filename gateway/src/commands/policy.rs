//! `fieldgate policy check|show|schema|explain`.

use std::{
    fs::File,
    io::{IsTerminal as _, Read as _, Write as _},
    path::Path,
};

use fieldgate_policy::{
    Action, Checked, Colour, Context, LinkKind, Policy, Principal, Request, Resource, Revocation, Severity,
    StreamFacts, TicketRights, TimeQuality, UnknownWord, check,
};
use fieldgate_proto::identity::Identifier;

use super::{Failure, print, print_json};
use crate::cli::{PolicyCommand, PolicyExplainArgs};

pub(super) fn run(command: &PolicyCommand) -> Result<(), Failure> {
    match command {
        PolicyCommand::Check { file, json } => check_file(file, *json),
        PolicyCommand::Show => print(fieldgate_policy::BUILT_IN),
        PolicyCommand::Schema => print(fieldgate_policy::SCHEMA),
        PolicyCommand::Explain(args) => explain(args),
    }
}

fn check_file(file: &Path, json: bool) -> Result<(), Failure> {
    let checked = read(file)?;
    if json {
        print(&(checked.problems.render_json() + "\n"))?;
    } else {
        show_problems(&checked);
        if let Some(policy) = &checked.policy {
            print(&good(file, policy, &checked))?;
        }
    }
    match checked.policy {
        Some(_) => Ok(()),
        None => Err(Failure::silent(2)),
    }
}

fn good(file: &Path, policy: &Policy, checked: &Checked) -> String {
    let rules = match policy.rule_count() {
        1 => "1 rule".to_owned(),
        count => format!("{count} rules"),
    };
    let warnings = checked
        .problems
        .iter()
        .filter(|problem| problem.severity() == Severity::Warning);
    let warnings = match warnings.count() {
        0 => String::new(),
        1 => ", with 1 warning".to_owned(),
        count => format!(", with {count} warnings"),
    };
    format!("{}: good, {rules}{warnings}\n", file.display())
}

/// Reads a policy for a command that needs it; problems are printed.
///
/// # Errors
/// Exit code 2 if it cannot be read or has errors.
fn policy(file: &Path) -> Result<Policy, Failure> {
    let checked = read(file)?;
    show_problems(&checked);
    checked.policy.ok_or_else(|| Failure::silent(2))
}

/// Reads and checks a file.
fn read(file: &Path) -> Result<Checked, Failure> {
    let name = file.display().to_string();
    let failed = |error: &dyn std::fmt::Display| {
        Failure::input(format!("{name}: {error}")).hint("name a file with rules in Cedar's language")
    };
    let mut bytes = Vec::new();
    let size_max = fieldgate_policy::SIZE_MAX as u64;
    File::open(file)
        .and_then(|opened| opened.take(size_max + 1).read_to_end(&mut bytes))
        .map_err(|error| failed(&error))?;
    if bytes.len() > fieldgate_policy::SIZE_MAX {
        return Err(failed(&format_args!("more than {size_max} bytes")));
    }
    let text = String::from_utf8(bytes).map_err(|error| failed(&error.utf8_error()))?;
    Ok(check(&name, &text))
}

fn show_problems(checked: &Checked) {
    if checked.problems.is_empty() {
        return;
    }
    let mut out = std::io::stderr().lock();
    let colour = if std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none() {
        Colour::Ansi
    } else {
        Colour::None
    };
    // With standard error gone there is nobody to tell; the exit code still says it.
    let _ = out.write_all(checked.problems.render_text(colour, WIDTH).as_bytes());
}

fn explain(args: &PolicyExplainArgs) -> Result<(), Failure> {
    let policy = match &args.policy {
        Some(file) => policy(file)?,
        None => Policy::built_in(),
    };
    let explanation = policy.explain(&request(args)?);
    if args.json {
        print_json(&explanation)
    } else {
        print(&explanation.to_string())
    }
}

fn request(args: &PolicyExplainArgs) -> Result<Request, Failure> {
    let identifier: Identifier =
        args.principal
            .parse()
            .map_err(|error: fieldgate_proto::identity::IdentifierError| {
                Failure::input(format!("--principal {}: {error}", args.principal)).hint(error.hint())
            })?;
    let mut principal = Principal {
        name: args.name.clone().unwrap_or_default(),
        named: args.named,
        member: args.member,
        enroller: args.enroller,
        administrator: args.administrator,
        key: args.key.parse().map_err(|error| unknown("--key", &error))?,
        ..Principal::new(identifier)
    };
    for attribute in &args.attributes {
        let (key, value) = pair("--attribute", attribute)?;
        principal.attributes.insert(key.to_owned(), value.to_owned());
    }
    let action: Action = args.action.parse().map_err(|error| unknown("--action", &error))?;
    let resource = resource(args)?;
    let context = context(args, action)?;
    Request::new(principal, action, resource, context)
        .map_err(|error| Failure::input(error).hint(error.hint()))
}

fn resource(args: &PolicyExplainArgs) -> Result<Resource, Failure> {
    let mut resource: Resource =
        args.resource
            .parse()
            .map_err(|error: fieldgate_policy::ResourceError| {
                Failure::input(format!("--resource: {error}")).hint(error.hint())
            })?;
    for attribute in &args.resource_attributes {
        let (key, value) = pair("--resource-attribute", attribute)?;
        match (&mut resource, key) {
            (Resource::Device { gateway, .. }, "gateway") => value.clone_into(gateway),
            (Resource::Portal { kind, .. }, "kind") => value.clone_into(kind),
            _ => {
                let message = format!("--resource-attribute {attribute}: a {} has none", resource.kind());
                return Err(Failure::input(message).hint("a Device has a gateway, a Portal has a kind"));
            }
        }
    }
    Ok(resource)
}

/// The circumstances: as good as they usually are, and as `--context` says.
fn context(args: &PolicyExplainArgs, action: Action) -> Result<Context, Failure> {
    let mut context = Context {
        time_quality: TimeQuality::Synchronised,
        link: Some(LinkKind::Tcp),
        hops: None,
        post_quantum: true,
        live_proof: false,
        granted: false,
        revocation: Revocation::Fresh,
        ticket: None,
        stream: None,
    };
    let mut stream = StreamFacts::default();
    let mut ticket = TicketRights {
        grants_administrator: false,
        grants_enroller: false,
    };
    for entry in &args.context {
        let (key, value) = pair("--context", entry)?;
        let wrong = |error: UnknownWord| unknown(&format!("--context {key}"), &error);
        let flag = || {
            value.parse::<bool>().map_err(|_| {
                Failure::input(format!("--context {key}: {value:?} is neither true nor false"))
                    .hint("write true or false")
            })
        };
        match key {
            "timeQuality" => context.time_quality = value.parse().map_err(wrong)?,
            "link" if value == "none" => context.link = None,
            "link" => context.link = Some(value.parse().map_err(wrong)?),
            "hops" => {
                context.hops = Some(value.parse().map_err(|_| {
                    Failure::input(format!("--context hops: {value:?} is no number of hops"))
                        .hint("write a number like 2")
                })?);
            }
            "postQuantum" => context.post_quantum = flag()?,
            "liveProof" => context.live_proof = flag()?,
            "granted" => context.granted = flag()?,
            "revocation" => context.revocation = value.parse().map_err(wrong)?,
            "grantsAdministrator" => ticket.grants_administrator = flag()?,
            "grantsEnroller" => ticket.grants_enroller = flag()?,
            "origin" => value.clone_into(&mut stream.origin),
            "user" => value.clone_into(&mut stream.user),
            "destination" => value.clone_into(&mut stream.destination),
            "minuteOfDay" => {
                let minute = value.parse().ok().filter(|minute| *minute < 24 * 60);
                stream.minute_of_day = minute.ok_or_else(|| {
                    Failure::input(format!("--context minuteOfDay: {value:?} is no minute of a day"))
                        .hint("write minutes since midnight UTC, 0 to 1439; 8 o'clock is 480")
                })?;
            }
            "weekday" => stream.weekday = value.parse().map_err(wrong)?,
            _ => {
                return Err(
                    Failure::input(format!("--context {key}: there is nothing of this name"))
                        .hint(format!("write one of: {CONTEXT_KEYS}")),
                );
            }
        }
    }
    context.ticket = (action == Action::IssueTicket).then_some(ticket);
    context.stream = (action == Action::OpenPortal).then_some(stream);
    Ok(context)
}

fn unknown(option: &str, error: &UnknownWord) -> Failure {
    Failure::input(format!("{option}: {error}")).hint(error.hint())
}

fn pair<'a>(option: &str, text: &'a str) -> Result<(&'a str, &'a str), Failure> {
    text.split_once('=')
        .filter(|(key, _)| !key.is_empty())
        .ok_or_else(|| {
            Failure::input(format!("{option} {text}: there is no = in it"))
                .hint(format!("write {option} key=value"))
        })
}

const CONTEXT_KEYS: &str = "timeQuality, link, hops, postQuantum, liveProof, granted, revocation, \
                            grantsAdministrator, grantsEnroller, origin, user, destination, minuteOfDay, weekday";
/// Columns that diagnostics are wrapped at.
const WIDTH: usize = 110;

#[cfg(test)]
mod tests;
