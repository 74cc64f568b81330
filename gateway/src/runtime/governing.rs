//! The authority within a node: how it starts, gets signatures, and what becomes of its lists.

use std::{
    collections::BTreeMap,
    rc::Rc,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use fieldgate_config::settings::{Authority, Settings, cluster::AuthorityCluster};
use fieldgate_hsm::Priority;
use fieldgate_io::mailbox::MailSender;
use fieldgate_policy::{Action, Context, Policy, Principal, Request, Resource, TicketRights};
use fieldgate_proto::{
    identity::{ChangeHistory, Identifier},
    relay::NamePattern,
    time::{Instant, Now},
    trust::{ReplicationKey, Rights, StatusList, Way},
};
use tokio::sync::{mpsc, oneshot};

use super::{
    ShardMessage, StartError, TrunkMessage, clock::Clock, desk::Desk, entropy::SystemEntropy,
    signing::SignerHandle,
};
use crate::authority::{
    AuthorityAnswer, AuthorityLimits, AuthorityOutput, AuthoritySettings, Grant, Origin, Permit, RequestKind,
    Wish,
    replication::{ReplicationSettings, nats::NatsLog},
    service::{AuthorityHandle, AuthorityRequest, AuthorityService, ServiceParts},
};

use crate::sinks::open::read_secret;

/// The policy in use; shared with the authority's thread.
pub(crate) type SharedPolicy = Arc<RwLock<Policy>>;

/// An authority that runs, and what it wants of its node.
pub(crate) struct Governing {
    pub(crate) service: AuthorityService,
    outputs: mpsc::Receiver<AuthorityOutput>,
    credential_valid: Duration,
    own: Identifier,
}

impl Governing {
    /// Starts the authority that the file switches on.
    ///
    /// # Errors
    /// [`StartError`] if its store cannot be used.
    pub(crate) fn start(
        settings: &Settings,
        authority: &Authority,
        history: &ChangeHistory,
        policy: SharedPolicy,
        held: Option<StatusList>,
        clock: Clock,
    ) -> Result<Self, StartError> {
        let own = history.identifier();
        let (sender, outputs) = mpsc::channel(OUTPUTS_MAX);
        let started = fieldgate_io::clock::monotonic();
        let replication = authority.cluster.as_ref().map(replication).transpose()?;
        let parts = ServiceParts {
            replication,
            settings: AuthoritySettings {
                store: authority.store.clone(),
                credential_valid: authority.credential_valid,
                status_valid: authority.status_valid,
                ways: ways(authority),
                members: members(settings, authority, own),
                limits: AuthorityLimits::default(),
            },
            history: history.clone(),
            permit: Box::new(PolicyPermit { policy }),
            held,
            entropy: Box::new(SystemEntropy),
            clock: Box::new(move || Now {
                instant: Instant::from_nanos(fieldgate_io::clock::monotonic().saturating_sub(started)),
                wall: clock.wall(),
            }),
            // What does not fit is wanted again: signatures after a pause, lists with the next one.
            deliver: Box::new(move |output| drop(sender.try_send(output))),
        };
        let service = AuthorityService::start(parts)
            .map_err(|error| StartError::new(format!("authority: {error}")).hint(error.hint()))?;
        Ok(Self {
            service,
            outputs,
            credential_valid: authority.credential_valid,
            own,
        })
    }

    /// Gives the authority what it wants for as long as it runs, and the node its own credential.
    pub(crate) fn serve(
        self,
        desk: &Rc<Desk>,
        signer: SignerHandle,
        trunk: MailSender<ShardMessage>,
        broken: mpsc::Sender<String>,
    ) {
        let Self {
            service,
            outputs,
            credential_valid,
            own,
        } = self;
        let handle = service.handle();
        tokio::task::spawn_local(keep_own_credential(
            handle,
            Rc::clone(desk),
            own,
            credential_valid,
        ));
        tokio::task::spawn_local(async move {
            serve_outputs(&service, outputs, &signer, &trunk, &broken).await;
        });
    }
}

async fn serve_outputs(
    service: &AuthorityService,
    mut outputs: mpsc::Receiver<AuthorityOutput>,
    signer: &SignerHandle,
    trunk: &MailSender<ShardMessage>,
    broken: &mpsc::Sender<String>,
) {
    while let Some(output) = outputs.recv().await {
        match output {
            AuthorityOutput::Sign(request) => {
                let (handle, signer) = (service.handle(), signer.clone());
                tokio::task::spawn_local(async move {
                    let signature = signer.sign(Priority::Renewal, request.message).await;
                    handle.handle_signature(request.id, signature.map_err(|error| error.to_string()));
                });
            }
            AuthorityOutput::StatusList { list, issued } => {
                let mut message = ShardMessage::Trunk(TrunkMessage::PublishStatus { list, issued });
                while let Err(fieldgate_io::mailbox::MailError::Full(back)) = trunk.try_send(message) {
                    message = back;
                    tokio::time::sleep(MAILBOX_RETRY).await;
                }
            }
            AuthorityOutput::Broken(why) => {
                // The node ends with the first reason.
                drop(broken.try_send(format!("authority: {why}")));
            }
        }
    }
}

/// Issues the authority's node its own credential, now and at half of each one's life.
async fn keep_own_credential(handle: AuthorityHandle, desk: Rc<Desk>, own: Identifier, valid: Duration) {
    loop {
        let (sender, answer) = oneshot::channel();
        let request = AuthorityRequest {
            from: Origin::Channel {
                peer: own,
                rights: Rights::default(),
            },
            kind: RequestKind::Renew,
            reply: Box::new(move |answer| drop(sender.send(answer))),
        };
        if handle.submit(request).is_err() {
            tracing::debug!("the authority does not take its own node's request");
        }
        let wait = match answer.await {
            Ok(AuthorityAnswer::Issued(presentation)) => {
                desk.tell(TrunkMessage::Credential(presentation)).await;
                valid / 2
            }
            Ok(AuthorityAnswer::Denied) => {
                tracing::error!("the authority gives its own node no credential: see its log");
                OWN_RETRY_DENIED
            }
            Ok(AuthorityAnswer::NotReady | AuthorityAnswer::Time(_) | AuthorityAnswer::Managed(_))
            | Err(_) => OWN_RETRY,
        };
        tokio::time::sleep(wait).await;
    }
}

/// The node's policy, for the authority's own decisions. The operator on the machine itself may do everything.
struct PolicyPermit {
    policy: SharedPolicy,
}

impl Permit for PolicyPermit {
    fn may(&self, from: &Origin, wish: &Wish) -> bool {
        let Origin::Channel { peer, rights } = from else {
            return true;
        };
        let mut principal = Principal::new(*peer);
        principal.member = !matches!(wish, Wish::Enrol);
        principal.enroller = rights.enroller;
        principal.administrator = rights.administrator;
        let mut context = Context::default();
        let (action, resource) = match wish {
            Wish::Enrol => (Action::Enroll, Resource::Authority),
            Wish::Renew => (Action::Renew, Resource::Authority),
            Wish::IssueTicket { grants } | Wish::AddMember { grants } => {
                context.ticket = Some(TicketRights {
                    grants_administrator: grants.administrator,
                    grants_enroller: grants.enroller,
                });
                (Action::IssueTicket, Resource::Authority)
            }
            Wish::RevokeTicket | Wish::RevokeMember => (Action::Revoke, Resource::Authority),
            Wish::Read => (Action::ReadStatus, Resource::Configuration),
        };
        let Ok(request) = Request::new(principal, action, resource, context) else {
            return false;
        };
        let policy = self.policy.read().unwrap_or_else(PoisonError::into_inner).clone();
        policy.decide(&request).allowed
    }
}

/// The ways that go into tickets: through the relays it registers at, and straight.
fn ways(authority: &Authority) -> Vec<Way> {
    let relays = authority.registrations.iter().map(|registration| Way::Relay {
        address: registration.relay.address.to_string(),
        relay: registration.relay.identifier,
        name: registration.name.clone(),
    });
    let direct = authority.public.iter().map(|address| Way::Direct {
        address: address.to_string(),
    });
    direct.chain(relays).take(WAYS_MAX).collect()
}

/// The log that this process writes together with others.
///
/// # Errors
/// [`StartError`] if the shared secret cannot be read or is too short.
fn replication(cluster: &AuthorityCluster) -> Result<ReplicationSettings, StartError> {
    let hint = "put the same random text of at least 32 characters where `key` under [authority.cluster] says, at each process: \
                `openssl rand -hex 32` makes one";
    let failed = |error: String| StartError::new(format!("authority: {error}")).hint(hint);
    let secret = read_secret(&cluster.key).map_err(failed)?;
    let key = ReplicationKey::new(secret.as_bytes()).map_err(|error| failed(error.to_string()))?;
    Ok(ReplicationSettings {
        name: cluster.stream.clone(),
        key,
        founds: cluster.found,
        log: Box::new(NatsLog::new(cluster.clone())),
        entropy: Box::new(SystemEntropy),
    })
}

/// The members of the file, and the authority's own node, which may hold the names it registers.
fn members(settings: &Settings, authority: &Authority, own: Identifier) -> BTreeMap<Identifier, Grant> {
    let mut members: BTreeMap<Identifier, Grant> = authority
        .members
        .iter()
        .map(|member| {
            let grant = Grant {
                name: member.name.clone(),
                rights: Rights {
                    enroller: member.enroller,
                    administrator: member.administrator,
                },
                attributes: member.attributes.clone(),
                hold: member.hold.clone(),
                reach: member.reach.clone(),
            };
            (member.identifier, grant)
        })
        .collect();
    members.entry(own).or_insert_with(|| Grant {
        name: settings.node.name.clone(),
        rights: Rights {
            enroller: false,
            administrator: true,
        },
        attributes: BTreeMap::new(),
        hold: authority
            .registrations
            .iter()
            .map(|registration| NamePattern::Exact(registration.name.clone()))
            .collect(),
        reach: Vec::new(),
    });
    members
}

/// What the authority wants and nobody has looked at.
const OUTPUTS_MAX: usize = 64;
/// Ways in a ticket (PROTOCOL.md §10.3).
const WAYS_MAX: usize = 4;
/// Wait for room in the trunk's mailbox.
const MAILBOX_RETRY: Duration = Duration::from_millis(10);
/// Wait until the authority can sign.
const OWN_RETRY: Duration = Duration::from_millis(200);
/// Wait after a refusal that only an operator can end.
const OWN_RETRY_DENIED: Duration = Duration::from_secs(60);
