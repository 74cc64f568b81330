//! What the trunk must not wait for: decisions, signatures, the authority, files. Done on the control thread.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    rc::Rc,
    sync::Arc,
};

use fieldgate_hsm::Priority;
use fieldgate_io::mailbox::{MailError, MailSender};
use fieldgate_policy::Policy;
use fieldgate_proto::{
    channel::ChannelId,
    command::Permission,
    identity::Identifier,
    node::{
        Access, Asked, AuthorityAnswer, AuthorityRequest, AuthorityRequestKind, CommandAccess, PortalAccess,
        Service, Verdict,
    },
    time::WallTime,
    trust::{SavedPart, StatusList},
};
use tokio::sync::{mpsc, oneshot};

use super::{
    Question, ShardMessage, TrunkMessage,
    belonging::TrustFiles,
    clock::Clock,
    commanding::{
        Job,
        owed::{InboxWord, Origin},
    },
    doorkeeper::{Doorkeeper, PortalWish},
    signing::SignerHandle,
};
use crate::{
    authority::{
        self, Origin as Asker,
        service::{AuthorityHandle, AuthorityRequest as ServiceRequest},
    },
    control::command::{CommandJob, CommandReply},
};

/// What the trunk wants.
pub(crate) enum DeskRequest {
    /// Decide what a peer may do.
    Authorise(Box<Access>),
    /// Decide whether a collector may command a device.
    AuthoriseCommand(Box<CommandAccess>),
    /// Decide whether a node may have a stream lead to an outlet.
    AuthorisePortal {
        /// Comes back with the answer.
        question: u64,
        /// Which one, and for whom.
        wish: Box<PortalWish>,
        /// Whose stream it is.
        access: Box<PortalAccess>,
    },
    /// Have the identity key sign a live proof.
    Sign {
        /// For which channel.
        channel: ChannelId,
        /// What to sign.
        message: Vec<u8>,
    },
    /// Answer as the authority.
    Authority(Box<AuthorityRequest>),
    /// The authority's answer to a question of this node.
    Asked {
        /// The number of the question.
        id: u64,
        /// What became of it.
        asked: Asked,
    },
    /// Keep this over a restart.
    Save {
        /// What it is.
        what: SavedPart,
        /// All of it.
        bytes: Arc<[u8]>,
    },
    /// This node's authority has forgotten a list that it signed.
    Forgotten(Arc<StatusList>),
    /// The authority has signed what time it is.
    Time(WallTime),
}

/// The control thread's side of the trunk.
pub(crate) struct Desk {
    doorkeeper: Doorkeeper,
    trunk: MailSender<ShardMessage>,
    signer: SignerHandle,
    authority: Option<AuthorityHandle>,
    clock: Clock,
    files: TrustFiles,
    /// Questions of this node to its authority that wait for an answer.
    waiting: RefCell<BTreeMap<u64, oneshot::Sender<Asked>>>,
    last_question: Cell<u64>,
}

impl Desk {
    pub(crate) fn new(
        doorkeeper: Doorkeeper,
        trunk: MailSender<ShardMessage>,
        signer: SignerHandle,
        authority: Option<AuthorityHandle>,
        clock: Clock,
        files: TrustFiles,
    ) -> Self {
        Self {
            doorkeeper,
            trunk,
            signer,
            authority,
            clock,
            files,
            waiting: RefCell::default(),
            last_question: Cell::new(0),
        }
    }

    /// Takes note of whom this node reaches itself; returns of whom of them the policy demands a live proof.
    pub(crate) fn set_own_peers(&self, peers: Vec<(Service, Identifier)>) -> Vec<(Service, Identifier)> {
        self.doorkeeper.set_own_peers(peers);
        self.doorkeeper.proof_demands(self.clock.wall())
    }

    /// Takes note of a node that an inlet leads to from now on; returns of whom of those that this node reaches itself the policy
    /// demands a live proof.
    pub(crate) fn add_portal_peer(&self, peer: Identifier) -> Vec<(Service, Identifier)> {
        self.doorkeeper.add_portal_peer(peer);
        self.doorkeeper.proof_demands(self.clock.wall())
    }

