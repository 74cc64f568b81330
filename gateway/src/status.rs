//! What a running node tells of itself, for people and for machines.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

pub(crate) use self::mqtt::MqttStatus;
pub(crate) use self::{
    cluster::{ClusterRelayStatus, ClusterStatus},
    commands::{CommandsStatus, GatewayCommands},
    delivery::{GapStatus, JournalStatus, LaneStatus, SourceStatus, UplinkLaneStatus, UplinkStatus},
    direct::{DirectPathStatus, DirectStatus},
    drain::{DrainStatus, LeaverStatus},
    ledger::LedgerStatus,
    paths::{PathStatus, PathsStatus},
    portals::{
        PORTAL_REMOVED, PortalAuditStatus, PortalDatagrams, PortalLine, PortalSession, PortalStatus,
        PortalsStatus,
    },
    relays::RelayStatus,
    sink::SinkStatus,
    tpm::TpmStatus,
    trust::{TokenStatus, TrustStatus},
};
use crate::{authority::AuthorityStatus, runtime::clock::ClockStatus};

mod cluster;
mod commands;
mod delivery;
mod direct;
mod drain;
mod ledger;
mod mqtt;
mod paths;
mod portals;
mod relays;
mod sink;
mod tpm;
mod trust;

/// Everything that `fieldgate status` shows.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct NodeStatus {
    /// Name from the file.
    pub(crate) name: String,
    /// Version of the program.
    pub(crate) version: String,
    /// Seconds since the start.
    pub(crate) uptime_secs: u64,
    /// `healthy` or `degraded`.
    pub(crate) health: Health,
    /// What is wrong, in words; empty when healthy.
    pub(crate) reasons: Vec<String>,
    /// Functions that the file switches on.
    pub(crate) roles: Vec<String>,
    /// The I/O backend.
    pub(crate) io: IoStatus,
    /// Identity and its key.
    pub(crate) identity: IdentityStatus,
    /// The authority that the node belongs to, where its file has `[trust]` or `[authority]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) trust: Option<TrustStatus>,
    /// The authority that this node is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) authority: Option<AuthorityStatus>,
    /// What time it is, and how sure that is.
    #[serde(default)]
    pub(crate) clock: ClockStatus,
    /// One entry per shard.
    pub(crate) shards: Vec<ShardStatus>,
    /// The broker between devices, on a gateway with `[mqtt]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) mqtt: Option<MqttStatus>,
    /// Links, channels, relay.
    pub(crate) network: NetworkStatus,
    /// The journal, on a gateway.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) journal: Option<JournalStatus>,
    /// Uplinks, on a gateway.
    pub(crate) uplinks: Vec<UplinkStatus>,
    /// Readings confirmed by every sink and released to their gateways since the start, on a collector.
    pub(crate) delivered: u64,
    /// Gateways that deliver here, on a collector.
    pub(crate) sources: Vec<SourceStatus>,
    /// Sinks, on a collector.
    pub(crate) sinks: Vec<SinkStatus>,
    /// Commands to devices, on a gateway with devices and on a collector.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) commands: Option<CommandsStatus>,
    /// Inlets and outlets, where the file has some.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) portals: Option<PortalsStatus>,
    /// Relays that share their members with this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cluster: Option<ClusterStatus>,
    /// Proofs of where readings came from, where a collector keeps them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ledger: Option<LedgerStatus>,
}

/// Whether the node does what its file says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Health {
    /// Everything works.
    #[default]
    Healthy,
    /// Something does not, and `reasons` says what.
    Degraded,
}

/// The I/O backend.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct IoStatus {
    /// `uring` or `epoll`.
    pub(crate) backend: String,
    /// Why this one.
    pub(crate) reason: String,
    /// What would bring the faster one, where that is not it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cure: Option<String>,
}

