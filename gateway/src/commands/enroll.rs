//! `fieldgate enroll`.

use std::{
    io::{self, BufRead as _, IsTerminal as _, Read as _, Write as _},
    path::Path,
};

use data_encoding::BASE64;
use fieldgate_proto::trust::{EnrolResponse, TICKET_TEXT_LEN_MAX, Ticket, TicketError};
use serde::Serialize;
use zeroize::Zeroizing;

use super::{
    Failure,
    operator::{Operator, read_file, time, write_new},
    print, print_json,
};
use crate::{
    cli::EnrollArgs,
    control::{
        self,
        enrol::{EnrolDone, EnrolFailure, EnrolJob, Membership, TicketText},
    },
};

pub(super) fn run(args: EnrollArgs) -> Result<(), Failure> {
    if let Some(path) = args.request.as_ref().filter(|path| path.exists()) {
        return Err(Failure::input(format!("{} exists already", path.display()))
            .hint("name a file that does not exist yet"));
    }
    let job = job(&args)?;
    let operator = Operator::new(&args.node)?;
    let done = match control::ask_enrol(operator.socket(), job) {
        Ok(result) => result.map_err(failed)?,
        Err(error) if is_absent(&error) => return Err(no_node(&error)),
        Err(error) => return Err(Failure::new(error).hint("see the log of the node")),
    };
    match done {
        EnrolDone::Enrolled(membership) => show(&membership, args.node.json),
        EnrolDone::Request { request, authority } => write_request(&args, &request, &authority),
    }
}

/// Reads ticket or response, and makes of it what the node is to do.
fn job(args: &EnrollArgs) -> Result<EnrolJob, Failure> {
    if let Some(path) = &args.response {
        let bytes = read_file(path, RESPONSE_BYTES_MAX, "response")?;
        EnrolResponse::decode(&bytes).map_err(|error| {
            Failure::input(format!("response {}: {error}", path.display()))
                .hint("take the file that `fieldgate authority answer` wrote, whole")
        })?;
        return Ok(EnrolJob::Response {
            response: BASE64.encode(&bytes),
        });
    }
    let ticket = read_ticket(args.ticket.as_deref())?;
    let name = args.name.clone();
    Ok(if args.request.is_some() {
        EnrolJob::Request { ticket, name }
    } else {
        EnrolJob::Online { ticket, name }
    })
}

/// Reads the ticket from where it is, and checks that it is one.
fn read_ticket(argument: Option<&str>) -> Result<TicketText, Failure> {
    let text = match argument {
        None => prompt()?,
        Some("-") => read_text(&mut io::stdin().lock(), "standard input")?,
        Some(text) if looks_like_a_ticket(text) => {
            warn(
                "the ticket stands on the command line: others on this machine can see it, and the shell may keep it; \
                 next time give a file, or -, or nothing",
            );
            Zeroizing::new(text.to_owned())
        }
        Some(path) => read_ticket_file(Path::new(path))?,
    };
    parse(&text)
}

fn read_ticket_file(path: &Path) -> Result<Zeroizing<String>, Failure> {
    let mut file = std::fs::File::open(path).map_err(|error| {
        Failure::input(format!("ticket {}: {error}", path.display()))
            .hint("give the ticket's file, or - for standard input, or nothing to be asked for it")
    })?;
    read_text(&mut file, &path.display().to_string())
}

fn read_text(reader: &mut dyn io::Read, place: &str) -> Result<Zeroizing<String>, Failure> {
    // Room from the start: a text that grows leaves copies of the secret behind.
    let mut text = Zeroizing::new(String::with_capacity(TICKET_FILE_BYTES_MAX + 1));
    let limit = TICKET_FILE_BYTES_MAX as u64 + 1;
    reader.take(limit).read_to_string(&mut text).map_err(|error| {
        Failure::input(format!("ticket in {place}: {error}")).hint(TicketError::OtherKind.hint())
    })?;
    Ok(text)
}

