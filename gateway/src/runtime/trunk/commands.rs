//! Commands to devices: between the node and broker, store and policy.

use fieldgate_proto::{
    command::{ExecutorOutput, Permission},
    node::CommandAccess,
    time::Now,
};

use super::{DeskRequest, Trunk};
use crate::{
    runtime::{
        commanding::{job::hex, store::Kept},
        exchange::command::{Outbound, Word},
    },
    status::{CommandsStatus, GatewayCommands},
};

impl Trunk {
    /// Has it decided whether a collector may command a device.
    pub(super) fn authorise_command(&mut self, now: Now, access: Box<CommandAccess>) {
        let question = access.question;
        if self.desk.try_send(DeskRequest::AuthoriseCommand(access)).is_err()
            && let Some(executor) = self.node.executor_mut()
        {
            // Who decides is overwhelmed; it is asked again when the collector repeats itself.
            executor.handle_permission(now, question, Permission::Undecided);
        }
    }

    /// Does what the machine of a gateway wants.
    pub(super) fn handle_executor(&mut self, now: Now, output: ExecutorOutput) {
        match output {
            ExecutorOutput::Store {
                ticket,
                number,
                record,
            } => self
                .commanding
                .keep_executor(now, &mut self.node, ticket, number, record),
            ExecutorOutput::Forget { number } => self.commanding.forget_executor(number),
            ExecutorOutput::Deliver {
                number,
                id,
                order,
                left,
            } => {
                let topic = self.commanding.topic(&order);
                self.outbound.push(Outbound {
                    number,
                    id,
                    topic,
                    order,
                    left,
                });
            }
            // What is handed over is sent in the same turn: there is nothing to take back.
            ExecutorOutput::Withdraw { .. } => {}
            ExecutorOutput::Finished {
                id, device, state, ..
            } => {
                tracing::info!(
                    id = hex(&id),
                    device = &*device,
                    state = state.name(),
                    "command finished"
                );
            }
            ExecutorOutput::Send { .. } | ExecutorOutput::Authorise { .. } => {
                debug_assert!(false, "the node deals with {output:?}");
            }
        }
    }

    /// Takes what devices are to be told in this turn.
    pub(crate) fn take_outbound(&mut self) -> Vec<Outbound> {
        std::mem::take(&mut self.outbound)
    }

    /// Takes what devices have to do with commands. What follows from it goes out at the end of the turn, or in the next.
    pub(crate) fn handle_words(&mut self, now: Now, words: Vec<Word>) {
        let now = self.judged(now);
        let Some(executor) = self.node.executor_mut() else {
            return;
        };
        for word in words {
            match word {
                Word::Presence { device, reachable } => {
                    if reachable {
                        executor.handle_device_awake(now, &device);
                    } else {
                        executor.handle_device_asleep(&device);
                    }
                }
                Word::Delivered { number, delivered } => executor.handle_delivered(now, number, delivered),
                Word::Answer {
                    device,
                    number,
                    id,
                    content_type,
                    payload,
                } => match executor.handle_answer(now, &device, (number, id), &content_type, &payload) {
                    Ok(true) => {}
                    Ok(false) => {
                        tracing::debug!(device = &*device, "an answer to no command that waits for one");
                    }
                    Err(error) => {
                        tracing::warn!(device = &*device, %error, hint = error.hint(), "an answer is not taken");
                    }
                },
            }
            self.is_due = true;
        }
    }

    /// Returns what the status says of commands.
    pub(super) fn commands_status(&self) -> Option<CommandsStatus> {
        let gateway = self.node.executor().map(|executor| {
            let stats = executor.stats();
            GatewayCommands {
                waiting: executor.waiting().count() as u64,
                unreported: executor.unreported() as u64,
                accepted: stats.accepted,
                refused: stats.refused,
                handed: stats.handed,
                succeeded: stats.succeeded,
                failed: stats.failed,
            }
        });
        let unfinished = self
            .node
            .commander()
            .map(|commander| commander.unfinished() as u64);
        (gateway.is_some() || unfinished.is_some()).then(|| CommandsStatus {
            gateway,
            unfinished,
            problem: self.commanding.problem().map(ToOwned::to_owned),
        })
    }

    /// Takes the word of the store of commands.
    pub(crate) fn handle_commands_kept(&mut self, now: Now, kept: Kept) {
        let now = self.judged(now);
        self.commanding.handle_kept(now, &mut self.node, kept);
        self.is_due = true;
    }
}
