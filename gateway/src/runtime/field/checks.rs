//! Passwords that people chose are hashed slowly on purpose: they are checked on a thread of their own.

use std::{
    io,
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
};

use fieldgate_adapters::authenticate::{CheckedPassword, PasswordCheck};
use fieldgate_io::{mailbox::MailSender, thread};

use crate::runtime::ShardMessage;

/// A check on its way.
struct Order {
    shard: usize,
    connection: u64,
    check: PasswordCheck,
}

/// The way to the thread that checks; clones share it. It ends when the last is gone.
#[derive(Clone)]
pub(crate) struct Checks(SyncSender<Order>);

impl Checks {
    /// Starts the thread, which answers to the mailboxes of `shards`.
    ///
    /// # Errors
    /// If there is none to be had.
    pub(crate) fn spawn(shards: Arc<[MailSender<ShardMessage>]>) -> io::Result<Self> {
        let (sender, orders) = sync_channel(WAITING_MAX);
        // It ends by itself when the shards are gone; a check lasts half a second at most.
        drop(thread::spawn("fg-passwords", None, move || {
            run(&orders, &shards)
        })?);
        Ok(Self(sender))
    }

    /// Hands over a check; says whether there was room. It is answered by [`ShardMessage::Checked`].
    pub(super) fn order(&self, shard: usize, connection: u64, check: PasswordCheck) -> bool {
        let order = Order {
            shard,
            connection,
            check,
        };
        self.0.try_send(order).is_ok()
    }
}

fn run(orders: &Receiver<Order>, shards: &[MailSender<ShardMessage>]) {
    while let Ok(order) = orders.recv() {
        let checked: CheckedPassword = order.check.run();
        if let Some(shard) = shards.get(order.shard) {
            // A shard that is gone has no clients.
            drop(shard.send(ShardMessage::Checked {
                connection: order.connection,
                checked: Box::new(checked),
            }));
        }
    }
}

/// Checks that may wait; who comes then is told that the gateway is busy.
const WAITING_MAX: usize = 64;
