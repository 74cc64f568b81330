//! `fieldgate authority status|log|answer`.

use std::path::Path;

use data_encoding::{BASE64, HEXLOWER};
use fieldgate_proto::{
    identity::Identifier,
    trust::{ENROL_LEN_MAX, LogHead, Presentation, StatementKind},
};
use serde::Serialize;

use super::{
    Failure,
    operator::{Operator, describe_member, read_file, time, unexpected, write_new},
    print, print_json,
};
use crate::{
    authority::{
        AuthorityStatus,
        log::{Chain, Entry, LogError},
        wire::{LogPage, ManageAnswer, ManageRequest},
    },
    cli::{AuthorityCommand, AuthorityLogArgs, NodeArgs},
    sinks::json::rfc3339,
};

pub(super) fn run(command: AuthorityCommand) -> Result<(), Failure> {
    match command {
        AuthorityCommand::Status { node } => status(&node),
        AuthorityCommand::Log(args) => log(&args),
        AuthorityCommand::Answer { request, out, node } => answer(&request, &out, &node),
    }
}

fn status(node: &NodeArgs) -> Result<(), Failure> {
    let operator = Operator::new(node)?;
    let status = ask_status(&operator)?;
    if node.json {
        return print_json(&status);
    }
    print(&describe(&status))
}

fn ask_status(operator: &Operator) -> Result<AuthorityStatus, Failure> {
    let ManageAnswer::Status(status) = operator.ask(ManageRequest::Status {})? else {
        return Err(unexpected());
    };
    Ok(*status)
}

fn describe(status: &AuthorityStatus) -> String {
    let state = if status.ready { "ready" } else { "cannot sign" };
    let mut text = format!(
        "{}\n\n  state        {state}, statement key until {}\n  members      {}, {} revoked\n  tickets      {} open of {}\n  status list  number {}, {} entries, until {}\n  log          {} entries\n",
        status.identifier,
        time(status.key_not_after),
        status.members,
        status.revoked,
        status.tickets_open,
        status.tickets,
        status.list_number,
        status.list_entries,
        time(status.list_not_after),
        status.log_entries,
    );
    if let Some(cluster) = &status.cluster {
        text.push_str(&format!("  cluster      {cluster}\n"));
    }
    for (request, count) in &status.requests {
        text.push_str(&format!("  {request:<28} {count}\n"));
    }
    for problem in &status.problems {
        text.push_str(&format!("\nproblem: {problem}\n"));
    }
    text
}

fn log(args: &AuthorityLogArgs) -> Result<(), Failure> {
    let operator = Operator::new(&args.node)?;
    if let Some(path) = &args.save_head {
        save_head(&operator, path)?;
    }
    if args.verify {
        return verify(&operator, args);
    }
    if args.save_head.is_some() && args.limit.is_none() && args.from == 1 {
        // Whoever saves the head and says nothing of entries does not want to see them all.
        return Ok(());
    }
    let mut left = args.limit.unwrap_or(u64::MAX);
    let mut from = args.from;
    while left > 0 {
        let page = log_page(&operator, from)?;
        for entry in &page.entries {
            if left == 0 {
                break;
            }
            left -= 1;
            let bytes = read_entry(entry)?;
            let entry = Entry::decode(&bytes).map_err(|error| Failure::chain("log", &error))?;
            show_entry(&entry, &bytes, args.node.json)?;
        }
        match page.next {
            Some(next) => from = next,
            None => break,
        }
    }
    Ok(())
}

fn log_page(operator: &Operator, from: u64) -> Result<LogPage, Failure> {
    let ManageAnswer::Log(page) = operator.ask(ManageRequest::Log { from })? else {
        return Err(unexpected());
    };
    Ok(page)
}

fn read_entry(text: &str) -> Result<Vec<u8>, Failure> {
    BASE64
        .decode(text.as_bytes())
        .map_err(|error| Failure::chain("log", &error))
}