/// Identity and its key.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct IdentityStatus {
    /// `fg1…`.
    pub(crate) identifier: String,
    /// Where the key lies: `token`, `file` or `memory`.
    pub(crate) key: String,
    /// Seconds until the attestation of the channel key ends.
    pub(crate) attestation_secs: u64,
    /// Signatures made by the key since the start.
    pub(crate) signatures: u64,
    /// Failed attempts since the start.
    pub(crate) signing_errors: u64,
    /// What the key's last failure was, while it has not worked again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) problem: Option<String>,
    /// The process that holds it; none for a key in memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) worker: Option<TokenStatus>,
    /// The TPM that holds it; absent where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) tpm: Option<TpmStatus>,
}

/// One shard.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct ShardStatus {
    /// Whether the shard did not answer in time; everything else about it is then not known.
    #[serde(default)]
    pub(crate) is_silent: bool,
    /// MQTT clients connected.
    pub(crate) clients: u64,
    /// MQTT connections accepted since the start.
    pub(crate) accepted: u64,
    /// Connections refused at a bound.
    pub(crate) refused: u64,
    /// Sessions ended because of what the client sent.
    pub(crate) protocol_errors: u64,
    /// Log-ins refused.
    pub(crate) auth_failures: u64,
    /// Readings taken from clients.
    pub(crate) readings: u64,
    /// Readings refused: journal full, too large, not allowed.
    pub(crate) readings_refused: u64,
    /// Messages at QoS 0 dropped because a client did not read.
    #[serde(default)]
    pub(crate) messages_dropped: u64,
    /// Connections refused because their address opened too many at once; they are in `refused` too.
    #[serde(default)]
    pub(crate) too_fast: u64,
    /// Turns of the loop.
    pub(crate) turns: u64,
}

/// Links, channels, relay.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct NetworkStatus {
    /// Links that are up.
    pub(crate) links: Vec<LinkStatus>,
    /// Channels that are established.
    pub(crate) channels: u64,
    /// Handshakes completed since the start.
    pub(crate) handshakes: u64,
    /// Handshakes that failed.
    pub(crate) handshake_failures: u64,
    /// Records that did not open.
    pub(crate) records_refused: u64,
    /// Names registered here by members, where this node is a relay.
    pub(crate) registered: Vec<String>,
    /// Relays that this one dials.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) relays: Vec<RelayStatus>,
    /// How far members have left, while this relay is being drained.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) drain: Option<DrainStatus>,
    /// Ways to collectors and to nodes that inlets lead to, where there are several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) paths: Vec<PathsStatus>,
    /// Frames forwarded.
    pub(crate) forwarded_frames: u64,
    /// Payload bytes forwarded.
    pub(crate) forwarded_bytes: u64,
    /// Connections that were dialled and came to nothing, since the start.
    #[serde(default)]
    pub(crate) dials_failed: u64,
    /// Connections whose WebSocket did not open, since the start.
    #[serde(default)]
    pub(crate) websockets_refused: u64,
    /// What has happened to links over QUIC since the start.
    #[serde(default)]
    pub(crate) quic: QuicStatus,
    /// Direct paths, if this node has some.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) direct: Option<DirectStatus>,
    /// Frames dropped, by reason.
    pub(crate) dropped: Vec<(String, u64)>,
}

/// Links over QUIC, since the start.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct QuicStatus {
    /// Connections of others that were turned away, or made way.
    pub(crate) refused: u64,
    /// Strangers who were asked to prove their address first.
    pub(crate) retried: u64,
    /// Connections of others whose handshake did not come to an end.
    pub(crate) failed: u64,
    /// Times that a link went on from another address.
    pub(crate) moved: u64,
}

impl QuicStatus {
    pub(crate) const fn new(stats: fieldgate_quic::Stats) -> Self {
        Self {
            refused: stats.refused,
            retried: stats.retried,
            failed: stats.failed,
            moved: stats.moved,
        }
    }
}

/// Why a link's address was kept where there is no other.
pub(crate) const ONLY_ADDRESS: &str = "its only address";

/// One link.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct LinkStatus {
    /// Address of the neighbour.
    pub(crate) peer: String,
    /// `dialled` or `accepted`.
    pub(crate) origin: String,
    /// `connecting`, `up`.
    pub(crate) state: String,
    /// Identity attached to the link, where it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) member: Option<String>,
    /// Why this address of the neighbour was kept, where this node dialled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) chosen: Option<String>,
    /// Smoothed round trip in microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rtt_us: Option<u64>,
    /// Bytes that wait to be sent.
    pub(crate) queued_bytes: u64,
}

