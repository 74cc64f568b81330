//! From the queue to the device, and what comes back from there.

use std::sync::Arc;

use super::{
    AWAKE_MAX, CommandId, Delivered, Executor, ExecutorOutput, Left, Now, Permission, Phase, State,
    repeat_wait,
};
use crate::command::{Answer, CommandError, Guarantee, PAYLOAD_LEN_MAX};

impl Executor {
    /// Takes the news that a device can be handed something. Beyond 65,536 of them the news is ignored, and that device's
    /// commands wait.
    pub fn handle_device_awake(&mut self, now: Now, device: &str) {
        if self.awake.len() < AWAKE_MAX {
            self.awake.insert(device.into());
        }
        for number in self.numbers_of(device) {
            if let Some(entry) = self.entries.get_mut(&number)
                && matches!(entry.phase, Phase::Queued)
            {
                // It was put off since the device was away.
                (entry.again_at, entry.attempt) = (None, 0);
            }
        }
        self.hand_next(now, device);
    }

    /// Takes the news that a device cannot be handed anything at the moment. What it was handed is told by
    /// [`handle_delivered`](Self::handle_delivered).
    pub fn handle_device_asleep(&mut self, device: &str) {
        self.awake.remove(device);
    }

    /// Has every device handed what it may be handed.
    pub(super) fn hand_all(&mut self, now: Now) {
        let devices: Vec<Arc<str>> = self
            .devices
            .keys()
            .filter(|device| self.awake.contains(*device))
            .cloned()
            .collect();
        for device in devices {
            self.hand_next(now, &device);
        }
    }

    /// Has a device handed the first command that waits for it, unless one before holds it up.
    pub(super) fn hand_next(&mut self, now: Now, device: &str) {
        if !self.awake.contains(device) {
            return;
        }
        for number in self.numbers_of(device) {
            let Some(entry) = self.entries.get(&number) else {
                continue;
            };
            match &entry.phase {
                Phase::Asking | Phase::Accepting | Phase::Handing | Phase::Handed { holds: true } => return,
                Phase::Handed { holds: false }
                | Phase::Acknowledged
                | Phase::Closing(_)
                | Phase::Finished(_)
                | Phase::Settled(_) => {}
                Phase::Queued => {
                    if entry.again_at.is_some_and(|at| now.instant < at) {
                        return;
                    }
                    let (collector, ready) = (entry.collector, entry.is_ready(now));
                    let device = Arc::clone(&entry.order.device);
                    if !ready {
                        // No clock can tell whether it is too late; what comes behind may have a better one.
                        continue;
                    }
                    match self.may(collector, &device) {
                        Some(Permission::Permitted) => {
                            self.hand(now, number);
                            return;
                        }
                        None => return,
                        // What cannot be decided waits for its collector, and holds nothing else up.
                        Some(permission) => {
                            if let Some(state) = permission.ending() {
                                self.close(now, number, state);
                            }
                        }
                    }
                }
            }
        }
    }

    /// Has a device handed a command, once it is kept that it may have been.
    fn hand(&mut self, now: Now, number: u64) {
        let Some(entry) = self.entries.get_mut(&number) else {
            return;
        };
        if !entry.marked {
            entry.phase = Phase::Handing;
            self.store(now, number);
            self.schedule(now, number);
            return;
        }
        let Left::Time(left) = entry.deadline.left(now) else {
            return;
        };
        entry.handed_before = entry.handed;
        entry.handed = true;
        entry.phase = Phase::Handed { holds: true };
        self.stats.handed += 1;
        self.outputs.push_back(ExecutorOutput::Deliver {
            number,
            id: entry.id,
            order: Arc::clone(&entry.order),
            left,
        });
        self.schedule(now, number);
    }

    /// Takes the word of what became of an [`ExecutorOutput::Deliver`]. One that nobody waits for is ignored.
    pub fn handle_delivered(&mut self, now: Now, number: u64, delivered: Delivered) {
        let Some(entry) = self.entries.get_mut(&number) else {
            return;
        };
        if !matches!(entry.phase, Phase::Handed { holds: true }) {
            return;
        }
        let device = Arc::clone(&entry.order.device);
        let answerable = entry.order.answer_wanted && !entry.cancel;
        match delivered {
            Delivered::Acknowledged { can_answer } => {
                if can_answer && answerable {
                    entry.phase = Phase::Acknowledged;
                    // Nothing rests on this but that the device is not handed it once more after a restart.
                    self.store(now, number);
                    self.say(now, number);
                } else {
                    self.close(now, number, State::Delivered);
                }
            }
            Delivered::Handed if answerable => entry.phase = Phase::Handed { holds: false },
            Delivered::Handed => self.close(now, number, State::Unconfirmed),
            Delivered::Rejected(code) => self.close(now, number, State::Rejected(code)),
            Delivered::NotHanded => {
                entry.handed = entry.handed_before;
                self.wait_again(now, number);
            }
            Delivered::Interrupted => match entry.order.guarantee {
                Guarantee::AtLeastOnce => self.wait_again(now, number),
                Guarantee::AtMostOnce if answerable => entry.phase = Phase::Handed { holds: false },
                Guarantee::AtMostOnce => self.close(now, number, State::Unconfirmed),
            },
        }
        self.schedule(now, number);
        self.hand_next(now, &device);
    }

    /// Puts a command back at its place in the queue.
    fn wait_again(&mut self, now: Now, number: u64) {
        let Some(entry) = self.entries.get_mut(&number) else {
            return;
        };
        entry.phase = Phase::Queued;
        if entry.cancel {
            self.close(now, number, State::Cancelled);
            return;
        }
        // A device that is awake and takes nothing is not asked without end.
        entry.again_at = Some(now.instant + repeat_wait(entry.attempt));
        entry.attempt += 1;
    }

    /// Takes what a device says is its answer to the command that `number` and `id` name; false if nobody waits for it.
    ///
    /// # Errors
    /// [`CommandError::TooLong`] if the answer is longer than it may be; nothing has changed then.
    pub fn handle_answer(
        &mut self,
        now: Now,
        device: &str,
        (number, id): (u64, CommandId),
        content_type: &str,
        payload: &[u8],
    ) -> Result<bool, CommandError> {
        for (field, len, max) in [
            ("answer", payload.len(), PAYLOAD_LEN_MAX),
            ("content type", content_type.len(), usize::from(u8::MAX)),
        ] {
            if len > max {
                return Err(CommandError::TooLong { field, len, max });
            }
        }
        let entry = self.entries.get(&number);
        let awaited = entry.filter(|entry| {
            let open = match entry.phase {
                Phase::Handed { .. } | Phase::Acknowledged => true,
                // It was handed it before, and answers that.
                Phase::Queued | Phase::Handing => entry.handed,
                Phase::Asking
                | Phase::Accepting
                | Phase::Closing(_)
                | Phase::Finished(_)
                | Phase::Settled(_) => false,
            };
            open && entry.id == id && *entry.order.device == *device
        });
        if awaited.is_none() {
            self.stats.answers_ignored += 1;
            return Ok(false);
        }
        let answer = Answer {
            content_type: content_type.into(),
            payload: payload.into(),
        };
        self.close(now, number, State::Answered(answer));
        self.hand_next(now, device);
        Ok(true)
    }
}
