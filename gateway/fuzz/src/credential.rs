//! Credentials (PROTOCOL.md §10.1, §10.2): nothing but what the authority signed is believed.

use fieldgate_proto::identity::Identifier;
use fieldgate_proto::time::WallTime;
use fieldgate_proto::trust::{Credential, Presentation, SignedTime, Statement, StatementKind};

use crate::authority::{MEMBER, authority, credential, patched};
use crate::world::BEGIN_SECS;

/// Reads the input as a presentation, as changes to a genuine one, as the body of a credential that is not signed,
/// and as the body of one that is.
pub fn run(data: &[u8]) {
    presented(data);
    presented(&patched(&authority().presentation, data));
    body(data);
    signed_body(data);
}

fn presented(bytes: &[u8]) {
    for kind in [
        StatementKind::Credential,
        StatementKind::StatusList,
        StatementKind::Time,
        StatementKind::LogHead,
    ] {
        let Ok(presentation) = Presentation::decode(kind, bytes) else {
            continue;
        };
        let statement = presentation.signed().statement();
        let encoded = statement.encode().expect("it was decoded");
        assert_eq!(Statement::decode(kind, &encoded), Ok(*statement));
        if kind == StatementKind::Time {
            let _ = SignedTime::decode(statement);
        }
    }
    let mut trust = authority().believer();
    let unknown = WallTime::default();
    if let Ok(believed) = trust.verify(unknown, MEMBER, bytes) {
        assert_eq!(*believed, credential(), "a forged credential was believed");
        assert_eq!(
            bytes,
            authority().presentation,
            "a presentation was altered unnoticed"
        );
        assert!(trust.verify(unknown, MEMBER, bytes).is_ok());
        assert_eq!((trust.stats().hits, trust.stats().misses), (1, 1));
    } else {
        assert!(
            trust.history().is_none() && trust.poll_output().is_none(),
            "a refused presentation left something behind"
        );
    }
    let stranger = Identifier::from_bytes([8; 32]);
    assert!(trust.verify(unknown, stranger, bytes).is_err());
}

fn body(bytes: &[u8]) {
    let statement = Statement {
        kind: StatementKind::Credential,
        authority: authority().history.identifier(),
        number: 9,
        issued_at: BEGIN_SECS,
        not_after: BEGIN_SECS + 86_400,
        body: bytes,
    };
    if let Ok(credential) = Credential::decode(&statement) {
        assert_eq!(credential.encode().as_deref(), Ok(bytes));
        assert_eq!(credential.check(), Ok(()));
    }
}

/// Only one input in sixteen is signed: signing takes longer than all the rest.
fn signed_body(data: &[u8]) {
    let Some((0..16, body)) = data.split_first().map(|(first, rest)| (*first, rest)) else {
        return;
    };
    let Some(presentation) = authority().sign(StatementKind::Credential, 9, body) else {
        return;
    };
    let subject = body
        .first_chunk()
        .map_or(MEMBER, |subject| Identifier::from_bytes(*subject));
    let mut trust = authority().believer();
    if let Ok(credential) = trust.verify(WallTime::default(), subject, &presentation) {
        assert_eq!(credential.encode().as_deref(), Ok(body));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_presentation_is_genuine() {
        let committed = include_bytes!("../corpus/credential/presentation");
        assert_eq!(committed, authority().presentation.as_slice());
        let mut trust = authority().believer();
        assert!(trust.verify(WallTime::default(), MEMBER, committed).is_ok());
    }
}