/// An entry for programs.
#[derive(Serialize)]
struct ShownEntry<'a> {
    sequence: u64,
    time: String,
    time_quality: &'static str,
    actor: String,
    action: &'static str,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ticket: Option<String>,
    reason: &'a str,
    hash: String,
}

fn show_entry(entry: &Entry, bytes: &[u8], json: bool) -> Result<(), Failure> {
    let decision = &entry.decision;
    let subject = decision.subject.map(|subject| subject.to_string());
    let ticket = decision.ticket.map(|ticket| HEXLOWER.encode(&ticket));
    if json {
        return print_json(&ShownEntry {
            sequence: entry.sequence,
            time: rfc3339(entry.unix_millis),
            time_quality: entry.quality.name(),
            actor: decision.actor.to_string(),
            action: decision.action.name(),
            outcome: decision.outcome.name(),
            subject,
            ticket,
            reason: &decision.reason,
            hash: HEXLOWER.encode(&Entry::hash(bytes)),
        });
    }
    let about =
        |word: &str, what: Option<String>| what.map_or(String::new(), |what| format!(" {word} {what}"));
    print(&format!(
        "{} {} ({}) {}: {} {}{}{}{}\n",
        entry.sequence,
        rfc3339(entry.unix_millis),
        entry.quality.name(),
        decision.actor,
        decision.action.name(),
        decision.outcome.name(),
        about("of", subject),
        about("with ticket", ticket),
        if decision.reason.is_empty() {
            String::new()
        } else {
            format!(": {}", decision.reason)
        },
    ))
}

/// What `--verify` found, for programs.
#[derive(Serialize)]
struct Verified {
    intact: bool,
    first: u64,
    head: u64,
    hash: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

/// Walks the whole log here, not at the authority: what is checked is what was handed out.
fn verify(operator: &Operator, args: &AuthorityLogArgs) -> Result<(), Failure> {
    let saved = match &args.against {
        Some(path) => Some(read_head(operator, path)?),
        None => None,
    };
    let mut chain = Chain::default();
    let mut walk = Walk {
        first: 0,
        saved,
        seen_saved: false,
    };
    let mut from = 0;
    let result = loop {
        let page = log_page(operator, from)?;
        if walk.first == 0 {
            walk.first = page.first;
        }
        if let Err(error) = walk.take(&mut chain, &page)? {
            break Err((error.to_string(), error.hint()));
        }
        match page.next {
            Some(next) => from = next,
            // Entries may have been added since the page before: the chain ends where the last page says.
            None => break walk.finish(&chain, &page),
        }
    };
    let (head, hash) = chain.last().unwrap_or((0, [0; 32]));
    if args.node.json {
        print_json(&Verified {
            intact: result.is_ok(),
            first: walk.first,
            head,
            hash: HEXLOWER.encode(&hash),
            problem: result.as_ref().err().map(|(problem, _)| problem.clone()),
        })?;
        return result.map_err(|_| Failure::silent(1));
    }
    result.map_err(|(problem, hint)| Failure::new(problem).hint(hint))?;
    if walk.first > 1 {
        print(&format!(
            "Entries before {} were dropped at the bound of the log; an entry says so.\n",
            walk.first
        ))?;
    }
    print(&format!(
        "The log is intact: entries {} to {head}, hash of the last {}\n",
        walk.first,
        HEXLOWER.encode(&hash)
    ))
}

/// A walk along the log.
struct Walk {
    /// The first entry there is.
    first: u64,
    /// A head that was saved earlier.
    saved: Option<LogHead>,
    /// The entry that the saved head names was met, with its hash.
    seen_saved: bool,
}

impl Walk {
    /// Takes a page; in the result, why it does not follow.
    fn take(&mut self, chain: &mut Chain, page: &LogPage) -> Result<Result<(), LogError>, Failure> {
        for entry in &page.entries {
            if let Err(error) = chain.handle_entry(&read_entry(entry)?) {
                return Ok(Err(error));
            }
            if let (Some(saved), Some((sequence, hash))) = (&self.saved, chain.last())
                && saved.entries == sequence
                && saved.hash == hash
            {
                self.seen_saved = true;
            }
        }
        Ok(Ok(()))
    }