    /// Takes note of an outlet and whose inlets the file lets lead there; `None`: it is no more.
    pub(crate) fn set_outlet(&self, name: &str, allow: Option<&[Identifier]>) {
        self.doorkeeper.set_outlet(name, allow);
    }

    /// Serves the trunk until it is gone.
    pub(crate) async fn serve(self: Rc<Self>, mut requests: mpsc::Receiver<DeskRequest>) {
        while let Some(request) = requests.recv().await {
            match request {
                DeskRequest::Authorise(access) => self.authorise(&access).await,
                DeskRequest::AuthoriseCommand(access) => {
                    let permission = self.doorkeeper.decide_command(self.clock.wall(), &access);
                    if permission == Permission::Refused {
                        tracing::debug!(peer = %access.collector, device = &*access.device, "the policy refuses a command");
                    }
                    let question = access.question;
                    self.tell(TrunkMessage::CommandPermission { question, permission })
                        .await;
                }
                DeskRequest::AuthorisePortal {
                    question,
                    wish,
                    access,
                } => {
                    let permitted = self.doorkeeper.decide_portal(self.clock.wall(), &access, &wish);
                    if !permitted {
                        tracing::debug!(peer = %access.peer, outlet = wish.outlet, "the policy refuses a stream");
                    }
                    self.tell(TrunkMessage::PortalPermission { question, permitted })
                        .await;
                }
                DeskRequest::Sign { channel, message } => {
                    tokio::task::spawn_local(Rc::clone(&self).sign(channel, message));
                }
                DeskRequest::Authority(request) => self.ask_own_authority(*request),
                DeskRequest::Asked { id, asked } => {
                    if let Some(waiting) = self.waiting.borrow_mut().remove(&id) {
                        // Who asked may have gone.
                        drop(waiting.send(asked));
                    }
                }
                DeskRequest::Save { what, bytes } => self.save(what, &bytes),
                DeskRequest::Forgotten(list) => {
                    if let Some(authority) = &self.authority {
                        authority.handle_forgotten(list);
                    }
                }
                DeskRequest::Time(wall) => self.clock.learn(wall.unix_millis),
            }
        }
    }

    /// Tells the trunk, and waits for room in its mailbox.
    pub(crate) async fn tell(&self, message: TrunkMessage) {
        let mut message = ShardMessage::Trunk(message);
        while let Err(MailError::Full(back)) = self.trunk.try_send(message) {
            message = back;
            tokio::time::sleep(MAILBOX_RETRY).await;
        }
    }

    async fn authorise(&self, access: &Access) {
        let verdict = self.doorkeeper.decide(self.clock.wall(), access);
        if verdict == Verdict::Refuse {
            tracing::debug!(peer = %access.peer, service = access.service.as_str(), "the policy refuses");
        }
        let attempt = access.attempt;
        self.tell(TrunkMessage::Verdict { attempt, verdict }).await;
    }

    async fn sign(self: Rc<Self>, channel: ChannelId, message: Vec<u8>) {
        let signature = match self.signer.sign(Priority::LiveProof, message).await {
            Ok(signature) => Some(signature),
            Err(error) => {
                tracing::warn!(%error, "no live proof given");
                None
            }
        };
        self.tell(TrunkMessage::Signature { channel, signature }).await;
    }

