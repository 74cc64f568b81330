//! What waits for the authority's thread.

use std::{
    collections::VecDeque,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// A bounded queue of requests beside a short one of what must not wait behind them.
///
/// Messages of the second kind come from the node itself (signatures, a rotated identity, the end), one at a time, so
/// they need no bound.
pub(super) struct Mailbox<R, C> {
    inner: Mutex<Inner<R, C>>,
    arrived: Condvar,
    requests_max: usize,
}

struct Inner<R, C> {
    requests: VecDeque<R>,
    controls: VecDeque<C>,
    /// Requests turned away.
    refused: u64,
    closed: bool,
}

/// What has arrived.
pub(super) struct Mail<R, C> {
    /// Requests in the order of their arrival.
    pub(super) requests: Vec<R>,
    /// Messages of the node, in order; handled before the requests.
    pub(super) controls: Vec<C>,
    /// Nothing more will come.
    pub(super) closed: bool,
}

impl<R, C> Mailbox<R, C> {
    /// Makes one for `requests_max` waiting requests.
    pub(super) const fn new(requests_max: usize) -> Self {
        Self {
            inner: Mutex::new(Inner {
                requests: VecDeque::new(),
                controls: VecDeque::new(),
                refused: 0,
                closed: false,
            }),
            arrived: Condvar::new(),
            requests_max,
        }
    }

    /// Puts a request in.
    ///
    /// # Errors
    /// The request, if there is no room or nobody takes requests any more.
    pub(super) fn submit(&self, request: R) -> Result<(), R> {
        let mut inner = self.lock();
        if inner.closed || inner.requests.len() >= self.requests_max {
            inner.refused += 1;
            return Err(request);
        }
        inner.requests.push_back(request);
        drop(inner);
        self.arrived.notify_one();
        Ok(())
    }

    /// Puts a message of the node in.
    pub(super) fn control(&self, message: C) {
        self.lock().controls.push_back(message);
        self.arrived.notify_one();
    }

    /// Takes no more requests; what waits is still handed out.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.arrived.notify_all();
    }

    /// Waits until something arrives, at most `patience`; takes at most `batch_max` requests.
    pub(super) fn take(&self, patience: Duration, batch_max: usize) -> Mail<R, C> {
        let inner = self.lock();
        let idle =
            |inner: &mut Inner<R, C>| inner.requests.is_empty() && inner.controls.is_empty() && !inner.closed;
        let (mut inner, _) = self
            .arrived
            .wait_timeout_while(inner, patience, idle)
            .unwrap_or_else(PoisonError::into_inner);
        let count = inner.requests.len().min(batch_max);
        Mail {
            requests: inner.requests.drain(..count).collect(),
            controls: inner.controls.drain(..).collect(),
            closed: inner.closed && inner.requests.is_empty(),
        }
    }

    /// Returns how many requests were turned away.
    pub(super) fn refused(&self) -> u64 {
        self.lock().refused
    }

    fn lock(&self) -> MutexGuard<'_, Inner<R, C>> {
        // Nothing is left half done under the lock, so a panic elsewhere does not spoil what it guards.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_away_what_does_not_fit_and_counts_it() {
        let mailbox = Mailbox::<u8, u8>::new(2);
        assert_eq!(mailbox.submit(1), Ok(()));
        assert_eq!(mailbox.submit(2), Ok(()));
        assert_eq!(mailbox.submit(3), Err(3));
        assert_eq!(mailbox.refused(), 1);
        mailbox.control(9);
        let mail = mailbox.take(Duration::from_secs(60), 1);
        assert_eq!(
            (mail.requests, mail.controls, mail.closed),
            (vec![1], vec![9], false)
        );
        assert_eq!(mailbox.submit(4), Ok(()));
    }

    #[test]
    fn hands_out_what_waits_before_it_ends() {
        let mailbox = Mailbox::<u8, u8>::new(8);
        assert_eq!(mailbox.submit(1), Ok(()));
        assert_eq!(mailbox.submit(2), Ok(()));
        mailbox.close();
        assert_eq!(mailbox.submit(3), Err(3));
        let mail = mailbox.take(Duration::from_secs(60), 1);
        assert_eq!((mail.requests, mail.closed), (vec![1], false));
        let mail = mailbox.take(Duration::from_secs(60), 1);
        assert_eq!((mail.requests, mail.closed), (vec![2], true));
    }

    #[test]
    fn wakes_whoever_waits() {
        let mailbox = Mailbox::<u8, u8>::new(8);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| mailbox.take(Duration::from_secs(600), 8).requests);
            assert_eq!(mailbox.submit(7), Ok(()));
            assert_eq!(waiting.join().expect("the thread ends"), vec![7]);
        });
    }
}
