//! What the tests of the authority stand on: identities in memory, an engine in a temporary directory, a clock by hand.

mod log;
mod running;

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use fieldgate_hsm::{Algorithm, Signer as _, SoftwareSigner};
use fieldgate_proto::{
    crypto::Signature,
    identity::{ChangeDraft, ChangeHistory, Identifier, KeyAlgorithm, PublicKey},
    time::{ClockQuality, Instant, Now, WallTime},
    trust::{Credential, EnrolDraft, Presentation, Rights, StatementKind, StatusList, Ticket},
};

use super::{
    AuthorityAnswer, AuthorityLimits, AuthorityOutput, AuthoritySettings, Origin, RequestKind, Wish,
    engine::Engine,
    permit::{OwnRules, Permit},
    replication::ReplicationSettings,
    wire::{
        GrantOrder, IssuedTicket, LogPage, ManageAnswer, ManageError, ManageRequest, MemberOrder, TicketOrder,
    },
};
use crate::runtime::entropy::SystemEntropy;

pub(crate) use log::SharedLog;
pub(crate) use running::{Running, ask};

/// The user at the authority's own machine.
pub(crate) const LOCAL: Origin = Origin::Local { uid: 1000 };
/// When the tests begin, seconds since 1970.
pub(crate) const BEGINNING: u64 = 1_800_000_000;

/// An identity with its key.
pub(crate) struct Node {
    signer: SoftwareSigner,
    pub(crate) history: ChangeHistory,
}

impl Node {
    pub(crate) fn new() -> Self {
        Self::with(Algorithm::Ed25519)
    }

    pub(crate) fn with(algorithm: Algorithm) -> Self {
        Self::from_signer(SoftwareSigner::generate(algorithm).expect("keys can be made"))
    }

    /// The same identity for the same seed.
    pub(crate) fn seeded(seed: u8) -> Self {
        use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
        let seed = [seed; 32];
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed).expect("every seed is a key");
        let public = fieldgate_hsm::PublicKey::from_bytes(Algorithm::Ed25519, pair.public_key().as_ref());
        let public = public.expect("a public key has 32 bytes");
        Self::from_signer(SoftwareSigner::from_private_key(&seed, &public).expect("the halves fit"))
    }

    fn from_signer(mut signer: SoftwareSigner) -> Self {
        let draft = ChangeDraft::first(public(&signer), 0);
        let own = signer.sign(&draft.message()).expect("the key signs");
        let history = draft.finish(own, None).expect("the key has signed");
        Self { signer, history }
    }

    /// The same identity with a new key.
    pub(crate) fn rotated(mut self) -> Self {
        let mut signer = SoftwareSigner::generate(Algorithm::P256).expect("keys can be made");
        let draft = ChangeDraft::next(self.history.clone(), public(&signer), 0).expect("there is room");
        let own = signer.sign(&draft.message()).expect("the key signs");
        let before = self.signer.sign(&draft.message()).expect("the key signs");
        let history = draft.finish(own, Some(before)).expect("both have signed");
        Self { signer, history }
    }

    pub(crate) fn id(&self) -> Identifier {
        self.history.identifier()
    }

    pub(crate) fn sign(&mut self, message: &[u8]) -> Signature {
        self.signer.sign(message).expect("the key signs")
    }

    /// Makes a request of enrolment.
    pub(crate) fn request(&mut self, ticket: &Ticket, name: &str) -> Vec<u8> {
        let draft =
            EnrolDraft::new(ticket, &self.history, BEGINNING, [9; 16], name).expect("the name is good");
        let signature = self.sign(&draft.message());
        draft.finish(&signature).expect("the key has signed")
    }

    /// Where its requests come from, with the rights that its credential says.
    pub(crate) fn origin(&self, rights: Rights) -> Origin {
        Origin::Channel {
            peer: self.id(),
            rights,
        }
    }
}

fn public(signer: &SoftwareSigner) -> PublicKey {
    let key = signer.public_key();
    let algorithm = match key.algorithm() {
        Algorithm::P256 => KeyAlgorithm::EcdsaP256,
        Algorithm::Ed25519 => KeyAlgorithm::Ed25519,
    };
    PublicKey::new(algorithm, key.as_bytes(), 0).expect("the signer encodes keys as the protocol does")
}

