//! Commands to devices: which channel they go by, and who may give them.
//!
//! The machines are [`Executor`] and [`Commander`]; the node carries their frames, tells them which channels are up, and has
//! decided what a collector may command, with what is known of it in its channel.

use std::{collections::BTreeMap, sync::Arc};

use super::{AccessPolicy, ChannelFacts, Node, Output, UplinkState, Use, Wire};
use crate::{
    channel::{ChannelId, PLAINTEXT_CARRIED_MAX, frames, put_frame},
    command::{COMMAND, Commander, CommanderOutput, Executor, ExecutorOutput, Permission, QUERY},
    identity::Identifier,
    time::{Instant, Now},
    trust::{Credential, Freshness, Standing},
};

/// A collector that wants to command a device, for whoever decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandAccess {
    /// Comes back in [`Executor::handle_permission`].
    pub question: u64,
    /// Who wants it.
    pub collector: Identifier,
    /// Which device.
    pub device: Arc<str>,
    /// Its verified credential and how good that is now.
    pub credential: Option<(Arc<Credential>, Standing)>,
    /// How fresh the list of the revoked is.
    pub freshness: Freshness,
    /// What is known of the channel.
    pub facts: ChannelFacts,
}

/// The machines of this node, and the channels they speak in.
#[derive(Debug, Default)]
pub(super) struct Commands {
    executor: Option<Executor>,
    commander: Option<Commander>,
    /// The channel of each gateway that was admitted last.
    gateways: BTreeMap<Identifier, ChannelId>,
    by_channel: BTreeMap<ChannelId, Identifier>,
    rights_changed: bool,
}

impl Commands {
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let executor = self.executor.as_ref().and_then(Executor::poll_timeout);
        let commander = self.commander.as_ref().and_then(Commander::poll_timeout);
        [executor, commander].into_iter().flatten().min()
    }

    pub(super) fn handle_timeout(&mut self, now: Now) {
        if let Some(executor) = &mut self.executor {
            executor.handle_timeout(now);
        }
        if let Some(commander) = &mut self.commander {
            commander.handle_timeout(now);
        }
    }

    /// The policy, or what is known of a collector, has changed. Before anything else is handed to a device, it is asked again.
    pub(super) const fn rights_changed(&mut self) {
        self.rights_changed = true;
    }

    /// A channel of a gateway may be used.
    pub(super) fn gateway_up(&mut self, now: Now, gateway: Identifier, channel: ChannelId) {
        let Some(commander) = &mut self.commander else {
            return;
        };
        if let Some(before) = self.gateways.insert(gateway, channel) {
            self.by_channel.remove(&before);
        }
        self.by_channel.insert(channel, gateway);
        commander.handle_up(now, gateway);
    }

    /// A channel is gone.
    pub(super) fn gateway_down(&mut self, now: Now, channel: ChannelId) {
        if let Some(gateway) = self.by_channel.remove(&channel) {
            self.gateways.remove(&gateway);
            if let Some(commander) = &mut self.commander {
                commander.handle_down(now, gateway);
            }
        }
    }

    /// Takes a frame of a gateway; false if it is bad. In a channel that it has given up since, nothing counts.
    pub(super) fn gateway_frame(&mut self, now: Now, channel: ChannelId, (kind, body): (u8, &[u8])) -> bool {
        let Some(commander) = &mut self.commander else {
            return false;
        };
        let Some(gateway) = self.by_channel.get(&channel) else {
            return true;
        };
        commander.handle_frame(now, *gateway, kind, body).is_ok()
    }
}

/// Returns whether frames of this kind are about commands.
pub(super) const fn is_command(kind: u8) -> bool {
    matches!(kind, COMMAND..=QUERY)
}

impl Node {
    /// Lets the collectors of this node's uplinks command its devices. Call it before anything else, with what was kept restored.
    pub fn set_executor(&mut self, executor: Executor) {
        self.commands.executor = Some(executor);
    }

    /// Lets this collector command devices. Call it before anything else, with what was kept restored.
    pub fn set_commander(&mut self, commander: Commander) {
        self.commands.commander = Some(commander);
    }

    /// Returns the machine that has devices handed commands.
    #[must_use]
    pub const fn executor(&self) -> Option<&Executor> {
        self.commands.executor.as_ref()
    }

    /// Returns the machine that has devices handed commands, to be told something. What it has to say comes with the next
    /// [`flush`](Self::flush).
    pub const fn executor_mut(&mut self) -> Option<&mut Executor> {
        self.commands.executor.as_mut()
    }

    /// Returns the machine that sends commands to gateways.
    #[must_use]
    pub const fn commander(&self) -> Option<&Commander> {
        self.commands.commander.as_ref()
    }

    /// Returns the machine that sends commands to gateways, to be told something. What it has to say comes with the next
    /// [`flush`](Self::flush).
    pub const fn commander_mut(&mut self) -> Option<&mut Commander> {
        self.commands.commander.as_mut()
    }

    /// Returns who presented a credential with this name in a channel that is open; `None` if nobody did, or several.
    #[must_use]
    pub fn member_called(&self, name: &str) -> Option<Identifier> {
        let mut found = None;
        for known in self.known.values() {
            let called = known
                .credential
                .as_ref()
                .is_some_and(|credential| credential.name == name);
            if called && found.replace(known.peer).is_some_and(|other| other != known.peer) {
                return None;
            }
        }
        found
    }

