//! How late this machine wakes a thread that has nothing to do: what others on it take from a measurement.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::clock;
use crate::failure::Failure;

/// A thread that sleeps again and again.
pub(super) struct Starvation {
    late: Arc<Mutex<VecDeque<Late>>>,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// A sleep that took longer than it should.
#[derive(Clone, Copy, Debug)]
struct Late {
    /// When it should have ended.
    due: u64,
    nanos: u64,
}

impl Starvation {
    pub(super) fn watch() -> Result<Self, Failure> {
        let late = Arc::new(Mutex::new(VecDeque::new()));
        let is_over = Arc::new(AtomicBool::new(false));
        let (list, over) = (Arc::clone(&late), Arc::clone(&is_over));
        let thread = thread::Builder::new()
            .name("starvation".to_owned())
            .spawn(move || sleep(&list, &over))
            .map_err(Failure::io("starting a thread"))?;
        Ok(Self {
            late,
            is_over,
            thread: Some(thread),
        })
    }

    /// Returns by how many nanoseconds a sleep was too long that should have ended between two times, at the worst.
    pub(super) fn worst(&self, from: u64, to: u64) -> u64 {
        let late = self.late.lock().unwrap_or_else(PoisonError::into_inner);
        worst(&late, from, to)
    }
}

impl Drop for Starvation {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn worst(late: &VecDeque<Late>, from: u64, to: u64) -> u64 {
    late.iter()
        .filter(|late| late.due < to && late.due + late.nanos > from)
        .map(|late| late.nanos)
        .max()
        .unwrap_or(0)
}

fn sleep(late: &Mutex<VecDeque<Late>>, is_over: &AtomicBool) {
    while !is_over.load(Ordering::Relaxed) {
        let due = clock::now() + u64::try_from(STEP.as_nanos()).unwrap_or(0);
        clock::pause(STEP);
        let nanos = clock::now().saturating_sub(due);
        if nanos >= LEAST {
            let mut list = late.lock().unwrap_or_else(PoisonError::into_inner);
            if list.len() == KEPT {
                list.pop_front();
            }
            list.push_back(Late { due, nanos });
        }
    }
}

const STEP: Duration = Duration::from_millis(2);
/// What is not worth keeping.
const LEAST: u64 = 1_000_000;
/// Late sleeps that are remembered: minutes of a machine that has no rest.
const KEPT: usize = 100_000;

#[cfg(test)]
mod tests {
    use super::{Late, worst};

    #[test]
    fn only_what_reaches_into_the_time_counts() {
        let late = [(100, 50), (200, 500), (1_000, 900)].map(|(due, nanos)| Late { due, nanos });
        let late = late.into_iter().collect();
        assert_eq!(worst(&late, 0, 100), 0);
        assert_eq!(worst(&late, 0, 101), 50);
        assert_eq!(worst(&late, 600, 1_000), 500);
        assert_eq!(worst(&late, 600, 1_001), 900);
        assert_eq!(worst(&late, 1_900, 5_000), 0);
    }
}
