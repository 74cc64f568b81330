//! A network with an authority: gateway, relay and collector are its members.

use std::collections::{BTreeMap, BTreeSet};

use super::{super::*, net::*};
use crate::{
    channel::PqPolicy,
    delivery::Shares,
    identity::{ChangeHistory, Identifier, tests::Seeded},
    relay::{MemberRights, NamePattern, RelaySettings},
    trust::{
        Credential, EnrolRequest, Presentation, Rights, Saved, SignedTime, StatementKey, StatementKeyDraft,
        StatementKind, StatusList, Ticket, TicketKey, TrustSettings,
    },
};

/// The host that is the authority.
pub(super) const AUTHORITY: usize = 3;

/// An authority without a store.
pub(super) struct TestAuthority {
    history: ChangeHistory,
    key: StatementKey,
    /// Who gets a credential, and what stands in it.
    pub(super) members: BTreeMap<Identifier, MemberPlan>,
    pub(super) tickets: BTreeMap<[u8; 16], (TicketKey, MemberPlan)>,
    pub(super) revoked: BTreeSet<Identifier>,
    /// How long its credentials and its lists hold, in seconds.
    pub(super) credential_secs: u64,
    pub(super) list_secs: u64,
    serial: u64,
    list_number: u64,
    /// Whether it answers nothing, or refuses everything.
    pub(super) mood: Mood,
    /// What it was asked.
    pub(super) requests: Vec<AuthorityRequest>,
}

/// What an authority does with requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mood {
    Answers,
    Denies,
    IsSilent,
}

/// What a credential says.
#[derive(Clone, Debug, Default)]
pub(super) struct MemberPlan {
    pub(super) name: String,
    pub(super) hold: Vec<NamePattern>,
    pub(super) reach: Vec<NamePattern>,
}

impl MemberPlan {
    pub(super) fn new(name: &str, hold: &[&str], reach: &[&str]) -> Self {
        Self {
            name: name.to_owned(),
            hold: patterns(hold),
            reach: patterns(reach),
        }
    }
}

fn patterns(names: &[&str]) -> Vec<NamePattern> {
    names.iter().map(|name| name.parse().unwrap()).collect()
}

impl TestAuthority {
    pub(super) fn new(signer: &Signer, entropy: &mut dyn Entropy) -> Self {
        let draft = StatementKeyDraft::new(entropy, &signer.history, EPOCH_SECS, 86_400, 2).unwrap();
        let signature = sign(&signer.key, &draft.message());
        Self {
            history: signer.history.clone(),
            key: draft.finish(signature, &signer.history).unwrap(),
            members: BTreeMap::new(),
            tickets: BTreeMap::new(),
            revoked: BTreeSet::new(),
            credential_secs: 3_600,
            list_secs: 3_600,
            serial: 0,
            list_number: 0,
            mood: Mood::Answers,
            requests: Vec::new(),
        }
    }

    fn present(&self, kind: StatementKind, signed: &[u8]) -> Vec<u8> {
        Presentation::encode(kind, &self.history, signed).unwrap()
    }

    /// Issues a credential; `None` for who is no member.
    pub(super) fn issue(&mut self, subject: Identifier, now_secs: u64) -> Option<Vec<u8>> {
        let plan = self.members.get(&subject)?;
        self.serial += 1;
        let credential = Credential {
            subject,
            serial: self.serial,
            rights: Rights::default(),
            name: plan.name.clone(),
            attributes: BTreeMap::new(),
            hold: plan.hold.clone(),
            reach: plan.reach.clone(),
            issued_at: now_secs,
            not_after: now_secs + self.credential_secs,
        };
        let signed = credential.sign(&self.key).unwrap();
        Some(self.present(StatementKind::Credential, &signed))
    }

    /// Makes the next list of the revoked.
    pub(super) fn list(&mut self, now_secs: u64) -> Vec<u8> {
        self.list_number += 1;
        self.list_numbered(self.list_number, now_secs)
    }