/// No rights at the authority.
pub(crate) const NOTHING: Rights = Rights {
    enroller: false,
    administrator: false,
};
/// The right to issue plain tickets.
pub(crate) const ENROLLER: Rights = Rights {
    enroller: true,
    administrator: false,
};
/// Every right.
pub(crate) const ADMINISTRATOR: Rights = Rights {
    enroller: false,
    administrator: true,
};

/// A policy that forbids one kind of wish.
struct Forbids(&'static str);

impl Permit for Forbids {
    fn may(&self, _: &Origin, wish: &Wish) -> bool {
        wish.what() != self.0
    }
}

/// An authority under test.
pub(crate) struct Rig {
    pub(in crate::authority) engine: Engine,
    pub(crate) authority: Node,
    pub(crate) settings: AuthoritySettings,
    pub(crate) now: Now,
    /// Status lists told to the node, newest last.
    pub(crate) lists: Vec<Arc<[u8]>>,
    /// The node answers requests for signatures.
    pub(crate) signs: bool,
    /// The newest list that the node holds when the engine is started again.
    pub(crate) held: Option<StatusList>,
    pub(crate) broken: Option<String>,
    directory: tempfile::TempDir,
    /// The log it follows, and what that is called.
    log: Option<(SharedLog, String)>,
}

impl Rig {
    pub(crate) fn new() -> Self {
        Self::with(|_| ())
    }

    /// Makes one with other settings.
    pub(crate) fn with(change: impl FnOnce(&mut AuthoritySettings)) -> Self {
        let directory = tempfile::tempdir().expect("there is room for a directory");
        let mut settings = settings(&directory.path().join("authority.redb"));
        change(&mut settings);
        Self::begin(directory, settings, None)
    }

    /// Makes one that follows a log.
    pub(crate) fn following(log: &SharedLog, name: &str, founds: bool) -> Self {
        let directory = tempfile::tempdir().expect("there is room for a directory");
        let settings = settings(&directory.path().join("authority.redb"));
        Self::begin(directory, settings, Some((log, name, founds)))
    }

    /// Makes one that is to follow a log, and has not looked at it.
    pub(crate) fn following_unlooked(log: &SharedLog, name: &str) -> Self {
        let directory = tempfile::tempdir().expect("there is room for a directory");
        let settings = settings(&directory.path().join("authority.redb"));
        Self::opened(directory, settings, Some((log, name, false)))
    }

    /// Ends it and starts it again as one that follows a log.
    pub(crate) fn follow(self, log: &SharedLog, name: &str, founds: bool) -> Self {
        let Self {
            engine,
            settings,
            directory,
            ..
        } = self;
        drop(engine);
        Self::begin(directory, settings, Some((log, name, founds)))
    }

    /// Makes another with a copy of the store, which nothing is written to meanwhile.
    pub(crate) fn copied(&self) -> Copied {
        let directory = tempfile::tempdir().expect("there is room for a directory");
        let settings = settings(&directory.path().join("authority.redb"));
        std::fs::copy(&self.settings.store, &settings.store).expect("the directory is ours");
        Copied { directory, settings }
    }

    /// Ends it and opens its store without a log.
    pub(crate) fn open_alone(self) -> Result<(), super::StoreError> {
        let Self {
            engine,
            settings,
            authority,
            directory: _directory,
            ..
        } = self;
        drop(engine);
        super::store::Store::open(&settings.store, &authority.id(), None).map(drop)
    }

    fn begin(
        directory: tempfile::TempDir,
        settings: AuthoritySettings,
        log: Option<(&SharedLog, &str, bool)>,
    ) -> Self {
        let mut rig = Self::opened(directory, settings, log);
        rig.engine.handle_timeout(rig.now);
        rig.settle();
        rig
    }

    /// One that has done nothing yet.
    fn opened(
        directory: tempfile::TempDir,
        settings: AuthoritySettings,
        log: Option<(&SharedLog, &str, bool)>,
    ) -> Self {
        let authority = Node::seeded(1);
        let now = Now {
            instant: Instant::START,
            wall: at(BEGINNING),
        };
        let replication = log.map(|(log, name, founds)| log.settings(name, founds));
        let permit = Box::new(OwnRules);
        let engine = open(now, &settings, &authority, permit, None, replication);
        Self {
            engine,
            authority,
            settings,
            now,
            lists: Vec::new(),
            signs: true,
            held: None,
            broken: None,
            directory,
            log: log.map(|(log, name, _)| (log.clone(), name.to_owned())),
        }
    }

    /// Ends the authority and starts it again.
    pub(crate) fn restart(self) -> Self {
        self.restart_with(Box::new(OwnRules), |_| ())
    }

    /// Starts it again with a policy that forbids a wish.
    pub(crate) fn restart_forbidding(self, what: &'static str) -> Self {
        self.restart_with(Box::new(Forbids(what)), |_| ())
    }

    pub(crate) fn restart_with(
        self,
        permit: Box<dyn Permit>,
        change: impl FnOnce(&mut AuthoritySettings),
    ) -> Self {
        let Self {
            engine,
            authority,
            mut settings,
            now,
            signs,
            held,
            directory,
            log,
            ..
        } = self;
        drop(engine);
        change(&mut settings);
        let replication = log.as_ref().map(|(log, name)| log.settings(name, false));
        let mut rig = Self {
            engine: open(now, &settings, &authority, permit, held.as_ref(), replication),
            authority,
            settings,
            now,
            lists: Vec::new(),
            signs,
            held,
            broken: None,
            directory,
            log,
        };
        rig.engine.handle_timeout(now);
        rig.settle();
        rig
    }

    /// Does what the engine wants of its node.
    pub(crate) fn settle(&mut self) {
        while let Some(output) = self.engine.poll_output() {
            match output {
                AuthorityOutput::Sign(request) if self.signs => {
                    let signature = self.authority.sign(&request.message);
                    self.engine.handle_signature(self.now, request.id, Ok(signature));
                }
                AuthorityOutput::Sign(_) => {}
                AuthorityOutput::StatusList { list, .. } => self.lists.push(list),
                AuthorityOutput::Broken(message) => self.broken = Some(message),
            }
        }
    }

    /// Lets time pass, on both clocks.
    pub(crate) fn wait(&mut self, secs: u64) {
        self.now.instant = self.now.instant + Duration::from_secs(secs);
        self.now.wall.unix_millis += secs * 1000;
        self.engine.handle_timeout(self.now);
        self.settle();
    }

    /// Puts one request.
    pub(crate) fn ask(&mut self, from: Origin, kind: RequestKind) -> AuthorityAnswer {
        let mut answers = self.engine.handle_requests(self.now, vec![(from, kind)]);
        self.settle();
        assert_eq!(answers.len(), 1, "one request has one answer");
        answers.remove(0)
    }

    pub(crate) fn enrol(&mut self, request: Vec<u8>) -> AuthorityAnswer {
        // A node that enrols has no rights, and its channel is that of a stranger.
        self.ask(
            Origin::Channel {
                peer: Identifier::from_bytes([0xee; 32]),
                rights: NOTHING,
            },
            RequestKind::Enrol(request),
        )
    }

    pub(crate) fn renew(&mut self, node: &Node) -> AuthorityAnswer {
        self.ask(node.origin(NOTHING), RequestKind::Renew)
    }

    pub(crate) fn manage_from(&mut self, from: Origin, request: ManageRequest) -> ManageAnswer {
        let answer = self.ask(from, RequestKind::Manage(Box::new(request)));
        let AuthorityAnswer::Managed(answer) = answer else {
            panic!("{answer:?}")
        };
        *answer
    }

    pub(crate) fn manage(&mut self, request: ManageRequest) -> ManageAnswer {
        self.manage_from(LOCAL, request)
    }

    /// Makes a ticket.
    pub(crate) fn ticket(&mut self, change: impl FnOnce(&mut TicketOrder)) -> Ticket {
        let answer = self.manage(ManageRequest::TicketIssue(order(change)));
        read_ticket(&issued(answer))
    }

    /// Makes a member with a ticket of its own.
    pub(crate) fn member(&mut self, change: impl FnOnce(&mut TicketOrder)) -> Node {
        let ticket = self.ticket(change);
        let mut node = Node::new();
        let request = node.request(&ticket, "");
        assert!(matches!(self.enrol(request), AuthorityAnswer::Issued(_)));
        node
    }

    pub(crate) fn add(&mut self, node: &Node, name: &str) -> ManageAnswer {
        self.manage(ManageRequest::MemberAdd(MemberOrder {
            identifier: node.id().to_string(),
            name: name.to_owned(),
            grant: GrantOrder::default(),
        }))
    }

    pub(crate) fn revoke(&mut self, member: &str) -> ManageAnswer {
        self.manage(ManageRequest::MemberRevoke {
            member: member.to_owned(),
            reason: "lost".to_owned(),
        })
    }

    /// Reads the newest status list that the node was told.
    pub(crate) fn list(&self) -> StatusList {
        let bytes = self.lists.last().expect("a list was told");
        let presented = Presentation::decode(StatementKind::StatusList, bytes).expect("the list is one");
        let (_, statement) = presented
            .verify_alone(self.authority.id())
            .expect("the authority has signed it");
        StatusList::decode(&statement).expect("the list is one")
    }

    /// Reads and verifies a credential.
    pub(crate) fn credential(&self, answer: &AuthorityAnswer) -> Credential {
        let AuthorityAnswer::Issued(presentation) = answer else {
            panic!("no credential: {answer:?}");
        };
        credential(presentation, self.authority.id())
    }

    /// Returns the last entries of the log as `action outcome: reason`.
    pub(crate) fn log(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        let mut from = 1;
        loop {
            let page = self.log_page(from);
            for entry in &page.entries {
                let bytes = data_encoding::BASE64
                    .decode(entry.as_bytes())
                    .expect("entries are Base64");
                let entry = super::log::Entry::decode(&bytes).expect("the entry is one");
                let decision = entry.decision;
                lines.push(format!(
                    "{} {}: {}",
                    decision.action.name(),
                    decision.outcome.name(),
                    decision.reason
                ));
            }
            match page.next {
                Some(next) => from = next,
                None => return lines,
            }
        }
    }

    pub(crate) fn log_page(&mut self, from: u64) -> LogPage {
        let answer = self.manage(ManageRequest::Log { from });
        let ManageAnswer::Log(page) = answer else {
            panic!("{answer:?}")
        };
        page
    }
}

impl Rig {
    /// Checks that the whole log chains up to its head.
    pub(crate) fn verify_log(&mut self) {
        self.engine
            .verify_log()
            .expect("the store can be read")
            .expect("the log is intact");
    }
}

/// A copy of a store.
pub(crate) struct Copied {
    directory: tempfile::TempDir,
    settings: AuthoritySettings,
}

impl Copied {
    /// Starts an authority on it that follows a log.
    pub(crate) fn follow(self, log: &SharedLog, name: &str, founds: bool) -> Rig {
        Rig::begin(self.directory, self.settings, Some((log, name, founds)))
    }
}

fn open(
    now: Now,
    settings: &AuthoritySettings,
    authority: &Node,
    permit: Box<dyn Permit>,
    held: Option<&StatusList>,
    replication: Option<ReplicationSettings>,
) -> Engine {
    Engine::open(
        now,
        settings.clone(),
        authority.history.clone(),
        permit,
        Box::new(SystemEntropy),
        held,
        replication,
    )
    .expect("the store opens")
}

/// Plain settings.
pub(crate) fn settings(store: &Path) -> AuthoritySettings {
    AuthoritySettings {
        store: store.to_owned(),
        credential_valid: Duration::from_secs(3 * 86_400),
        status_valid: Duration::from_secs(86_400),
        ways: Vec::new(),
        members: BTreeMap::new(),
        limits: AuthorityLimits::default(),
    }
}

/// A synchronised clock.
pub(crate) const fn at(unix_secs: u64) -> WallTime {
    WallTime {
        unix_millis: unix_secs * 1000,
        quality: ClockQuality::Synchronised,
    }
}

/// A plain order for a ticket, changed.
pub(crate) fn order(change: impl FnOnce(&mut TicketOrder)) -> TicketOrder {
    let mut order = TicketOrder {
        name: None,
        uses: 1,
        expires_secs: 86_400,
        grant: GrantOrder::default(),
    };
    change(&mut order);
    order
}

pub(crate) fn issued(answer: ManageAnswer) -> IssuedTicket {
    let ManageAnswer::Ticket(ticket) = answer else {
        panic!("no ticket: {answer:?}")
    };
    ticket
}

pub(crate) fn read_ticket(issued: &IssuedTicket) -> Ticket {
    issued.ticket.as_str().parse().expect("the ticket is one")
}

/// Returns why an operator's request was refused.
pub(crate) fn refused(answer: ManageAnswer) -> ManageError {
    let ManageAnswer::Error(error) = answer else {
        panic!("not refused: {answer:?}")
    };
    error
}

/// Reads and verifies a presentation.
pub(crate) fn credential(presentation: &[u8], authority: Identifier) -> Credential {
    let presented =
        Presentation::decode(StatementKind::Credential, presentation).expect("the presentation is one");
    let (_, statement) = presented
        .verify_alone(authority)
        .expect("the authority has signed it");
    Credential::decode(&statement).expect("the credential is one")
}
