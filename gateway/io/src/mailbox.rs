//! Bounded queues between threads that wake their receiver.

use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use crate::Waker;

/// Makes a queue for at most `capacity` values; `waker` is used whenever one was put in.
///
/// # Panics
/// If `capacity` is 0.
#[must_use]
pub fn mailbox<T: Send>(capacity: usize, waker: Waker) -> (MailSender<T>, MailReceiver<T>) {
    assert!(capacity > 0, "a mailbox needs room for one value");
    let (sender, receiver) = sync_channel(capacity);
    (
        MailSender {
            sender,
            waker: waker.clone(),
        },
        MailReceiver {
            receiver,
            capacity,
            waker,
        },
    )
}

/// Puts values into a mailbox; clones share it.
#[derive(Debug)]
pub struct MailSender<T> {
    sender: SyncSender<T>,
    waker: Waker,
}

impl<T> Clone for MailSender<T> {
    fn clone(&self) -> Self {
        Self {
            sender: self.sender.clone(),
            waker: self.waker.clone(),
        }
    }
}

/// Why a value could not be put into a mailbox; it holds the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MailError<T> {
    /// The receiver is slower than the senders.
    #[error("the mailbox is full")]
    Full(T),
    /// The receiver is gone.
    #[error("the receiver of the mailbox is gone")]
    Closed(T),
}

impl<T> MailError<T> {
    /// Returns the value that was not sent.
    pub fn into_value(self) -> T {
        match self {
            Self::Full(value) | Self::Closed(value) => value,
        }
    }

    /// Returns what an operator can do about it.
    pub const fn hint(&self) -> &'static str {
        match self {
            Self::Full(_) => "the receiving thread is overloaded; look at its processor time and at the disk",
            Self::Closed(_) => "the receiving thread has ended; its last log line says why",
        }
    }
}

impl<T: Send> MailSender<T> {
    /// Puts a value in and wakes the receiver.
    ///
    /// # Errors
    /// Gives the value back when the mailbox is full or the receiver gone.
    pub fn try_send(&self, value: T) -> Result<(), MailError<T>> {
        match self.sender.try_send(value) {
            Ok(()) => {
                self.waker.wake();
                Ok(())
            }
            Err(TrySendError::Full(value)) => {
                // The receiver may have been woken for the values before and have more to take than one turn allows.
                self.waker.wake();
                Err(MailError::Full(value))
            }
            Err(TrySendError::Disconnected(value)) => Err(MailError::Closed(value)),
        }
    }

    /// Puts a value in, waiting for room; only for threads that may wait.
    ///
    /// # Errors
    /// Gives the value back when the receiver is gone.
    pub fn send(&self, value: T) -> Result<(), MailError<T>> {
        match self.try_send(value) {
            Err(MailError::Full(value)) => {
                self.sender
                    .send(value)
                    .map_err(|error| MailError::Closed(error.0))?;
                self.waker.wake();
                Ok(())
            }
            result => result,
        }
    }
}

/// Takes values out of a mailbox, in the order each sender put them in.
#[derive(Debug)]
pub struct MailReceiver<T> {
    receiver: Receiver<T>,
    capacity: usize,
    waker: Waker,
}

impl<T: Send> MailReceiver<T> {
    /// Takes one value, or `None` if there is none now.
    #[must_use]
    pub fn try_receive(&self) -> Option<T> {
        self.receiver.try_recv().ok()
    }

    /// Hands what is there to `take`, at most one mailbox full; if more may be left, the receiver is woken again.
    pub fn drain(&self, mut take: impl FnMut(T)) {
        for _ in 0..self.capacity {
            match self.try_receive() {
                Some(value) => take(value),
                None => return,
            }
        }
        self.waker.wake();
    }

    /// Waits for a value; `None` when all senders are gone. Only for threads that may wait.
    #[must_use]
    pub fn receive(&self) -> Option<T> {
        self.receiver.recv().ok()
    }

    /// Waits at most `timeout` for a value. Only for threads that may wait.
    #[must_use]
    pub fn receive_timeout(&self, timeout: std::time::Duration) -> Option<T> {
        self.receiver.recv_timeout(timeout).ok()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use super::*;

    #[test]
    fn gives_the_value_back_when_full() {
        let (sender, receiver) = mailbox(2, Waker::none());
        assert_eq!(sender.try_send(1), Ok(()));
        assert_eq!(sender.try_send(2), Ok(()));
        assert_eq!(sender.try_send(3), Err(MailError::Full(3)));
        assert_eq!(receiver.try_receive(), Some(1));
        assert_eq!(sender.try_send(3), Ok(()));
        drop(receiver);
        assert_eq!(sender.try_send(4), Err(MailError::Closed(4)));
    }

    #[test]
    fn drain_stops_after_one_mailbox_full_and_asks_to_be_called_again() {
        let wakes = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&wakes);
        let waker = Waker::callback(move || {
            counter.fetch_add(1, Ordering::Relaxed);
        });
        let (sender, receiver) = mailbox(4, waker);
        for value in 0..4 {
            sender.try_send(value).expect("room for four");
        }
        assert_eq!(wakes.load(Ordering::Relaxed), 4);
        let mut taken = Vec::new();
        receiver.drain(|value| {
            taken.push(value);
            // A fast sender refills the mailbox while it is drained.
            sender.try_send(value + 100).expect("room was just made");
        });
        assert_eq!(taken, [0, 1, 2, 3]);
        assert_eq!(wakes.load(Ordering::Relaxed), 9);
    }

    #[test]
    fn waits_for_room_and_for_values() {
        let (sender, receiver) = mailbox(1, Waker::none());
        let thread = std::thread::spawn(move || {
            for value in 0..1000 {
                sender.send(value).expect("the receiver lives");
            }
        });
        for value in 0..1000 {
            assert_eq!(receiver.receive(), Some(value));
        }
        assert_eq!(receiver.receive(), None);
        thread.join().expect("the sender does not panic");
    }
}