impl NodeStatus {
    /// Derives health and its reasons from the parts.
    pub(crate) fn judge(&mut self) {
        let mut reasons = Vec::new();
        if let Some(problem) = &self.identity.problem {
            reasons.push(format!(
                "identity key: {problem}; channels live on for {} s",
                self.identity.attestation_secs
            ));
        }
        reasons.extend(self.identity.worker.as_ref().and_then(TokenStatus::reason));
        reasons.extend(self.identity.tpm.as_ref().and_then(TpmStatus::reason));
        reasons.extend(self.trust.iter().flat_map(TrustStatus::reasons));
        for problem in self.authority.iter().flat_map(|authority| &authority.problems) {
            reasons.push(format!("authority: {problem}"));
        }
        reasons.extend(self.clock.distrust.iter().map(|why| format!("clock: {why}")));
        reasons.extend(self.journal.iter().flat_map(JournalStatus::reasons));
        reasons.extend(self.mqtt.as_ref().and_then(MqttStatus::reason));
        reasons.extend(self.uplinks.iter().filter_map(UplinkStatus::reason));
        reasons.extend(self.network.relays.iter().filter_map(RelayStatus::reason));
        reasons.extend(self.network.drain.iter().map(DrainStatus::reason));
        reasons.extend(self.sources.iter().filter_map(SourceStatus::reason));
        reasons.extend(self.commands.as_ref().and_then(CommandsStatus::reason));
        reasons.extend(self.portals.iter().flat_map(PortalsStatus::reasons));
        reasons.extend(self.cluster.iter().flat_map(ClusterStatus::reasons));
        reasons.extend(self.ledger.iter().filter_map(LedgerStatus::reason));
        reasons.extend(self.sinks.iter().flat_map(SinkStatus::reasons));
        let shards = self.shards.iter().enumerate();
        for (index, _) in shards.filter(|(_, shard)| shard.is_silent) {
            reasons.push(format!(
                "shard {index} has not answered within 2 s; what it does is not shown"
            ));
        }
        self.health = if reasons.is_empty() {
            Health::Healthy
        } else {
            Health::Degraded
        };
        self.reasons = reasons;
    }

    /// Writes the status for a person.
    pub(crate) fn to_text(&self) -> String {
        let mut out = String::new();
        self.write_text(&mut out).expect("writing to memory cannot fail");
        out
    }

    fn write_text(&self, out: &mut String) -> std::fmt::Result {
        let health = match self.health {
            Health::Healthy => "healthy",
            Health::Degraded => "DEGRADED",
        };
        writeln!(
            out,
            "{} ({}), {health}, up {}",
            self.name,
            self.roles.join(" + "),
            duration(self.uptime_secs)
        )?;
        for reason in &self.reasons {
            writeln!(out, "  ! {reason}")?;
        }
        writeln!(out, "  identity   {}", self.identity.identifier)?;
        writeln!(
            out,
            "             key in {}, {} signatures, attestation valid for {}",
            self.identity.key,
            self.identity.signatures,
            duration(self.identity.attestation_secs)
        )?;
        if let Some(worker) = &self.identity.worker {
            worker.write_text(out)?;
        }
        if let Some(tpm) = &self.identity.tpm {
            tpm.write_text(out)?;
        }
        if let Some(trust) = &self.trust {
            trust.write_text(out)?;
        }
        if let Some(authority) = &self.authority {
            writeln!(
                out,
                "  members    {}, {} revoked, {} open tickets, {} decisions in the log",
                authority.members, authority.revoked, authority.tickets_open, authority.log_entries
            )?;
            if let Some(cluster) = &authority.cluster {
                writeln!(out, "  cluster    {cluster}")?;
            }
        }
        writeln!(out, "  clock      {} ({})", self.clock.quality, self.clock.source)?;
        writeln!(out, "  i/o        {} ({})", self.io.backend, self.io.reason)?;
        if let Some(cure) = &self.io.cure {
            writeln!(out, "             {cure}")?;
        }
        if self.roles.iter().any(|role| role == "gateway") {
            let sum = |value: fn(&ShardStatus) -> u64| self.shards.iter().map(value).sum::<u64>();
            writeln!(
                out,
                "  mqtt       {} clients, {} readings, {} refused, {} bad sessions, {} bad log-ins",
                sum(|shard| shard.clients),
                sum(|shard| shard.readings),
                sum(|shard| shard.readings_refused),
                sum(|shard| shard.protocol_errors),
                sum(|shard| shard.auth_failures)
            )?;
        }
        if let Some(mqtt) = &self.mqtt {
            mqtt.write_text(out)?;
        }
        if let Some(journal) = &self.journal {
            journal.write_text(out)?;
        }
        for uplink in &self.uplinks {
            uplink.write_text(out)?;
        }
        if let Some(commands) = &self.commands {
            commands.write_text(out)?;
        }
        if let Some(portals) = &self.portals {
            portals.write_text(out)?;
        }
        if let Some(cluster) = &self.cluster {
            cluster.write_text(out)?;
        }
        self.write_network(out)?;
        for source in &self.sources {
            source.write_text(out)?;
        }
        for sink in &self.sinks {
            sink.write_text(out)?;
        }
        if let Some(ledger) = &self.ledger {
            ledger.write_text(out)?;
        }
        Ok(())
    }

