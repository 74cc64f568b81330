//! Frames over the socket between node and worker.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use zeroize::Zeroizing;

use super::wire::{WireError, check_length};
use crate::clock;

/// One end of the socket.
pub(super) struct Connection(UnixStream);

/// Why there is no frame.
#[derive(Debug)]
pub(super) enum Interruption {
    /// The other side has closed its end, or died.
    Closed,
    /// The time is over.
    Late,
    /// What came is no frame.
    Broken(WireError),
}

impl Connection {
    pub(super) const fn new(stream: UnixStream) -> Self {
        Self(stream)
    }

    /// Returns another handle of the same end.
    pub(super) fn try_clone(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }

    /// Sends a whole frame; `time` bounds each wait for room in the socket, `None` waits for ever.
    pub(super) fn send(&mut self, frame: &[u8], time: Option<Duration>) -> Result<(), Interruption> {
        self.0.set_write_timeout(time).map_err(interruption)?;
        self.0.write_all(frame).map_err(interruption)
    }

    /// Receives a frame without its length; waits until `deadline`, `None` waits for ever.
    pub(super) fn receive(&mut self, deadline: Option<Instant>) -> Result<Zeroizing<Vec<u8>>, Interruption> {
        let mut length = [0; 4];
        self.fill(&mut length, deadline)?;
        let length = u32::from_be_bytes(length);
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        // Before the memory is taken: the other side may say anything.
        check_length(length).map_err(Interruption::Broken)?;
        let mut frame = Zeroizing::new(vec![0; length]);
        self.fill(&mut frame, deadline)?;
        Ok(frame)
    }

    fn fill(&mut self, mut room: &mut [u8], deadline: Option<Instant>) -> Result<(), Interruption> {
        while !room.is_empty() {
            let time = match deadline {
                None => None,
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(clock::now());
                    // A timeout of zero would mean none.
                    Some(left)
                        .filter(|left| !left.is_zero())
                        .ok_or(Interruption::Late)?
                        .into()
                }
            };
            self.0.set_read_timeout(time).map_err(interruption)?;
            match self.0.read(room) {
                Ok(0) => return Err(Interruption::Closed),
                Ok(count) => {
                    let (_, rest) = room.split_at_mut(count);
                    room = rest;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(interruption(error)),
            }
        }
        Ok(())
    }
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "it is the function that `map_err` wants"
)]
fn interruption(error: io::Error) -> Interruption {
    match error.kind() == io::ErrorKind::WouldBlock || error.kind() == io::ErrorKind::TimedOut {
        true => Interruption::Late,
        // A socket pair fails in no other way than by the death of the other side.
        false => Interruption::Closed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (Connection, Connection) {
        let (one, other) = UnixStream::pair().unwrap();
        (Connection::new(one), Connection::new(other))
    }

    fn soon() -> Option<Instant> {
        clock::now().checked_add(Duration::from_millis(20))
    }

    #[test]
    fn a_frame_in_pieces_is_put_together() {
        let (mut one, mut other) = pair();
        for piece in [&[0, 0][..], &[0, 6, 1, 2], &[3, 4, 5], &[6]] {
            one.send(piece, None).unwrap();
        }
        assert_eq!(*other.receive(None).unwrap(), [1, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn silence_death_and_nonsense_are_told_apart() {
        let (mut one, mut other) = pair();
        assert!(matches!(other.receive(soon()), Err(Interruption::Late)));
        one.send(&[0, 0, 0, 9, 1], None).unwrap();
        assert!(matches!(other.receive(soon()), Err(Interruption::Late)));

        let (mut one, mut other) = pair();
        one.send(&[0, 4, 0, 1, 1], None).unwrap();
        assert!(matches!(
            other.receive(None),
            Err(Interruption::Broken(WireError::Length { have: 262_145, .. }))
        ));

        let (mut one, mut other) = pair();
        one.send(&[0, 0, 0, 9, 1], None).unwrap();
        drop(one);
        assert!(matches!(other.receive(None), Err(Interruption::Closed)));
        assert!(matches!(other.send(&[0], None), Err(Interruption::Closed)));
    }
}