    /// Judges the end.
    fn finish(&self, chain: &Chain, page: &LogPage) -> Result<(), (String, &'static str)> {
        let hash: Option<[u8; 32]> = HEXLOWER
            .decode(page.head_hash.as_bytes())
            .ok()
            .and_then(|hash| hash.try_into().ok());
        let Some(hash) = hash else {
            return Err((
                "the head of the log is malformed".to_owned(),
                "use the same version of fieldgate here and at the authority",
            ));
        };
        chain
            .finish(page.head, &hash)
            .map_err(|error| (error.to_string(), error.hint()))?;
        match &self.saved {
            Some(saved) if !self.seen_saved && saved.entries >= self.first => Err((
                format!(
                    "entry {} of the log is not the one that the saved head names",
                    saved.entries
                ),
                "the log was rewritten, or the store was replaced by an older one: keep a copy of it, and find out who has access",
            )),
            Some(saved) if !self.seen_saved => Err((
                format!(
                    "entry {} of the log, which the saved head names, was dropped",
                    saved.entries
                ),
                "compare with a head that was saved later",
            )),
            _ => Ok(()),
        }
    }
}

fn save_head(operator: &Operator, path: &Path) -> Result<(), Failure> {
    let ManageAnswer::LogHead { statement } = operator.ask(ManageRequest::LogHead {})? else {
        return Err(unexpected());
    };
    let statement = BASE64
        .decode(statement.as_bytes())
        .map_err(|error| Failure::chain("log head", &error))?;
    write_new(path, &statement)
}

/// Reads a head that was saved, and checks that this authority has signed it.
fn read_head(operator: &Operator, path: &Path) -> Result<LogHead, Failure> {
    let bytes = read_file(path, HEAD_BYTES_MAX, "log head")?;
    let authority: Identifier = ask_status(operator)?
        .identifier
        .parse()
        .map_err(|error| Failure::chain("authority", &error))?;
    let bad = |error: fieldgate_proto::trust::TrustError| {
        Failure::input(format!("log head {}: {error}", path.display())).hint(error.hint())
    };
    let presented = Presentation::decode(StatementKind::LogHead, &bytes).map_err(bad)?;
    let (_, statement) = presented.verify_alone(authority).map_err(bad)?;
    LogHead::decode(&statement).map_err(bad)
}

/// What was answered, for programs.
#[derive(Serialize)]
struct Answered<'a> {
    file: String,
    member: &'a crate::authority::wire::MemberShown,
}

fn answer(request: &Path, out: &Path, node: &NodeArgs) -> Result<(), Failure> {
    let bytes = read_file(request, ENROL_LEN_MAX as u64, "request")?;
    if out.exists() {
        return Err(Failure::input(format!("{} exists already", out.display()))
            .hint("name a file that does not exist yet"));
    }
    let operator = Operator::new(node)?;
    let answer = operator.ask(ManageRequest::Answer {
        enrolment: BASE64.encode(&bytes),
    })?;
    let ManageAnswer::Response { response, member } = &answer else {
        return Err(unexpected());
    };
    let response = BASE64
        .decode(response.as_bytes())
        .map_err(|error| Failure::chain("response", &error))?;
    // Nothing is lost if that fails: the same request gets the same answer again.
    write_new(out, &response)?;
    if node.json {
        return print_json(&Answered {
            file: out.display().to_string(),
            member,
        });
    }
    print(&format!(
        "The response is in {}. On the node: `fieldgate enroll --response FILE`\n\n{}",
        out.display(),
        describe_member(member)
    ))
}

/// Longest signed log head, in bytes: a history of 16 changes and a statement.
const HEAD_BYTES_MAX: u64 = 8192;