    /// Makes a list with any number.
    pub(super) fn list_numbered(&self, number: u64, now_secs: u64) -> Vec<u8> {
        let not_after = now_secs + self.list_secs;
        let list = StatusList::new(number, now_secs, not_after, self.revoked.iter().copied()).unwrap();
        self.present(StatementKind::StatusList, &list.sign(&self.key).unwrap())
    }

    /// Signs the time.
    pub(super) fn time(&self, nonce: [u8; 16], unix_millis: u64) -> Vec<u8> {
        let signed = SignedTime { nonce, unix_millis }.sign(&self.key).unwrap();
        self.present(StatementKind::Time, &signed)
    }

    pub(super) fn answer(&mut self, now: Now, request: &AuthorityRequest) -> Option<AuthorityAnswer> {
        self.requests.push(request.clone());
        match self.mood {
            Mood::IsSilent => return None,
            Mood::Denies => return Some(AuthorityAnswer::Denied),
            Mood::Answers => {}
        }
        let secs = now.wall.unix_secs();
        let issued =
            |issued: Option<Vec<u8>>| issued.map_or(AuthorityAnswer::Denied, AuthorityAnswer::Issued);
        Some(match &request.kind {
            AuthorityRequestKind::Enrol(bytes) => {
                let Ok(asked) = EnrolRequest::decode(bytes) else {
                    return Some(AuthorityAnswer::Denied);
                };
                let (key, plan) = self.tickets.get(&asked.ticket)?;
                let Ok(history) = asked.verify(key) else {
                    return Some(AuthorityAnswer::Denied);
                };
                self.members.insert(history.identifier(), plan.clone());
                issued(self.issue(history.identifier(), secs))
            }
            AuthorityRequestKind::Renew if self.revoked.contains(&request.peer) => AuthorityAnswer::Denied,
            AuthorityRequestKind::Renew => issued(self.issue(request.peer, secs)),
            AuthorityRequestKind::Manage(text) => AuthorityAnswer::Managed(format!("did {text}")),
            AuthorityRequestKind::Time(nonce) => {
                AuthorityAnswer::Time(self.time(*nonce, now.wall.unix_millis))
            }
        })
    }

    /// Counts what it was asked.
    pub(super) fn count(&self, is_it: impl Fn(&AuthorityRequestKind) -> bool) -> usize {
        self.requests
            .iter()
            .filter(|request| is_it(&request.kind))
            .count()
    }
}

/// What a fleet is made from; hosts by number.
pub(super) struct Plan {
    pub(super) settings: Vec<NodeSettings>,
    pub(super) identifiers: Vec<Identifier>,
    /// Whom each host trusts, and how; nobody if there is none.
    pub(super) trust: Vec<Option<TrustSettings>>,
    /// Hosts that begin without a credential; the authority needs none.
    pub(super) strangers: BTreeSet<usize>,
    pub(super) credential_secs: u64,
    pub(super) list_secs: u64,
    pub(super) readings: usize,
}

/// Whoever has a credential that counts gets what it says, the authority may hold its name, and a stranger may reach that.
pub(super) fn standard(authority: Identifier) -> Policy {
    Box::new(move |access| {
        let credential = access
            .credential
            .as_ref()
            .filter(|(_, standing)| standing.counts());
        let permit = |hold: &[NamePattern], reach: &[NamePattern], guest| Verdict::Permit {
            rights: MemberRights {
                names: hold.to_vec(),
                reach: reach.to_vec(),
            },
            guest,
        };
        Some(match (access.service, credential) {
            (_, Some((credential, _))) => permit(&credential.hold, &credential.reach, false),
            (Service::Registrar, None) if access.peer == authority => {
                permit(&patterns(&["authority"]), &[], false)
            }
            (Service::Registrar | Service::Authority, None) => permit(&[], &patterns(&["authority"]), true),
            (Service::Uplink | Service::Portal | Service::Link, None) => Verdict::Refuse,
        })
    })
}

