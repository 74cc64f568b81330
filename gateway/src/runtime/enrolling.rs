//! Becoming a member: with a ticket over the network, or with files.
//!
//! ```text
//!  online:  ticket ─▶ signed request ─▶ a node for this only, over the ways of the ticket ─▶ credential kept
//!  files:   ticket ─▶ signed request ─▶ … the authority … ─▶ response ─▶ credential kept
//! ```
//!
//! Nothing of the node that runs takes part: it takes over what was kept when it starts anew.

use data_encoding::BASE64;
use fieldgate_config::settings::{Settings, Trust as TrustSection};
use fieldgate_hsm::Priority;
use fieldgate_proto::{
    entropy::Entropy as _,
    identity::ChangeHistory,
    node::Asked,
    trust::{EnrolDraft, EnrolResponse, Ticket, Trust, TrustOutput},
};

use super::{
    Question, StartError,
    belonging::{Belonging, TrustFiles},
    clock::Clock,
    entropy::SystemEntropy,
    keys::Identity,
    start::{self, Options},
};
use crate::control::enrol::{EnrolDone, EnrolFailure, EnrolJob, Membership, TicketText};

/// Does what `job` says for the node of `settings`. Call it in a `LocalSet`.
///
/// # Errors
/// [`EnrolFailure`]: what does not work and what to do; the ticket is then not spent, or spent for this node.
pub(crate) async fn enrol(
    settings: &Settings,
    identity: Identity,
    clock: Clock,
    job: EnrolJob,
) -> Result<EnrolDone, EnrolFailure> {
    let files = TrustFiles::new(&settings.node.state_dir);
    match job {
        EnrolJob::Online { ticket, name } => {
            let ticket = parse(&ticket)?;
            fits(settings, &identity, &files, &ticket)?;
            let request = request(settings, &identity, &clock, &ticket, name.as_deref()).await?;
            let history = identity.history().clone();
            ask(settings, identity, clock, &ticket, request).await?;
            files.keep_ticket(&ticket).map_err(|error| kept(&files, &error))?;
            membership(settings, &history, &files)
        }
        EnrolJob::Request { ticket, name } => {
            let ticket = parse(&ticket)?;
            fits(settings, &identity, &files, &ticket)?;
            let request = request(settings, &identity, &clock, &ticket, name.as_deref()).await?;
            // The response is judged by whose ticket it was.
            files.keep_ticket(&ticket).map_err(|error| kept(&files, &error))?;
            Ok(EnrolDone::Request {
                request: BASE64.encode(&request),
                authority: ticket.authority().to_string(),
            })
        }
        EnrolJob::Response { response } => {
            let bytes = BASE64
                .decode(response.as_bytes())
                .map_err(|error| failure(&format!("the response is not Base64: {error}"), None))?;
            take_response(settings, &identity, &clock, &files, &bytes)?;
            membership(settings, identity.history(), &files)
        }
    }
}

fn parse(text: &TicketText) -> Result<Ticket, EnrolFailure> {
    text.as_str()
        .parse()
        .map_err(|error: fieldgate_proto::trust::TicketError| failure(&error.to_string(), Some(error.hint())))
}

/// Checks that the node is not a member of somebody else.
fn fits(
    settings: &Settings,
    identity: &Identity,
    files: &TrustFiles,
    ticket: &Ticket,
) -> Result<(), EnrolFailure> {
    let belonging = Belonging::find(settings, identity.history().identifier(), files).map_err(not_started)?;
    match belonging.authority {
        Some(authority) if authority != ticket.authority() => Err(failure(
            &format!(
                "the ticket is of the authority {}, but this node belongs to {authority}",
                ticket.authority()
            ),
            Some(&format!(
                "take a ticket of its own authority, or remove {} to change sides",
                files.dir().display()
            )),
        )),
        Some(_) | None => Ok(()),
    }
}

/// Makes the request, and has the identity key sign it.
async fn request(
    settings: &Settings,
    identity: &Identity,
    clock: &Clock,
    ticket: &Ticket,
    name: Option<&str>,
) -> Result<Vec<u8>, EnrolFailure> {
    let mut nonce = [0; 16];
    SystemEntropy.fill(&mut nonce);
    let name = name.unwrap_or(&settings.node.name);
    let broken = |error: fieldgate_proto::trust::TrustError| failure(&error.to_string(), Some(error.hint()));
    let draft =
        EnrolDraft::new(ticket, identity.history(), clock.wall().unix_secs(), nonce, name).map_err(broken)?;
    let signature = identity
        .signer()
        .sign(Priority::Enrolment, draft.message())
        .await
        .map_err(not_started)?;
    draft.finish(&signature).map_err(broken)
}