    /// The channel of an uplink may be used.
    pub(super) fn commands_up(&mut self, now: Now, uplink: usize) {
        let collector = self.uplinks[uplink].settings.collector;
        // Another channel, and perhaps another credential in it.
        self.commands.rights_changed();
        if let Some(executor) = &mut self.commands.executor {
            executor.handle_up(now, collector);
        }
    }

    /// The channel of an uplink is gone.
    pub(super) fn commands_down(&mut self, uplink: usize) {
        let collector = self.uplinks[uplink].settings.collector;
        if self.channel_to(collector).is_none()
            && let Some(executor) = &mut self.commands.executor
        {
            executor.handle_down(collector);
        }
    }

    /// Takes a frame of the collector; false if it is bad.
    pub(super) fn command_frame(&mut self, now: Now, uplink: usize, (kind, body): (u8, &[u8])) -> bool {
        let uplink = &self.uplinks[uplink];
        let (collector, up) = (uplink.settings.collector, uplink.state == UplinkState::Up);
        let Some(executor) = self.commands.executor.as_mut().filter(|_| up) else {
            return false;
        };
        executor.handle_frame(now, collector, kind, body).is_ok()
    }

    /// Returns the channel in which a collector is spoken to.
    fn channel_to(&self, collector: Identifier) -> Option<ChannelId> {
        let uplinks = self.uplinks.iter();
        uplinks
            .filter(|uplink| uplink.settings.collector == collector && uplink.state == UplinkState::Up)
            .find_map(super::uplink::Uplink::channel)
    }

    /// Sends what the machines have to say, and hands on what their caller has to do.
    pub(super) fn flush_commands(&mut self, now: Now, wire: &mut dyn Wire) {
        if std::mem::take(&mut self.commands.rights_changed)
            && let Some(executor) = &mut self.commands.executor
        {
            executor.handle_rights_changed(now);
        }
        while let Some(output) = self.commands.executor.as_mut().and_then(Executor::poll_output) {
            match output {
                ExecutorOutput::Send { collector, frame } => {
                    if let Some(channel) = self.channel_to(collector) {
                        self.send_frames(now, channel, &frame, wire);
                    }
                }
                ExecutorOutput::Authorise {
                    question,
                    collector,
                    device,
                } => self.authorise_command(now, question, collector, device),
                output @ (ExecutorOutput::Store { .. }
                | ExecutorOutput::Forget { .. }
                | ExecutorOutput::Deliver { .. }
                | ExecutorOutput::Withdraw { .. }
                | ExecutorOutput::Finished { .. }) => {
                    self.outputs.push_back(Output::Executor(Box::new(output)));
                }
            }
        }
        while let Some(output) = self.commands.commander.as_mut().and_then(Commander::poll_output) {
            match output {
                CommanderOutput::Send { gateway, frames } => self.send_commands(now, gateway, &frames, wire),
                output @ (CommanderOutput::Store { .. }
                | CommanderOutput::Forget { .. }
                | CommanderOutput::Accepted { .. }
                | CommanderOutput::NotKept { .. }
                | CommanderOutput::Progress { .. }
                | CommanderOutput::Finished { .. }) => {
                    self.outputs.push_back(Output::Commander(Box::new(output)));
                }
            }
        }
    }

    /// Sends frames to a gateway, in as many records as they need.
    fn send_commands(&mut self, now: Now, gateway: Identifier, all: &[u8], wire: &mut dyn Wire) {
        let Some(channel) = self.commands.gateways.get(&gateway).copied() else {
            return;
        };
        let mut record = Vec::new();
        for (kind, body) in frames(all).flatten() {
            if !record.is_empty() && record.len() + FRAME_OVERHEAD + body.len() > PLAINTEXT_CARRIED_MAX {
                self.send_frames(now, channel, &record, wire);
                record.clear();
            }
            put_frame(&mut record, kind, body);
        }
        self.send_frames(now, channel, &record, wire);
    }

    /// Has it decided whether a collector may command a device. Without its channel nothing is known that could decide it.
    fn authorise_command(&mut self, now: Now, question: u64, collector: Identifier, device: Arc<str>) {
        let channel = self.channel_to(collector);
        let known = channel.and_then(|channel| Some((channel, self.known.get(&channel)?)));
        let Some((channel, known)) = known else {
            self.permit_command(now, question, Permission::Undecided);
            return;
        };
        if self.accesses.policy == AccessPolicy::Lists {
            // Whose uplinks the settings name they trust.
            self.permit_command(now, question, Permission::Permitted);
            return;
        }
        let credential = known.credential.clone();
        let facts = self.channel_facts(channel, known);
        let credential = credential.map(|credential| {
            let standing = self.standing(now, &credential);
            (credential, standing)
        });
        self.outputs
            .push_back(Output::AuthoriseCommand(Box::new(CommandAccess {
                question,
                collector,
                device,
                credential,
                freshness: self.freshness(now),
                facts,
            })));
    }

    fn permit_command(&mut self, now: Now, question: u64, permission: Permission) {
        if let Some(executor) = &mut self.commands.executor {
            executor.handle_permission(now, question, permission);
        }
    }

    /// A gateway's channel may be used.
    pub(super) fn note_gateway(&mut self, now: Now, channel: ChannelId) {
        let gateway = self.channels.peer(channel);
        if let Some(gateway) = gateway {
            debug_assert!(
                matches!(
                    self.by_channel.get(&channel).map(|entry| entry.used_for),
                    Some(Use::Gateway { .. })
                ),
                "only a gateway's channel is noted"
            );
            self.commands.gateway_up(now, gateway, channel);
        }
    }
}

/// Bytes of a frame beside its body.
const FRAME_OVERHEAD: usize = 3;
