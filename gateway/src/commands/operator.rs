//! What the commands of an authority's operators share: asking, and showing what was answered.

use std::{
    fs::OpenOptions,
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use super::{Failure, check};
use crate::{
    authority::wire::{GrantOrder, ManageAnswer, ManageError, ManageRequest, MemberShown},
    cli::{GrantArgs, NodeArgs},
    control,
    sinks::json::rfc3339,
};

/// A running node, as the arguments name it.
pub(super) struct Operator {
    socket: PathBuf,
}

impl Operator {
    pub(super) fn new(args: &NodeArgs) -> Result<Self, Failure> {
        let socket = match &args.socket {
            Some(socket) => socket.clone(),
            None => check::settings(&args.config)?.node.control_socket,
        };
        Ok(Self { socket })
    }

    /// Puts a request to the authority; its refusal is a failure.
    pub(super) fn ask(&self, request: ManageRequest) -> Result<ManageAnswer, Failure> {
        let answer = control::ask_manage(&self.socket, request)
            .map_err(|error| Failure::new(error).hint(NO_NODE_HINT))?;
        if let ManageAnswer::Error(error) = &answer {
            return Err(refused(error));
        }
        Ok(answer)
    }

    /// Returns the control socket.
    pub(super) fn socket(&self) -> &Path {
        &self.socket
    }
}

fn refused(error: &ManageError) -> Failure {
    // What is wrong with the words themselves is the caller's to mend.
    let failure = if INPUT_CODES.contains(&error.code.as_str()) {
        Failure::input(&error.message)
    } else {
        Failure::new(&error.message)
    };
    match &error.hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

/// The node has answered with something that was not asked for.
pub(super) fn unexpected() -> Failure {
    Failure::new("the authority has answered another question")
        .hint("use the same version of fieldgate here and at the authority")
}

/// Reads what is to be granted.
pub(super) fn grant_order(args: &GrantArgs) -> Result<GrantOrder, Failure> {
    let mut order = GrantOrder {
        hold: args.hold.clone(),
        reach: args.reach.clone(),
        enroller: args.enroller,
        administrator: args.administrator,
        ..GrantOrder::default()
    };
    for attribute in &args.attributes {
        let Some((key, value)) = attribute.split_once('=') else {
            return Err(Failure::input(format!("attribute {attribute:?} has no ="))
                .hint("write --attribute site=north"));
        };
        if order
            .attributes
            .insert(key.to_owned(), value.to_owned())
            .is_some()
        {
            return Err(Failure::input(format!("attribute {key:?} is given twice"))
                .hint("an attribute has one value"));
        }
    }
    Ok(order)
}

/// Says what is granted, in a few words.
pub(super) fn describe_grant(grant: &GrantOrder) -> String {
    let mut words: Vec<String> = Vec::new();
    if grant.administrator {
        words.push("administrator".to_owned());
    }
    if grant.enroller {
        words.push("enroller".to_owned());
    }
    words.extend(
        grant
            .attributes
            .iter()
            .map(|(key, value)| format!("{key}={value}")),
    );
    if !grant.hold.is_empty() {
        words.push(format!("holds {}", grant.hold.join(" ")));
    }
    if !grant.reach.is_empty() {
        words.push(format!("reaches {}", grant.reach.join(" ")));
    }
    if words.is_empty() {
        "nothing besides membership".to_owned()
    } else {
        words.join(", ")
    }
}

/// Writes a time, or a dash where there is none.
pub(super) fn time(unix_secs: u64) -> String {
    if unix_secs == 0 {
        return "-".to_owned();
    }
    let text = rfc3339(unix_secs.saturating_mul(1000));
    // Whole seconds: the milliseconds are always zero here.
    text.replace(".000Z", "Z")
}

/// Shows a member, one line per fact.
pub(super) fn describe_member(member: &MemberShown) -> String {
    let name = if member.name.is_empty() { "-" } else { &member.name };
    let mut text = format!(
        "{name}\n\n  identifier  {}\n  since       {}\n  by          {}\n  grants      {}\n",
        member.identifier,
        time(member.since),
        member.source,
        describe_grant(&member.grant),
    );
    if member.serial == 0 {
        text.push_str("  credential  none so far\n");
    } else {
        text.push_str(&format!(
            "  credential  serial {}, until {}\n",
            member.serial,
            time(member.not_after)
        ));
    }
    if let Some(revoked) = &member.revoked {
        let listed = if revoked.listed {
            "in the status list"
        } else {
            "no longer in the status list: its credentials ended long ago"
        };
        text.push_str(&format!(
            "  revoked     {}: {}\n              {listed}\n",
            time(revoked.at),
            revoked.reason
        ));
    }
    text
}

/// Lays rows out in columns; the last column is as wide as it likes.
pub(super) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        let longest = cells.map(|cell| cell.chars().count()).max();
        longest
            .unwrap_or(0)
            .max(head.get(column).map_or(0, |name| name.len()))
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut text = String::new();
        for (cell, width) in cells.zip(&widths) {
            text.push_str(&format!("{cell:<width$}  "));
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
        text
    };
    let mut text = line(&mut head.iter().copied());
    for row in rows {
        text.push_str(&line(&mut row.iter().map(String::as_str)));
    }
    text
}

/// Writes a new file that only its owner can read. One that exists is not replaced: it may be the only copy of something.
pub(super) fn write_new(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let result = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()
        });
    result.map_err(|error| {
        let exists = error.kind() == io::ErrorKind::AlreadyExists;
        let failure = Failure::new(format!("{}: {error}", path.display()));
        if exists {
            failure.hint("name a file that does not exist yet")
        } else {
            failure.hint("check the directory and the space on it")
        }
    })
}

/// Reads a file of at most `bytes_max` bytes.
pub(super) fn read_file(path: &Path, bytes_max: u64, what: &str) -> Result<Vec<u8>, Failure> {
    let failed = |error: io::Error| {
        Failure::input(format!("{what} {}: {error}", path.display()))
            .hint("check the path, and that you may read the file")
    };
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(bytes_max + 1).read_to_end(&mut bytes))
        .map_err(failed)?;
    if bytes.len() as u64 > bytes_max {
        return Err(Failure::input(format!(
            "{what} {}: longer than {bytes_max} bytes",
            path.display()
        ))
        .hint("this is another file"));
    }
    Ok(bytes)
}

/// Refusals that are about what was typed: exit code 2.
const INPUT_CODES: [&str; 3] = ["order", "malformed", "no-such-member"];
/// What to do when no node answers.
const NO_NODE_HINT: &str =
    "is the authority's node running (`fieldgate run`), and may you open its control socket?";

#[cfg(test)]
mod tests;