/// Asks for the ticket. It is shown while it is typed: it is long, spent seconds later, and typing errors are found.
fn prompt() -> Result<Zeroizing<String>, Failure> {
    if !io::stdin().is_terminal() {
        return Err(Failure::input("no ticket was given")
            .hint("give the ticket's file, or - to read it from standard input"));
    }
    let mut out = io::stderr().lock();
    // Without standard error the technician types blindly; that harms nothing.
    let _ = write!(out, "Ticket: ").and_then(|()| out.flush());
    let mut text = Zeroizing::new(String::with_capacity(TICKET_FILE_BYTES_MAX + 1));
    io::stdin()
        .lock()
        .take(TICKET_FILE_BYTES_MAX as u64)
        .read_line(&mut text)
        .map_err(|error| Failure::chain("terminal", &error))?;
    Ok(text)
}

fn parse(text: &str) -> Result<TicketText, Failure> {
    let bad = |error: TicketError| Failure::input(&error).hint(error.hint());
    let ticket: Ticket = text.trim().parse().map_err(bad)?;
    // One form only, whatever was typed.
    Ok(TicketText::new((*ticket.to_text()).clone()))
}

fn looks_like_a_ticket(text: &str) -> bool {
    let head = text.get(..TICKET_START.len());
    head.is_some_and(|head| head.eq_ignore_ascii_case(TICKET_START))
}

fn warn(message: &str) {
    let mut out = io::stderr().lock();
    // With standard error gone there is nobody to warn.
    let _ = writeln!(out, "warning: {message}");
}

fn failed(failure: EnrolFailure) -> Failure {
    let text = Failure::new(&failure.message);
    match failure.hint {
        Some(hint) => text.hint(hint),
        None => text,
    }
}

/// No node listens at the control socket.
fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
    )
}

/// What happens where no node is running. The job needs the identity key and, but for files, links; so it is the node that
/// does it.
fn no_node(error: &io::Error) -> Failure {
    Failure::new(error).hint(
        "start the node first, `fieldgate run` or `systemctl start fieldgate`: it enrols while it runs, and serves nobody before",
    )
}

fn show(membership: &Membership, json: bool) -> Result<(), Failure> {
    if json {
        return print_json(membership);
    }
    print(&format!(
        "This node is a member now, named {}\n\n  identifier  {}\n  authority   {}\n  credential  until {}; the node renews it by itself\n",
        membership.name,
        membership.identifier,
        membership.authority,
        time(membership.not_after)
    ))
}

/// What was written, for programs.
#[derive(Serialize)]
struct Written<'a> {
    file: String,
    authority: &'a str,
}

fn write_request(args: &EnrollArgs, request: &str, authority: &str) -> Result<(), Failure> {
    let Some(path) = &args.request else {
        return Err(Failure::new("the node has made a request where none was wanted"));
    };
    let bytes = BASE64
        .decode(request.as_bytes())
        .map_err(|error| Failure::chain("request", &error))?;
    write_new(path, &bytes)?;
    if args.node.json {
        return print_json(&Written {
            file: path.display().to_string(),
            authority,
        });
    }
    print(&format!(
        "The request is in {}\n\nAt the authority {authority}:\n\n  fieldgate authority answer REQUEST_FILE --out RESPONSE_FILE\n\nand then here:\n\n  fieldgate enroll --response RESPONSE_FILE\n",
        path.display()
    ))
}

/// How the text of every ticket begins.
const TICKET_START: &str = "fgticket1";
/// Longest file or text that may hold a ticket, in bytes: room for spaces and line ends.
const TICKET_FILE_BYTES_MAX: usize = 4 * TICKET_TEXT_LEN_MAX;
/// Longest response, in bytes: a presentation and the longest status list.
const RESPONSE_BYTES_MAX: u64 = (1 << 20) + (72 << 10);

#[cfg(test)]
mod tests;
