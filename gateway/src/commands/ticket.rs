//! `fieldgate ticket issue|list|revoke`.

use qrcode::{EcLevel, QrCode, render::unicode::Dense1x2};
use serde::Serialize;
use zeroize::Zeroizing;

use super::{
    Failure,
    operator::{Operator, describe_grant, grant_order, table, time, unexpected, write_new},
    print, print_json,
};
use crate::{
    authority::wire::{IssuedTicket, ManageAnswer, ManageRequest, TicketOrder, TicketShown},
    cli::{NodeArgs, TicketCommand, TicketIssueArgs},
};

pub(super) fn run(command: TicketCommand) -> Result<(), Failure> {
    match command {
        TicketCommand::Issue(args) => issue(&args),
        TicketCommand::List { node } => list(&node),
        TicketCommand::Revoke { id, node } => revoke(id, &node),
    }
}

/// A new ticket, for programs.
#[derive(Serialize)]
struct Issued<'a> {
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    ticket: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<String>,
    not_after: u64,
    expires_at: String,
    uses: u32,
    notes: &'a [String],
}

fn issue(args: &TicketIssueArgs) -> Result<(), Failure> {
    let order = TicketOrder {
        name: args.name.clone(),
        uses: args.uses,
        expires_secs: args.expires.as_secs(),
        grant: grant_order(&args.grant)?,
    };
    if let Some(path) = args.out.as_ref().filter(|path| path.exists()) {
        // Said before the ticket is made, or it would be lost.
        return Err(Failure::input(format!("{} exists already", path.display()))
            .hint("name a file that does not exist yet"));
    }
    let operator = Operator::new(&args.node)?;
    let ManageAnswer::Ticket(ticket) = operator.ask(ManageRequest::TicketIssue(order.clone()))? else {
        return Err(unexpected());
    };
    if let Some(path) = &args.out {
        let text = Zeroizing::new(format!("{}\n", ticket.ticket.as_str()));
        write_new(path, text.as_bytes()).map_err(|failure| {
            failure.hint(format!(
                "the ticket was made but not written: end it with `fieldgate ticket revoke {}`",
                ticket.id
            ))
        })?;
    }
    if args.node.json {
        return print_json(&Issued {
            id: &ticket.id,
            ticket: args.out.is_none().then(|| ticket.ticket.as_str()),
            file: args.out.as_ref().map(|path| path.display().to_string()),
            not_after: ticket.not_after,
            expires_at: time(ticket.not_after),
            uses: order.uses,
            notes: &ticket.notes,
        });
    }
    print_issued(args, &order, &ticket)
}

fn print_issued(args: &TicketIssueArgs, order: &TicketOrder, ticket: &IssuedTicket) -> Result<(), Failure> {
    let mut text = Zeroizing::new(String::with_capacity(16 << 10));
    match &args.out {
        Some(path) => text.push_str(&format!("The ticket is in {}\n", path.display())),
        None => {
            text.push_str(ticket.ticket.as_str());
            text.push('\n');
        }
    }
    if args.qr {
        text.push('\n');
        text.push_str(&qr(ticket.ticket.as_str())?);
    }
    let name = order.name.as_deref().unwrap_or("as the node wants");
    text.push_str(&format!(
        "\n  id      {}\n  name    {name}\n  grants  {}\n  uses    {}\n  until   {}\n",
        ticket.id,
        describe_grant(&order.grant),
        order.uses,
        time(ticket.not_after)
    ));
    for note in &ticket.notes {
        text.push_str(&format!("\nnote: {note}\n"));
    }
    text.push_str("\nIt is shown only now, and whoever has it can enrol. On the node: `fieldgate enroll`\n");
    print(&text)
}

/// Draws the ticket: light modules as blocks, because most terminals write light on dark.
fn qr(ticket: &str) -> Result<Zeroizing<String>, Failure> {
    // Capitals fit the alphanumeric mode, which takes a third less room.
    let capitals = Zeroizing::new(ticket.to_ascii_uppercase());
    let code = QrCode::with_error_correction_level(capitals.as_bytes(), EcLevel::L)
        .map_err(|error| Failure::new(format!("the ticket does not fit a QR code: {error}")))?;
    let mut image = Zeroizing::new(
        code.render::<Dense1x2>()
            .dark_color(Dense1x2::Light)
            .light_color(Dense1x2::Dark)
            .build(),
    );
    image.push('\n');
    Ok(image)
}

fn list(node: &NodeArgs) -> Result<(), Failure> {
    let operator = Operator::new(node)?;
    let mut tickets: Vec<TicketShown> = Vec::new();
    let mut after = None;
    loop {
        let ManageAnswer::Tickets { tickets: page, next } =
            operator.ask(ManageRequest::TicketList { after })?
        else {
            return Err(unexpected());
        };
        tickets.extend(page);
        after = next;
        if after.is_none() {
            break;
        }
    }
    tickets.sort_by(|one, other| (one.issued_at, &one.id).cmp(&(other.issued_at, &other.id)));
    if node.json {
        return print_json(&tickets);
    }
    if tickets.is_empty() {
        return print("There is no ticket. Make one with `fieldgate ticket issue`.\n");
    }
    let rows: Vec<Vec<String>> = tickets
        .iter()
        .map(|ticket| {
            vec![
                ticket.id.clone(),
                ticket.state.clone(),
                ticket.name.clone().unwrap_or_else(|| "-".to_owned()),
                format!("{}/{}", ticket.used, ticket.uses),
                time(ticket.not_after),
                describe_grant(&ticket.grant),
            ]
        })
        .collect();
    print(&table(&["ID", "STATE", "NAME", "USED", "UNTIL", "GRANTS"], &rows))
}

fn revoke(id: String, node: &NodeArgs) -> Result<(), Failure> {
    let operator = Operator::new(node)?;
    let answer = operator.ask(ManageRequest::TicketRevoke { id })?;
    let ManageAnswer::Revoked { id, note, .. } = &answer else {
        return Err(unexpected());
    };
    if node.json {
        return print_json(&answer);
    }
    let note = note.as_deref().map_or(String::new(), |note| format!(" ({note})"));
    print(&format!(
        "Nobody can use the ticket {id} any more{note}. Who enrolled with it stays a member.\n"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_qr_code_holds_the_ticket_in_capitals() {
        let ticket = format!("fgticket1{}", "q".repeat(300));
        let image = qr(&ticket).expect("the ticket fits");
        let lines: Vec<&str> = image.lines().collect();
        let width = lines.first().map_or(0, |line| line.chars().count());
        assert!(lines.iter().all(|line| line.chars().count() == width), "{width}");
        // Alphanumeric mode: 309 characters fit version 9 (53 modules and 8 of margin); as bytes they would take 11.
        assert_eq!(width, 53 + 8);
        assert_eq!(lines.len(), (53 + 8usize).div_ceil(2));
        assert!(
            lines
                .first()
                .is_some_and(|line| line.chars().all(|module| module == '█')),
            "the margin is light"
        );
    }
}
