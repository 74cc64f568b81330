//! Threads that write: the node ends when they have written.

use std::{convert::Infallible, sync::mpsc, time::Duration};

/// Held by a thread until it has written everything that it will write.
#[derive(Clone, Debug)]
pub(crate) struct Writing(
    #[expect(dead_code, reason = "dropping it is what says something")] mpsc::Sender<Infallible>,
);

/// Waits for all that hold a [`Writing`].
#[derive(Debug)]
pub(crate) struct Writers(mpsc::Receiver<Infallible>);

/// Makes the two; clone the first for each thread.
pub(crate) fn writers() -> (Writing, Writers) {
    let (sender, receiver) = mpsc::channel();
    (Writing(sender), Writers(receiver))
}

impl Writers {
    /// Waits until nobody writes any more; says whether that was so within `time`.
    pub(crate) fn wait(&self, time: Duration) -> bool {
        matches!(
            self.0.recv_timeout(time),
            Err(mpsc::RecvTimeoutError::Disconnected)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_writes_is_waited_for() {
        let (writing, writers) = writers();
        assert!(!writers.wait(Duration::ZERO));
        let (go, gone) = mpsc::channel::<()>();
        let other = writing.clone();
        let thread = std::thread::spawn(move || {
            gone.recv().expect("it is told");
            drop(other);
        });
        drop(writing);
        assert!(!writers.wait(Duration::ZERO));
        go.send(()).expect("it listens");
        assert!(writers.wait(Duration::MAX));
        thread.join().expect("it ends");
    }
}
