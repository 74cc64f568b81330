//! What peers may do here: the policy, asked with what the file and credentials say about them.

use std::{
    cell::OnceCell,
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::Read as _,
    path::Path,
    sync::{Arc, PoisonError},
};

use fieldgate_config::settings::Settings;
use fieldgate_policy::{
    Action, Context, KeyStorage, LinkKind, Policy, Principal, Request, Resource, Revocation, SIZE_MAX,
    Service, StreamFacts, TimeQuality,
};
use fieldgate_proto::{
    command::Permission,
    identity::Identifier,
    node::{self, Access, ChannelFacts, CommandAccess, PortalAccess, Verdict},
    relay::{MemberRights, NamePattern},
    time::{ClockQuality, WallTime},
    trust::{Credential, Freshness, Standing},
};

use super::{StartError, governing::SharedPolicy};

/// A stream that a node wants to an outlet, or has.
#[derive(Clone, Debug)]
pub(crate) struct PortalWish {
    /// Name of the outlet.
    pub(crate) outlet: String,
    /// What comes out of it: `tcp`, `unix`.
    pub(crate) kind: &'static str,
    /// For whom it is, and whereto; without the time.
    pub(crate) facts: StreamFacts,
}

/// Decides with a policy and the peers that the file names.
pub(crate) struct Doorkeeper {
    policy: SharedPolicy,
    /// Members of this relay that the file names.
    members: BTreeMap<Identifier, Listed>,
    /// Gateways of this collector that the file names.
    gateways: BTreeMap<Identifier, String>,
    /// Collectors of this gateway's uplinks, and whether the file lets them command its devices.
    collectors: BTreeMap<Identifier, (String, bool)>,
    /// Names of the devices of this gateway; `None` where clients without credentials come by whatever name they like.
    devices: Option<BTreeSet<String>>,
    /// Outlets of this node, and whose inlets the file lets lead there.
    outlets: BTreeMap<String, BTreeSet<Identifier>>,
    /// The name of this node.
    own_name: String,
    /// Names of this relay that anyone may reach in order to enrol.
    open: Vec<NamePattern>,
    /// Whom this node reaches itself, and for which of their services.
    own_peers: OnceCell<Vec<(node::Service, Identifier)>>,
}

/// A member that the file names.
struct Listed {
    name: String,
    rights: MemberRights,
}

/// Reads the policy that the file names, or takes the built-in one.
///
/// # Errors
/// [`StartError`] with everything that is wrong with it.
pub(crate) fn policy(settings: &Settings) -> Result<Policy, StartError> {
    let Some(path) = settings.trust.as_ref().and_then(|trust| trust.policy.as_ref()) else {
        return Ok(Policy::built_in());
    };
    let text = read_policy(path)?;
    let checked = fieldgate_policy::check(&path.display().to_string(), &text);
    if checked.policy.is_some() {
        for problem in checked.problems.iter() {
            let (line, column) = problem.line_and_column().unwrap_or_default();
            tracing::warn!(
                policy = %path.display(),
                line,
                column,
                problem = problem.message(),
                hint = problem.hint(),
                "the policy is in use, and perhaps not as it was meant"
            );
        }
    }
    checked.policy.ok_or_else(|| {
        StartError::new(format!(
            "policy {}:\n{}",
            path.display(),
            checked
                .problems
                .render_text(fieldgate_policy::Colour::None, WIDTH)
        ))
        .hint("`fieldgate policy check FILE` says the same")
    })
}

/// Reads the text of a policy, which is no longer than one may be.
fn read_policy(path: &Path) -> Result<String, StartError> {
    let mut text = String::new();
    let limit = SIZE_MAX as u64;
    File::open(path)
        .and_then(|file| file.take(limit + 1).read_to_string(&mut text))
        .map_err(|error| StartError::file(path, &error))?;
    if text.len() > SIZE_MAX {
        let error = format!("policy {} has more than {SIZE_MAX} bytes", path.display());
        return Err(StartError::new(error).hint("name groups or attributes instead of single nodes"));
    }
    Ok(text)
}

/// Columns for what is wrong with a policy.
const WIDTH: usize = 100;

/// How the policy was asked, and what it said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    Allowed,
    /// It would be with a live proof.
    WithProof,
    Denied,
}

