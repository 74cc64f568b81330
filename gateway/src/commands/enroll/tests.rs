use fieldgate_proto::identity::Identifier;

use super::*;
use crate::runtime::entropy::SystemEntropy;

fn ticket() -> Zeroizing<String> {
    let ticket = Ticket::generate(
        &mut SystemEntropy,
        Identifier::from_bytes([7; 32]),
        4_000_000_000,
        Vec::new(),
    );
    ticket
        .expect("the ticket has no ways that could be wrong")
        .to_text()
}

#[test]
fn takes_a_ticket_from_a_file_with_spaces_and_capitals() {
    let ticket = ticket();
    let directory = tempfile::tempdir().expect("there is room for a directory");
    let path = directory.path().join("ticket");
    std::fs::write(&path, format!("\n  {}\r\n", ticket.to_ascii_uppercase())).expect("the file is written");
    let path = path.to_str().expect("the path is text");
    let read = read_ticket(Some(path)).expect("the file holds a ticket");
    assert_eq!(read.as_str(), ticket.as_str());
}

#[test]
fn takes_a_ticket_from_the_command_line() {
    let ticket = ticket();
    let read = read_ticket(Some(&ticket.to_ascii_uppercase())).expect("the text is a ticket");
    assert_eq!(read.as_str(), ticket.as_str());
}

#[test]
fn a_ticket_and_its_job_do_not_print_the_secret() {
    let ticket = ticket();
    let job = EnrolJob::Online {
        ticket: TicketText::new(ticket.to_string()),
        name: None,
    };
    assert!(!format!("{job:?}").contains(ticket.as_str()));
}

#[test]
fn refuses_files_that_hold_something_else() {
    let directory = tempfile::tempdir().expect("there is room for a directory");
    let write = |name: &str, bytes: &[u8]| {
        let path = directory.path().join(name);
        std::fs::write(&path, bytes).expect("the file is written");
        path.to_str().expect("the path is text").to_owned()
    };
    let mut mistyped = ticket().to_string();
    let last = mistyped.pop().expect("a ticket is not empty");
    mistyped.push(if last == 'q' { 'p' } else { 'q' });
    let identifier = Identifier::from_bytes([7; 32]).to_string();
    for (name, bytes) in [
        ("empty", Vec::new()),
        ("binary", vec![0xff; 100]),
        ("long", vec![b'q'; 100_000]),
        ("mistyped", mistyped.into_bytes()),
        ("identifier", identifier.into_bytes()),
    ] {
        let path = write(name, &bytes);
        let failure = read_ticket(Some(&path)).expect_err(name);
        assert_eq!(failure.code, 2, "{name}: {failure:?}");
    }
    let failure = read_ticket(Some("/nonexistent/ticket")).expect_err("there is no such file");
    assert_eq!(failure.code, 2);
}
