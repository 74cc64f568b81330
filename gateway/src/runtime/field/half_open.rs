//! Connections whose CONNECT has not been read yet.

use std::collections::VecDeque;

use fieldgate_io::ConnectionId;

/// The connections without CONNECT, oldest first, and how many there may be.
///
/// Whoever opens connections and says nothing takes up places; so that such clients shut nobody out, the oldest of them makes way
/// for the next one. One that goes on to CONNECT is out of danger. The time limit for CONNECT stands beside this.
pub(super) struct HalfOpen {
    /// May hold connections that are connected or gone; they are left out when there seem to be too many.
    queue: VecDeque<ConnectionId>,
    count_max: usize,
}

impl HalfOpen {
    /// Makes room for half of `clients_max` clients, but not for more than [`HALF_OPEN_MAX`].
    pub(super) fn new(clients_max: usize) -> Self {
        Self {
            queue: VecDeque::new(),
            count_max: (clients_max / 2).clamp(1, HALF_OPEN_MAX),
        }
    }

    /// Takes a new connection, and returns the one that has to go for it; `is_half_open` says whether one still is.
    pub(super) fn push(
        &mut self,
        id: ConnectionId,
        is_half_open: impl Fn(ConnectionId) -> bool,
    ) -> Option<ConnectionId> {
        self.queue.push_back(id);
        if self.queue.len() <= self.count_max {
            return None;
        }
        self.queue.retain(|id| is_half_open(*id));
        if self.queue.len() <= self.count_max {
            return None;
        }
        self.queue.pop_front()
    }

    /// Returns the oldest connection that still is half open, which then has to go.
    pub(super) fn oldest(&mut self, is_half_open: impl Fn(ConnectionId) -> bool) -> Option<ConnectionId> {
        while let Some(id) = self.queue.pop_front() {
            if is_half_open(id) {
                return Some(id);
            }
        }
        None
    }
}

/// Connections of a shard without CONNECT at most: with TLS about 20 MiB.
const HALF_OPEN_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u64) -> ConnectionId {
        ConnectionId::from_u64(number)
    }

    #[test]
    fn the_oldest_makes_way() {
        let mut half_open = HalfOpen::new(6);
        for number in 0..3 {
            assert_eq!(half_open.push(id(number), |_| true), None);
        }
        assert_eq!(half_open.push(id(3), |_| true), Some(id(0)));
        assert_eq!(half_open.push(id(4), |_| true), Some(id(1)));
    }

    #[test]
    fn one_that_is_connected_is_out_of_danger() {
        let mut half_open = HalfOpen::new(6);
        for number in 0..100 {
            assert_eq!(
                half_open.push(id(number), |id| id.as_u64() == 0 || id.as_u64() == number),
                None
            );
        }
        assert_eq!(half_open.oldest(|id| id.as_u64() == 0), Some(id(0)));
        assert_eq!(half_open.oldest(|_| false), None);
    }

    #[test]
    fn there_is_room_for_one_at_least_and_for_a_bounded_number() {
        assert_eq!(HalfOpen::new(0).count_max, 1);
        assert_eq!(HalfOpen::new(1_000_000).count_max, HALF_OPEN_MAX);
    }
}