impl Doorkeeper {
    /// Takes the peers' names from the file.
    pub(crate) fn new(policy: SharedPolicy, settings: &Settings) -> Self {
        let members = settings
            .relay
            .iter()
            .flat_map(|relay| &relay.members)
            .map(|member| {
                let rights = MemberRights {
                    names: member.hold.clone(),
                    reach: member.reach.clone(),
                };
                let name = member.name.clone();
                (member.identifier, Listed { name, rights })
            });
        // Other relays of the cluster: what they forward they have judged themselves.
        let cluster = settings.relay.iter().filter_map(|relay| relay.cluster.as_ref());
        let relays = cluster.flat_map(|cluster| &cluster.relays).map(|relay| {
            let rights = MemberRights {
                names: Vec::new(),
                reach: vec![NamePattern::Prefix(String::new())],
            };
            let name = relay.address.to_string();
            (relay.identifier, Listed { name, rights })
        });
        let gateways = settings
            .collector
            .iter()
            .flat_map(|collector| &collector.gateways)
            .map(|gateway| (gateway.identifier, gateway.name.clone()));
        let open = settings.relay.iter().flat_map(|relay| &relay.open);
        Self {
            policy,
            members: relays.chain(members).collect(),
            gateways: gateways.collect(),
            collectors: settings
                .uplinks
                .iter()
                .map(|uplink| (uplink.collector, (uplink.name.clone(), uplink.commands)))
                .collect(),
            devices: match &settings.mqtt {
                Some(mqtt) if mqtt.anonymous => None,
                mqtt => {
                    let devices = mqtt.iter().flat_map(|mqtt| &mqtt.devices);
                    Some(devices.map(|device| device.name.clone()).collect())
                }
            },
            outlets: settings
                .portal
                .iter()
                .flat_map(|portal| &portal.outlets)
                .map(|outlet| (outlet.name.clone(), outlet.allow.iter().copied().collect()))
                .collect(),
            own_name: settings.node.name.clone(),
            open: open.map(|name| NamePattern::Exact(name.clone())).collect(),
            own_peers: OnceCell::new(),
        }
    }

    /// Returns of which of those that this node reaches itself the policy demands a live proof, whatever else is true of them: they
    /// are asked before they are used, when not all of it is known yet.
    pub(crate) fn proof_demands(&self, wall: WallTime) -> Vec<(node::Service, Identifier)> {
        let peers = self.own_peers.get().into_iter().flatten().copied();
        peers
            .filter(|(service, peer)| self.demands_proof(wall, *service, *peer))
            .collect()
    }

    /// Takes note of whom this node reaches itself. Only the first call counts.
    pub(crate) fn set_own_peers(&self, peers: Vec<(node::Service, Identifier)>) {
        // The node does not change whom it reaches while it runs.
        drop(self.own_peers.set(peers));
    }

    fn demands_proof(&self, wall: WallTime, service: node::Service, peer: Identifier) -> bool {
        let resource = match service {
            node::Service::Registrar | node::Service::Link => Service::Registrar,
            node::Service::Uplink => Service::Uplink,
            node::Service::Authority => Service::Authority,
            node::Service::Portal => Service::Portal,
        };
        let both = [false, true];
        let variants = both
            .into_iter()
            .flat_map(|member| both.map(|post_quantum| (member, post_quantum)));
        variants.into_iter().any(|(member, post_quantum)| {
            let mut principal = Principal::new(peer);
            // This node's file names whom it reaches.
            principal.named = true;
            principal.member = member;
            let facts = ChannelFacts {
                post_quantum,
                direct: service == node::Service::Registrar,
                live_proof: false,
            };
            let context = facts_context(wall, facts, Freshness::Fresh { until: u64::MAX }, true);
            self.ask(&principal, Action::Connect, Resource::Service(resource), context) == Said::WithProof
        })
    }

    /// Decides by another policy from now on.
    pub(crate) fn set_policy(&self, policy: Policy) {
        *self.policy.write().unwrap_or_else(PoisonError::into_inner) = policy;
    }