    /// Hands a question of a channel to this node's authority, which answers by itself.
    fn ask_own_authority(&self, request: AuthorityRequest) {
        let Some(authority) = &self.authority else { return };
        let AuthorityRequest {
            channel,
            peer,
            rights,
            request,
            kind,
        } = request;
        let kind = match kind {
            AuthorityRequestKind::Enrol(signed) => authority::RequestKind::Enrol(signed),
            AuthorityRequestKind::Renew => authority::RequestKind::Renew,
            AuthorityRequestKind::Time(nonce) => authority::RequestKind::Time { nonce },
            AuthorityRequestKind::Manage(json) => {
                match authority::wire::ManageRequest::from_json(json.as_bytes()) {
                    Ok(manage) => authority::RequestKind::Manage(Box::new(manage)),
                    Err(error) => {
                        tracing::debug!(%peer, %error, hint = error.hint(), "request to manage not understood");
                        return;
                    }
                }
            }
        };
        let trunk = self.trunk.clone();
        let answer = move |answer: authority::AuthorityAnswer| {
            let answer = match answer {
                authority::AuthorityAnswer::Issued(presentation) => {
                    AuthorityAnswer::Issued(presentation.to_vec())
                }
                authority::AuthorityAnswer::Denied => AuthorityAnswer::Denied,
                authority::AuthorityAnswer::Time(statement) => AuthorityAnswer::Time(statement),
                authority::AuthorityAnswer::Managed(answer) => match String::from_utf8(answer.to_json()) {
                    Ok(json) => AuthorityAnswer::Managed(json),
                    Err(_) => return,
                },
                // Silence: the asker repeats.
                authority::AuthorityAnswer::NotReady => return,
            };
            let message = TrunkMessage::AuthorityAnswer {
                channel,
                request,
                answer,
            };
            // Called on the authority's thread, which must not wait; who gets no answer repeats.
            drop(trunk.try_send(ShardMessage::Trunk(message)));
        };
        let request = ServiceRequest {
            from: Asker::Channel { peer, rights },
            kind,
            reply: Box::new(answer),
        };
        if authority.submit(request).is_err() {
            tracing::warn!(%peer, "the authority has too much to do; a request was dropped");
        }
    }

    /// Asks this node's authority over the network.
    pub(crate) async fn ask(&self, question: Question) -> Asked {
        let id = self.last_question.get() + 1;
        self.last_question.set(id);
        let (sender, answer) = oneshot::channel();
        self.waiting.borrow_mut().insert(id, sender);
        self.tell(TrunkMessage::Ask { id, question }).await;
        let asked = tokio::time::timeout(ANSWER_TIME_MAX, answer).await;
        self.waiting.borrow_mut().remove(&id);
        asked.ok().and_then(Result::ok).unwrap_or(Asked::Unanswered)
    }

    /// Has the trunk do something about commands; `None` if the node ends before.
    pub(crate) async fn command(&self, job: CommandJob) -> Option<CommandReply> {
        self.command_from(None, job).await
    }

    /// The same for a broker that brings a command.
    pub(crate) async fn command_from(&self, origin: Option<Origin>, job: CommandJob) -> Option<CommandReply> {
        let (reply, answer) = oneshot::channel();
        let job = Job { job, origin, reply };
        self.tell(TrunkMessage::Command(Box::new(job))).await;
        answer.await.ok()
    }

    /// Tells the trunk what a task that talks to a broker has to say.
    pub(crate) async fn tell_inbox(&self, word: InboxWord) {
        self.tell(TrunkMessage::Inbox(word)).await;
    }

    /// Decides by another policy from now on, about those who are here too.
    pub(crate) async fn set_policy(&self, policy: Policy) {
        self.doorkeeper.set_policy(policy);
        let proof_demands = self.doorkeeper.proof_demands(self.clock.wall());
        self.tell(TrunkMessage::PolicyChanged { proof_demands }).await;
    }

    fn save(&self, what: SavedPart, bytes: &[u8]) {
        if let Err(error) = self.files.save(what, bytes) {
            tracing::error!(
                what = what.name(),
                %error,
                "not kept: after a restart the node knows less than it does now"
            );
        }
    }
}

/// Wait for room in the trunk's mailbox.
const MAILBOX_RETRY: std::time::Duration = std::time::Duration::from_millis(10);
/// How long an answer of the authority is waited for; the node itself gives up before.
const ANSWER_TIME_MAX: std::time::Duration = std::time::Duration::from_secs(35);