/// The same, from nobody that has not given a live proof.
pub(super) fn proving(authority: Identifier) -> Policy {
    let standard = standard(authority);
    Box::new(move |access| {
        if access.facts.live_proof {
            standard(access)
        } else {
            Some(Verdict::Prove)
        }
    })
}

fn plan(identifiers: Vec<Identifier>) -> Plan {
    let to_relay = |names: &[&str]| NeighbourSettings {
        relay: Some(identifiers[RELAY]),
        pq: PqPolicy::Required,
        registrations: names
            .iter()
            .map(|name| RegistrationSettings {
                name: (*name).to_owned(),
            })
            .collect(),
        forwarding: None,
    };
    let mut settings: Vec<NodeSettings> = ["gateway", "relay", "collector", "authority"]
        .map(NodeSettings::new)
        .into();
    for settings in &mut settings {
        settings.access = AccessPolicy::Ask;
    }
    settings[GATEWAY].neighbours = vec![to_relay(&[])];
    settings[GATEWAY].uplinks = vec![UplinkSettings {
        collector: identifiers[COLLECTOR],
        pq: PqPolicy::Required,
        live_proof: false,
        ways: vec![WaySettings::relayed(0, "plant")],
        latency: std::time::Duration::ZERO,
        lanes: lanes(0),
        shares: Shares::default(),
        verifiable: true,
    }];
    settings[RELAY].relay = Some(RelaySettings::default());
    settings[RELAY].neighbours = vec![NeighbourSettings {
        relay: None,
        pq: PqPolicy::Required,
        registrations: Vec::new(),
        forwarding: None,
    }];
    settings[RELAY].authority_ways = vec![WaySettings::direct(0)];
    settings[COLLECTOR].neighbours = vec![to_relay(&["plant"])];
    settings[COLLECTOR].collect = Some(CollectSettings::default());
    settings[AUTHORITY].neighbours = vec![to_relay(&["authority"])];
    settings[AUTHORITY].authority = true;
    for host in [GATEWAY, COLLECTOR] {
        settings[host].authority_ways = vec![WaySettings::relayed(0, "authority")];
    }
    let trust = TrustSettings {
        authority: Some(identifiers[AUTHORITY]),
        grace: std::time::Duration::from_secs(600),
        ..TrustSettings::default()
    };
    Plan {
        settings,
        identifiers,
        trust: vec![Some(trust); 4],
        strangers: BTreeSet::from([AUTHORITY]),
        credential_secs: 3_600,
        list_secs: 7_200,
        readings: 100,
    }
}

/// What a member of the standard fleet is called and may.
fn member(host: usize) -> MemberPlan {
    match host {
        GATEWAY => MemberPlan::new("gateway", &[], &["plant", "authority"]),
        RELAY => MemberPlan::new("relay", &[], &[]),
        _ => MemberPlan::new("collector", &["plant"], &["authority"]),
    }
}