    fn policy(&self) -> Policy {
        self.policy.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Decides what the peer of a channel may do.
    pub(crate) fn decide(&self, wall: WallTime, access: &Access) -> Verdict {
        match access.service {
            // Who may be a member may have its link in a channel, too.
            node::Service::Registrar | node::Service::Link => self.registrar(wall, access),
            node::Service::Uplink => self.uplink(wall, access),
            node::Service::Authority => self.authority(wall, access),
            node::Service::Portal => self.portal(wall, access),
        }
    }

    /// Decides whether a collector may command a device. Its live proof has to be there already, if the policy wants one.
    pub(crate) fn decide_command(&self, wall: WallTime, access: &CommandAccess) -> Permission {
        let devices = self.devices.as_ref();
        if devices.is_some_and(|devices| !devices.contains(&*access.device)) {
            return Permission::UnknownDevice;
        }
        let named = self.collectors.get(&access.collector);
        let name = named.map(|(name, _)| name.as_str());
        let principal = principal_of(access.collector, access.credential.as_ref(), name);
        let granted = named.is_some_and(|(_, commands)| *commands);
        let context = facts_context(wall, access.facts, access.freshness, granted);
        let device = Resource::Device {
            name: (*access.device).to_owned(),
            gateway: self.own_name.clone(),
        };
        match self.ask(&principal, Action::Command, device, context) {
            Said::Allowed => Permission::Permitted,
            Said::WithProof | Said::Denied => Permission::Refused,
        }
    }

    /// Decides whether a node may have a stream lead to an outlet. Its live proof has to be there already, if the policy wants one.
    pub(crate) fn decide_portal(&self, wall: WallTime, access: &PortalAccess, wish: &PortalWish) -> bool {
        let is_named = self
            .outlets
            .get(&wish.outlet)
            .is_some_and(|allow| allow.contains(&access.peer));
        let principal = inlet_principal(access.peer, access.credential.as_ref(), is_named);
        let mut context = facts_context(wall, access.facts, access.freshness, is_named);
        context.stream = Some(wish.facts.clone().at(wall.unix_millis));
        let portal = Resource::Portal {
            name: wish.outlet.clone(),
            kind: wish.kind.to_owned(),
        };
        self.ask(&principal, Action::OpenPortal, portal, context) == Said::Allowed
    }

    fn registrar(&self, wall: WallTime, access: &Access) -> Verdict {
        let listed = self.members.get(&access.peer);
        let principal = principal(access, listed.map(|listed| listed.name.as_str()));
        let ask = |action, resource, granted| {
            self.ask(&principal, action, resource, context(wall, access, granted))
        };
        let granted = listed.is_some() || principal.member;
        match ask(Action::Connect, Resource::Service(Service::Registrar), granted) {
            Said::Allowed => {}
            Said::WithProof => return Verdict::Prove,
            Said::Denied => return self.guest(wall, access, &principal),
        }
        let credential = access
            .credential
            .as_ref()
            .filter(|_| principal.member)
            .map(|(credential, _)| credential);
        let mut rights = MemberRights::default();
        let mut wants_proof = false;
        let mut collect = |action, patterns: Vec<&NamePattern>, into: &mut Vec<NamePattern>| {
            for pattern in patterns {
                match ask(action, Resource::RelayName(pattern.to_string()), true) {
                    Said::Allowed if !into.contains(pattern) => into.push(pattern.clone()),
                    Said::WithProof => wants_proof = true,
                    Said::Allowed | Said::Denied => {}
                }
            }
        };
        let hold = listed
            .map(|listed| &listed.rights.names)
            .into_iter()
            .chain(credential.map(|credential| &credential.hold));
        collect(Action::RegisterRelay, hold.flatten().collect(), &mut rights.names);
        let reach = listed
            .map(|listed| &listed.rights.reach)
            .into_iter()
            .chain(credential.map(|credential| &credential.reach));
        collect(Action::Reach, reach.flatten().collect(), &mut rights.reach);
        if wants_proof && !access.facts.live_proof {
            return Verdict::Prove;
        }
        rights.reach.extend(self.open.iter().cloned());
        Verdict::Permit { rights, guest: false }
    }

    /// Lets somebody in who is nobody yet, to the names that are open; there is nothing else to see.
    fn guest(&self, wall: WallTime, access: &Access, principal: &Principal) -> Verdict {
        let enrols = self.ask(
            principal,
            Action::Enroll,
            Resource::Authority,
            context(wall, access, false),
        );
        if self.open.is_empty() || enrols != Said::Allowed {
            return Verdict::Refuse;
        }
        Verdict::Permit {
            rights: MemberRights {
                names: Vec::new(),
                reach: self.open.clone(),
            },
            guest: true,
        }
    }

    fn uplink(&self, wall: WallTime, access: &Access) -> Verdict {
        let name = self.gateways.get(&access.peer);
        let principal = principal(access, name.map(String::as_str));
        let granted = name.is_some() || principal.member;
        for action in [Action::Connect, Action::Publish] {
            let resource = Resource::Service(Service::Uplink);
            match self.ask(&principal, action, resource, context(wall, access, granted)) {
                Said::Allowed => {}
                Said::WithProof => return Verdict::Prove,
                Said::Denied => return Verdict::Refuse,
            }
        }
        served()
    }

    /// Members, and nodes that an outlet names, may have a channel for streams; each stream is decided on by itself.
    fn portal(&self, wall: WallTime, access: &Access) -> Verdict {
        let is_named = self.outlets.values().any(|allow| allow.contains(&access.peer));
        let principal = inlet_principal(access.peer, access.credential.as_ref(), is_named);
        let resource = Resource::Service(Service::Portal);
        let context = context(wall, access, is_named || principal.member);
        match self.ask(&principal, Action::Connect, resource, context) {
            Said::Allowed => served(),
            Said::WithProof => Verdict::Prove,
            Said::Denied => Verdict::Refuse,
        }
    }

    /// Whoever may enrol may ask the authority; what it answers is its own decision.
    fn authority(&self, wall: WallTime, access: &Access) -> Verdict {
        let principal = principal(access, None);
        let granted = principal.member;
        let connect = Resource::Service(Service::Authority);
        let asked = [
            self.ask(
                &principal,
                Action::Connect,
                connect,
                context(wall, access, granted),
            ),
            self.ask(
                &principal,
                Action::Enroll,
                Resource::Authority,
                context(wall, access, granted),
            ),
        ];
        if asked.contains(&Said::Allowed) {
            served()
        } else if asked.contains(&Said::WithProof) {
            Verdict::Prove
        } else {
            Verdict::Refuse
        }
    }

    fn ask(&self, principal: &Principal, action: Action, resource: Resource, context: Context) -> Said {
        let Ok(request) = Request::new(principal.clone(), action, resource, context) else {
            return Said::Denied;
        };
        let policy = self.policy();
        if policy.decide(&request).allowed {
            Said::Allowed
        } else if !request.context().live_proof && policy.demands_live_proof(&request) {
            Said::WithProof
        } else {
            Said::Denied
        }
    }
}

/// A service that knows no rights.
fn served() -> Verdict {
    Verdict::Permit {
        rights: MemberRights::default(),
        guest: false,
    }
}

fn principal(access: &Access, name: Option<&str>) -> Principal {
    principal_of(access.peer, access.credential.as_ref(), name)
}

fn principal_of(
    peer: Identifier,
    credential: Option<&(Arc<Credential>, Standing)>,
    name: Option<&str>,
) -> Principal {
    let mut principal = Principal::new(peer);
    principal.key = KeyStorage::Unknown;
    if let Some((credential, _)) = credential.filter(|(_, standing)| standing.counts()) {
        principal.member = true;
        principal.name.clone_from(&credential.name);
        principal.enroller = credential.rights.enroller;
        principal.administrator = credential.rights.administrator;
        principal.attributes.clone_from(&credential.attributes);
    }
    if let Some(name) = name {
        principal.named = true;
        name.clone_into(&mut principal.name);
    }
    principal
}

/// The principal of a node whose inlets lead here. The file names it by its identifier alone.
fn inlet_principal(
    peer: Identifier,
    credential: Option<&(Arc<Credential>, Standing)>,
    is_named: bool,
) -> Principal {
    let mut principal = principal_of(peer, credential, None);
    principal.named = is_named;
    principal
}

fn context(wall: WallTime, access: &Access, granted: bool) -> Context {
    facts_context(wall, access.facts, access.freshness, granted)
}

fn facts_context(wall: WallTime, facts: ChannelFacts, freshness: Freshness, granted: bool) -> Context {
    Context {
        time_quality: match wall.quality {
            ClockQuality::Synchronised => TimeQuality::Synchronised,
            ClockQuality::Authority => TimeQuality::Authority,
            ClockQuality::Floor => TimeQuality::Floor,
            ClockQuality::Unknown => TimeQuality::Unknown,
        },
        link: Some(LinkKind::Tcp),
        hops: facts.direct.then_some(1),
        post_quantum: facts.post_quantum,
        live_proof: facts.live_proof,
        granted,
        revocation: match freshness {
            Freshness::Fresh { .. } => Revocation::Fresh,
            Freshness::Stale { .. } | Freshness::Lapsed { .. } => Revocation::Stale,
            Freshness::NoList => Revocation::None,
        },
        ticket: None,
        stream: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_is_read_up_to_its_bound() {
        let dir = tempfile::tempdir().expect("there is room for a directory");
        let path = dir.path().join("policy.cedar");
        let text = " ".repeat(SIZE_MAX);
        std::fs::write(&path, &text).expect("the directory is ours");
        assert_eq!(read_policy(&path).ok().map(|text| text.len()), Some(SIZE_MAX));
        std::fs::write(&path, text + " ").expect("the directory is ours");
        let (message, hint) = read_policy(&path).expect_err("it is too long").into_parts();
        assert!(message.contains("more than 1048576 bytes"), "{message}");
        assert!(hint.is_some());
        // What never ends is not read to its end.
        let endless = read_policy(Path::new("/dev/zero")).expect_err("it is too long");
        assert!(endless.into_parts().0.contains("more than"));
    }
}
