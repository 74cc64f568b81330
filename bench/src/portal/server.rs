//! What tunnels lead to: swallows streams, or sends everything back.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

use crate::failure::Failure;
use crate::place::Place;

/// A listener and the threads of its connections; each connection says with its first byte what it wants.
pub(crate) struct Server {
    address: SocketAddr,
    place: Place,
    swallowed: Arc<AtomicU64>,
    is_over: Arc<AtomicBool>,
    acceptor: Option<JoinHandle<()>>,
}

/// First byte of a stream that is swallowed. At its end the server says how many bytes it had, big-endian.
pub(crate) const SWALLOW: u8 = b'S';
/// First byte of a stream that comes back without it.
pub(crate) const ECHO: u8 = b'E';

impl Server {
    /// Listens at `address` of a place.
    pub(crate) fn start(place: &Place, address: SocketAddr) -> Result<Self, Failure> {
        let mut server = Self {
            address,
            place: place.clone(),
            swallowed: Arc::default(),
            is_over: Arc::default(),
            acceptor: None,
        };
        server.listen()?;
        Ok(server)
    }

    fn listen(&mut self) -> Result<(), Failure> {
        let listener = self.place.listen(self.address)?;
        self.address = listener.local_addr().map_err(Failure::io("asking for a port"))?;
        self.is_over = Arc::default();
        let (count, over) = (Arc::clone(&self.swallowed), Arc::clone(&self.is_over));
        let acceptor = thread::Builder::new()
            .name("far-end".to_owned())
            .spawn(move || accept(&listener, &count, &over))
            .map_err(Failure::io("starting a thread"))?;
        self.acceptor = Some(acceptor);
        Ok(())
    }

    /// Leaves its address to something else while `act` runs.
    pub(crate) fn make_way<T>(
        &mut self,
        act: impl FnOnce(&Place, SocketAddr) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        self.close();
        let outcome = act(&self.place, self.address);
        self.listen()?;
        outcome
    }

    fn close(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        // Wakes the acceptor; if that cannot be, it ends with the process.
        if let Some(acceptor) = self.acceptor.take()
            && self.place.connect(self.address).is_ok()
        {
            let _ = acceptor.join();
        }
    }

    /// Returns where it listens.
    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns how many bytes were swallowed, over all streams.
    pub(crate) fn swallowed(&self) -> u64 {
        self.swallowed.load(Ordering::Relaxed)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.close();
    }
}

fn accept(listener: &TcpListener, swallowed: &Arc<AtomicU64>, is_over: &AtomicBool) {
    for stream in listener.incoming() {
        if is_over.load(Ordering::Relaxed) {
            return;
        }
        let Ok(stream) = stream else { continue };
        let count = Arc::clone(swallowed);
        // A connection without a thread is closed, which who measures finds out.
        let _ = thread::Builder::new()
            .name("far-stream".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || serve(stream, &count));
    }
}

/// Serves a stream to its end; one that breaks is the business of who measures.
fn serve(mut stream: TcpStream, swallowed: &AtomicU64) {
    let mut wish = [0];
    // Small answers must not wait for others.
    if stream.set_nodelay(true).is_err() || stream.read_exact(&mut wish).is_err() {
        return;
    }
    let [wish] = wish;
    if wish == SWALLOW {
        let mut buffer = vec![0; BULK_BYTES];
        let mut total = 0_u64;
        while let Ok(count @ 1..) = stream.read(&mut buffer) {
            total += count as u64;
            swallowed.fetch_add(count as u64, Ordering::Relaxed);
        }
        let _ = stream.write_all(&total.to_be_bytes());
    } else if wish == ECHO {
        let mut buffer = vec![0; ECHO_BYTES];
        while let Ok(count @ 1..) = stream.read(&mut buffer) {
            if stream.write_all(buffer.get(..count).unwrap_or_default()).is_err() {
                return;
            }
        }
    }
}

/// Bytes of one write and one read of a bulk stream, as `iperf3 -l 64K`.
pub(crate) const BULK_BYTES: usize = 64 << 10;
const ECHO_BYTES: usize = 4 << 10;
/// Enough for a read and a write.
const STACK_BYTES: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::Shutdown;

    use super::{ECHO, SWALLOW, Server};
    use crate::place::Place;

    #[test]
    fn a_stream_gets_what_its_first_byte_wants() {
        let here = Place::here();
        let server = Server::start(&here, ([127, 0, 0, 1], 0).into()).unwrap();
        let mut echo = here.connect(server.address()).unwrap();
        echo.write_all(&[ECHO, 1, 2, 3]).unwrap();
        let mut back = [0; 3];
        echo.read_exact(&mut back).unwrap();
        assert_eq!(back, [1, 2, 3]);
        let mut swallow = here.connect(server.address()).unwrap();
        swallow.write_all(&[SWALLOW]).unwrap();
        swallow.write_all(&[7; 100_000]).unwrap();
        swallow.shutdown(Shutdown::Write).unwrap();
        let mut total = [0; 8];
        swallow.read_exact(&mut total).unwrap();
        assert_eq!(u64::from_be_bytes(total), 100_000);
        assert_eq!(server.swallowed(), 100_000);
    }

    #[test]
    fn another_can_listen_meanwhile() {
        let here = Place::here();
        let mut server = Server::start(&here, ([127, 0, 0, 1], 0).into()).unwrap();
        let address = server.address();
        server
            .make_way(|place, address| place.listen(address).map(drop))
            .unwrap();
        let mut echo = here.connect(address).unwrap();
        echo.write_all(&[ECHO, 5]).unwrap();
        let mut back = [0];
        echo.read_exact(&mut back).unwrap();
        assert_eq!(back, [5]);
    }
}
