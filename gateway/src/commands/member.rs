//! `fieldgate member list|show|add|revoke`.

use super::{
    Failure,
    operator::{Operator, describe_grant, describe_member, grant_order, table, time, unexpected},
    print, print_json,
};
use crate::{
    authority::wire::{ManageAnswer, ManageRequest, MemberOrder, MemberShown},
    cli::{MemberCommand, NodeArgs},
};

pub(super) fn run(command: MemberCommand) -> Result<(), Failure> {
    match command {
        MemberCommand::List { revoked, node } => list(revoked, &node),
        MemberCommand::Show { member, node } => {
            let answer = Operator::new(&node)?.ask(ManageRequest::MemberShow { member })?;
            show(&answer, &node)
        }
        MemberCommand::Add {
            identifier,
            name,
            grant,
            node,
        } => {
            let order = MemberOrder {
                identifier,
                name,
                grant: grant_order(&grant)?,
            };
            let answer = Operator::new(&node)?.ask(ManageRequest::MemberAdd(order))?;
            show(&answer, &node)
        }
        MemberCommand::Revoke { member, reason, node } => revoke(member, reason, &node),
    }
}

fn show(answer: &ManageAnswer, node: &NodeArgs) -> Result<(), Failure> {
    let ManageAnswer::Member(member) = answer else {
        return Err(unexpected());
    };
    if node.json {
        return print_json(member);
    }
    print(&describe_member(member))
}

fn list(revoked: bool, node: &NodeArgs) -> Result<(), Failure> {
    let operator = Operator::new(node)?;
    let mut after = None;
    let mut rows = Vec::new();
    loop {
        let ManageAnswer::Members { members, next } =
            operator.ask(ManageRequest::MemberList { revoked, after })?
        else {
            return Err(unexpected());
        };
        for member in &members {
            if node.json {
                // One object per line: there may be a million.
                print_json(member)?;
            } else {
                rows.push(row(member));
            }
        }
        after = next;
        if after.is_none() {
            break;
        }
    }
    if node.json {
        return Ok(());
    }
    match (rows.is_empty(), revoked) {
        (true, true) => print("Nobody was revoked.\n"),
        (true, false) => print("There is no member. Make a ticket with `fieldgate ticket issue`.\n"),
        (false, true) => print(&table(&["NAME", "IDENTIFIER", "REVOKED", "REASON"], &rows)),
        (false, false) => print(&table(
            &["NAME", "IDENTIFIER", "CREDENTIAL UNTIL", "GRANTS"],
            &rows,
        )),
    }
}

fn row(member: &MemberShown) -> Vec<String> {
    let name = if member.name.is_empty() { "-" } else { &member.name };
    let (when, what) = match &member.revoked {
        Some(revoked) => (time(revoked.at), revoked.reason.clone()),
        None => (time(member.not_after), describe_grant(&member.grant)),
    };
    vec![name.to_owned(), member.identifier.clone(), when, what]
}

fn revoke(member: String, reason: String, node: &NodeArgs) -> Result<(), Failure> {
    let operator = Operator::new(node)?;
    let answer = operator.ask(ManageRequest::MemberRevoke { member, reason })?;
    let ManageAnswer::Revoked { id, list, note } = &answer else {
        return Err(unexpected());
    };
    if node.json {
        return print_json(&answer);
    }
    let list = list.map_or(String::new(), |number| format!("; status list {number} says so"));
    let note = note
        .as_deref()
        .map_or(String::new(), |note| format!("\nnote: {note}"));
    print(&format!("{id} is revoked{list}.{note}\n"))
}