/// A gateway and a collector that dial a relay, an authority that is reached through it and has published list 1.
pub(super) fn fleet(adjust: impl FnOnce(&mut Plan)) -> Net {
    let mut entropy = Seeded::new(9);
    let now = Net::now_of(0);
    let secs = now.wall.unix_secs();
    let signers: Vec<Signer> = (0..4).map(|_| Signer::new()).collect();
    let mut plan = plan(signers.iter().map(Signer::identifier).collect());
    adjust(&mut plan);
    let mut authority = TestAuthority::new(&signers[AUTHORITY], &mut entropy);
    authority.credential_secs = plan.credential_secs;
    authority.list_secs = plan.list_secs;
    let first_list = authority.list(secs);
    let members = (0..signers.len()).filter(|host| !plan.strangers.contains(host));
    authority.members = members
        .map(|host| (plan.identifiers[host], member(host)))
        .collect();
    let mut authority = Some(Box::new(authority));
    let mut hosts = Vec::new();
    for (host, (settings, signer)) in plan.settings.into_iter().zip(signers).enumerate() {
        let local = signer.local(&mut entropy);
        let mut settings = settings;
        let mut journal = Readings::default();
        if host == GATEWAY {
            journal.0 = (0..plan.readings)
                .map(|n| format!("secret reading {n}").into_bytes())
                .collect();
            for uplink in &mut settings.uplinks {
                uplink.lanes = lanes(plan.readings);
            }
        }
        let mut node = Node::new(now, &mut entropy, settings, local);
        let issuer = authority.as_mut().expect("the authority comes last");
        let saved = Saved {
            own: issuer.issue(signer.identifier(), secs),
            ..Saved::default()
        };
        if let Some(settings) = plan.trust[host] {
            node = node.trusting(Trust::new(signer.identifier(), settings, &saved).unwrap());
        }
        let mut host_of = Host::new(node, signer, journal);
        host_of.policy = Some(standard(plan.identifiers[AUTHORITY]));
        host_of.saved = saved;
        if host == AUTHORITY {
            host_of.authority = authority.take();
            host_of
                .node
                .publish_status(now, &first_list, &mut host_of.buffers)
                .unwrap();
        }
        hosts.push(host_of);
    }
    let dials = [
        ((GATEWAY, 0), RELAY),
        ((COLLECTOR, 0), RELAY),
        ((AUTHORITY, 0), RELAY),
        ((RELAY, 0), AUTHORITY),
    ];
    Net::of(now, entropy, hosts, dials.into())
}

impl Net {
    pub(super) fn identifier(&self, host: usize) -> Identifier {
        self.hosts[host].signer.identifier()
    }

    pub(super) fn authority(&mut self) -> &mut TestAuthority {
        self.hosts[AUTHORITY].authority.as_mut().unwrap()
    }

    /// Has the authority publish its next list, and returns it.
    pub(super) fn publish(&mut self) -> Vec<u8> {
        let now = self.now_at(AUTHORITY);
        let list = self.authority().list(now.wall.unix_secs());
        self.give_list(AUTHORITY, &list);
        list
    }

    /// Gives a host a list, as its operator might.
    pub(super) fn give_list(&mut self, host: usize, list: &[u8]) {
        let now = self.now_at(host);
        let host = &mut self.hosts[host];
        host.node.publish_status(now, list, &mut host.buffers).unwrap();
    }

    pub(super) fn revoke(&mut self, host: usize) {
        let subject = self.identifier(host);
        self.authority().revoked.insert(subject);
        self.publish();
    }

    pub(super) fn view(&self, host: usize) -> TrustView {
        self.hosts[host].node.trust_view(self.now_at(host)).unwrap()
    }

    /// Returns the number of the list that each host has.
    pub(super) fn lists(&self) -> Vec<u64> {
        (0..self.hosts.len())
            .map(|host| self.view(host).list_number)
            .collect()
    }

    /// Draws a ticket with which a member may be made, and notes it at the authority.
    pub(super) fn ticket(&mut self, plan: MemberPlan) -> Ticket {
        let authority = self.identifier(AUTHORITY);
        let not_after = self.now.wall.unix_secs() + 3_600;
        let ticket = Ticket::generate(&mut self.entropy, authority, not_after, Vec::new()).unwrap();
        self.authority()
            .tickets
            .insert(*ticket.id(), (ticket.key(), plan));
        ticket
    }

    /// Returns the nonce with which a host asked the authority for the time last.
    pub(super) fn question(&mut self, host: usize) -> Option<[u8; 16]> {
        let peer = self.identifier(host);
        let mut requests = self.authority().requests.iter().rev();
        requests.find_map(|request| {
            let AuthorityRequestKind::Time(nonce) = request.kind else {
                return None;
            };
            (request.peer == peer).then_some(nonce)
        })
    }
}