    fn write_network(&self, out: &mut String) -> std::fmt::Result {
        let network = &self.network;
        for link in &network.links {
            let rtt = link.rtt_us.map_or_else(String::new, |rtt| {
                format!(", {}.{:03} ms", rtt / 1000, rtt % 1000)
            });
            let member = link
                .member
                .as_ref()
                .map_or_else(String::new, |member| format!(", {member}"));
            // What could not be otherwise is not worth a word.
            let why = link.chosen.as_deref().filter(|why| *why != ONLY_ADDRESS);
            let why = why.map_or_else(String::new, |why| format!(": {why}"));
            writeln!(
                out,
                "  link       {} ({}{why}), {}{rtt}{member}",
                link.peer, link.origin, link.state
            )?;
        }
        writeln!(
            out,
            "  channels   {} up, {} handshakes, {} failed",
            network.channels, network.handshakes, network.handshake_failures
        )?;
        if !network.registered.is_empty() {
            writeln!(out, "  names      {}", network.registered.join(", "))?;
        }
        for relay in &network.relays {
            relay.write_text(out)?;
        }
        for paths in &network.paths {
            paths.write_text(out)?;
        }
        if let Some(direct) = &network.direct {
            direct.write_text(out)?;
        }
        if network.forwarded_frames > 0 {
            writeln!(
                out,
                "  forwarded  {} frames, {}",
                network.forwarded_frames,
                bytes(network.forwarded_bytes)
            )?;
        }
        for (reason, count) in &network.dropped {
            writeln!(out, "  dropped    {count} × {reason}")?;
        }
        Ok(())
    }
}

/// Writes seconds as `3 d 4 h`, `5 min 10 s`, at most two units.
fn duration(secs: u64) -> String {
    match secs {
        0..60 => format!("{secs} s"),
        60..3_600 => format!("{} min {} s", secs / 60, secs % 60),
        3_600..86_400 => format!("{} h {} min", secs / 3_600, secs % 3_600 / 60),
        _ => format!("{} d {} h", secs / 86_400, secs % 86_400 / 3_600),
    }
}

/// Writes a number of bytes with one decimal in the largest binary unit that gives at least 1.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [(&str, u32); 3] = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
    for (unit, shift) in UNITS {
        if count >= 1 << shift {
            let tenths = (u128::from(count) * 10) >> shift;
            return format!("{}.{} {unit}", tenths / 10, tenths % 10);
        }
    }
    format!("{count} B")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_durations_read_well() {
        assert_eq!(bytes(1_023), "1023 B");
        assert_eq!(bytes(8 << 20), "8.0 MiB");
        assert_eq!(bytes(1_610_612_736), "1.5 GiB");
        assert_eq!(duration(59), "59 s");
        assert_eq!(duration(86_400 * 3 + 3_600 * 4), "3 d 4 h");
    }
}