/// Asks the authority by a node that does nothing else.
async fn ask(
    settings: &Settings,
    identity: Identity,
    clock: Clock,
    ticket: &Ticket,
    request: Vec<u8>,
) -> Result<(), EnrolFailure> {
    let mut only = settings.clone();
    (only.mqtt, only.journal, only.link_tcp, only.relay) = (None, None, None, None);
    (only.link_quic, only.link_unix) = (None, None);
    if let Some(websocket) = &mut only.link_websocket {
        // What it dials with stays.
        (websocket.listen, websocket.tls) = (Vec::new(), None);
    }
    (only.collector, only.authority, only.metrics) = (None, None, None);
    only.uplinks.clear();
    only.trust = Some(trust_section(settings));
    let options = Options {
        belonging: Some(Belonging::of_ticket(ticket).map_err(not_started)?),
        ..Options::new(clock)
    };
    let mut running = start::start(&only, identity, options)
        .await
        .map_err(not_started)?;
    let asked = running.handle.desk.ask(Question::Enrol(request)).await;
    running.stop();
    match asked {
        Asked::Issued => Ok(()),
        Asked::Denied => Err(failure(
            "the authority has refused",
            Some(
                "the ticket may be used, expired or revoked: the authority's log (`fieldgate authority log`) says why",
            ),
        )),
        Asked::Managed(_) | Asked::TooLong | Asked::Unanswered => {
            let ways: Vec<&str> = ticket
                .ways()
                .iter()
                .map(fieldgate_proto::trust::Way::address)
                .collect();
            Err(failure(
                &format!("the authority was not reached by {}", ways.join(", ")),
                Some(
                    "check the network and that relay and authority run, then try again with the same ticket: it is not spent, \
                     or spent for this node",
                ),
            ))
        }
    }
}

/// What a file without `[trust]` means by it.
fn trust_section(settings: &Settings) -> TrustSection {
    settings.trust.clone().unwrap_or(TrustSection {
        authority: None,
        path: None,
        pq: fieldgate_config::settings::Pq::Required,
        policy: None,
        grace: std::time::Duration::ZERO,
        after_grace: fieldgate_config::settings::AfterGrace::Refuse,
    })
}

fn take_response(
    settings: &Settings,
    identity: &Identity,
    clock: &Clock,
    files: &TrustFiles,
    bytes: &[u8],
) -> Result<(), EnrolFailure> {
    let broken = |error: fieldgate_proto::trust::TrustError| failure(&error.to_string(), Some(error.hint()));
    let belonging = Belonging::find(settings, identity.history().identifier(), files).map_err(not_started)?;
    if belonging.authority.is_none() {
        return Err(failure(
            "this node has made no request",
            Some("make one with the ticket first: `fieldgate enroll TICKET --request FILE`"),
        ));
    }
    let mut trust: Trust = belonging
        .trust(settings, identity.history(), files)
        .map_err(not_started)?;
    let response = EnrolResponse::decode(bytes).map_err(broken)?;
    trust
        .set_own(clock.wall(), response.presentation)
        .map_err(broken)?;
    if let Some(list) = response.status().map_err(broken)? {
        trust.take_status(clock.wall(), &list).map_err(broken)?;
    }
    while let Some(TrustOutput::Save { what, bytes }) = trust.poll_output() {
        files.save(what, &bytes).map_err(|error| kept(files, &error))?;
    }
    Ok(())
}

/// Says what was kept.
fn membership(
    settings: &Settings,
    history: &ChangeHistory,
    files: &TrustFiles,
) -> Result<EnrolDone, EnrolFailure> {
    let belonging = Belonging::find(settings, history.identifier(), files).map_err(not_started)?;
    let trust = belonging.trust(settings, history, files).map_err(not_started)?;
    let (Some(authority), Some(own)) = (trust.authority(), trust.own()) else {
        return Err(failure(
            "the credential was not kept",
            Some("see the log, and try again with the same ticket"),
        ));
    };
    Ok(EnrolDone::Enrolled(Membership {
        authority: authority.to_string(),
        identifier: history.identifier().to_string(),
        name: own.credential.name.clone(),
        not_after: own.credential.not_after,
    }))
}

fn failure(message: &str, hint: Option<&str>) -> EnrolFailure {
    EnrolFailure {
        message: message.to_owned(),
        hint: hint.map(ToOwned::to_owned),
    }
}

fn not_started(error: StartError) -> EnrolFailure {
    let (message, hint) = error.into_parts();
    EnrolFailure { message, hint }
}

fn kept(files: &TrustFiles, error: &std::io::Error) -> EnrolFailure {
    failure(
        &format!("{}: {error}", files.dir().display()),
        Some(
            "make the state directory writable, and try again with the same ticket: it is spent for this node",
        ),
    )
}
