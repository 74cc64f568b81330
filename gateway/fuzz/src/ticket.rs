//! Tickets and what is asked with them (PROTOCOL.md §10.3, §10.4).

use fieldgate_proto::trust::{EnrolRequest, EnrolResponse, Ticket, TrustError};

use crate::authority::{authority, patched};

/// Reads the input as text and as bytes of a ticket, as request and as answer, and as changes to genuine ones.
pub fn run(data: &[u8]) {
    if let Ok(text) = str::from_utf8(data) {
        typed(text);
    }
    let authority = authority();
    let genuine = authority.ticket.to_text();
    let mistyped = patched(genuine.as_bytes(), data);
    if let Ok(text) = str::from_utf8(&mistyped) {
        typed(text);
        if text.len() == genuine.len()
            && !text.contains(char::is_whitespace)
            && let Ok(ticket) = text.parse::<Ticket>()
        {
            // Up to three wrong characters are always noticed; capitals are the same ticket.
            let pairs = genuine.bytes().zip(text.bytes());
            let wrong = pairs
                .filter(|(one, other)| !one.eq_ignore_ascii_case(other))
                .count();
            assert_eq!(ticket == authority.ticket, wrong == 0);
            assert!(
                wrong == 0 || wrong > 3,
                "{wrong} wrong characters were not noticed"
            );
        }
    }
    decoded(data);
    decoded(&patched(&authority.ticket.encode(), data));
    request(data);
    request(&patched(&authority.request, data));
    response(data);
    let status = &authority.list[authority.history.to_bytes().len()..];
    let genuine = EnrolResponse::encode(&authority.presentation, Some(status)).expect("both are genuine");
    response(&patched(&genuine, data));
}

fn typed(text: &str) {
    let Ok(ticket) = text.parse::<Ticket>() else {
        return;
    };
    let compact: String = text.chars().filter(|found| !found.is_whitespace()).collect();
    assert_eq!(*ticket.to_text(), compact.to_lowercase());
    assert_eq!(*ticket.to_capitals(), compact.to_uppercase());
}

fn decoded(bytes: &[u8]) {
    let Ok(ticket) = Ticket::decode(bytes) else {
        return;
    };
    assert_eq!(ticket.encode().as_slice(), bytes);
    assert_eq!(ticket.to_text().parse::<Ticket>(), Ok(ticket));
}

fn request(bytes: &[u8]) {
    let Ok(request) = EnrolRequest::decode(bytes) else {
        return;
    };
    let verified = request.verify(&authority().ticket.key());
    assert_eq!(
        verified.is_ok(),
        bytes == authority().request,
        "a forged request was taken"
    );
}

fn response(bytes: &[u8]) {
    let Ok(response) = EnrolResponse::decode(bytes) else {
        return;
    };
    match response.status() {
        Ok(_) | Err(TrustError::Length { .. }) => {}
        Err(error) => panic!("what was decoded cannot be put together: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_ticket_and_request_are_genuine() {
        let committed = include_str!("../corpus/ticket/text");
        assert_eq!(committed.parse::<Ticket>().as_ref(), Ok(&authority().ticket));
        let committed = include_bytes!("../corpus/ticket/request");
        assert_eq!(committed, authority().request.as_slice());
    }
}
