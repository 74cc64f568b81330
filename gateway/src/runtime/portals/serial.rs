//! Serial lines that outlets lead to.
//!
//! ```text
//!  stream ═ pair of sockets ═ thread of the line ═ device        (bytes as they are, or telnet with RFC 2217)
//! ```
//!
//! Opening, setting and closing a line may wait for its driver, closing until all has gone out. So each line has a thread, and what
//! the shard sees is a socket: with it a line has the credit, the bounds and the ends of any other stream.

use std::{
    io::{self, Read as _, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    time::Duration,
};

use fieldgate_config::settings::portal::{Rs485, Serial, SerialFlow, SerialParity};
use fieldgate_io::{
    clock,
    terminal::{self, FlowControl, LineSettings, Parity, Terminal},
};
use fieldgate_proto::portal::rfc2217::{
    self, ComPort, ComPortFlow, ComPortLevels, ComPortLine, ComPortParity, ComPortState,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::runtime::StartError;

/// The way to the thread of a line, which ends with this.
pub(super) struct Line {
    streams: SyncSender<UnixStream>,
    failures: Arc<Mutex<Failures>>,
}

/// What went wrong with a line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Failures {
    /// Why the last stream did not get it, or lost it; `None` if it did not.
    pub(super) last: Option<String>,
    pub(super) total: u64,
}

impl Line {
    /// Starts the thread. The device is opened for each stream: it may come and go.
    ///
    /// # Errors
    /// [`StartError`] if there can be no thread.
    pub(super) fn start(device: &Path, settings: Serial) -> Result<Self, StartError> {
        let (streams, waiting) = sync_channel(WAITING_MAX);
        let failures = Arc::default();
        let thread = Worker {
            device: device.to_owned(),
            settings,
            failures: Arc::clone(&failures),
        };
        fieldgate_io::thread::spawn("fg-serial", None, move || thread.run(&waiting))
            .map_err(|error| StartError::file(device, &error))?;
        Ok(Self { streams, failures })
    }

    /// Returns the socket of a stream. Its first byte says that the line is open; its end, that it is not.
    ///
    /// # Errors
    /// The kernel's; `ResourceBusy` if as many wait for it as may.
    pub(super) fn open(&self) -> io::Result<UnixStream> {
        let (near, far) = UnixStream::pair()?;
        let busy = |_| io::Error::from(io::ErrorKind::ResourceBusy);
        self.streams.try_send(far).map_err(busy)?;
        Ok(near)
    }

    /// Returns what went wrong with it.
    pub(super) fn failures(&self) -> Failures {
        self.failures
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// Says how a line is set, as people write it.
pub(super) fn text(device: &Path, line: &Serial) -> String {
    let parity = match line.parity {
        SerialParity::None => 'N',
        SerialParity::Even => 'E',
        SerialParity::Odd => 'O',
    };
    format!(
        "serial:{} {} {}{parity}{}",
        device.display(),
        line.baud,
        line.data_bits,
        line.stop_bits
    )
}

/// What the thread owns.
struct Worker {
    device: PathBuf,
    settings: Serial,
    failures: Arc<Mutex<Failures>>,
}

impl Worker {
    /// Serves one stream after the other, until there can be no more.
    fn run(self, waiting: &Receiver<UnixStream>) {
        while let Ok(socket) = waiting.recv() {
            // The line is closed first, then what went wrong is written down, then the stream ends: whoever comes after it finds the
            // line free.
            let carried = self.open().and_then(|terminal| self.carry(&terminal, &socket));
            let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
            failures.last = None;
            if let Err(error) = carried {
                tracing::warn!(device = %self.device.display(), %error, "serial line lost, or not open");
                failures.total += 1;
                failures.last = Some(error.to_string());
            }
        }
    }

    fn open(&self) -> io::Result<Terminal> {
        let terminal = Terminal::open(&self.device)?;
        terminal.set(&line_settings(&port_state(&self.settings)))?;
        if let Some(rs485) = &self.settings.rs485 {
            terminal.set_rs485(&driver_settings(rs485)).map_err(|error| {
                let kind = error.kind();
                io::Error::new(kind, format!("its driver does not switch RS-485: {error}"))
            })?;
        }
        // What came for nobody is nobody's.
        terminal.purge(true, true)?;
        Ok(terminal)
    }

    /// Carries a stream until it has ended, or the line is lost.
    fn carry(&self, terminal: &Terminal, mut socket: &UnixStream) -> io::Result<()> {
        {
            let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
            failures.last = None;
        }
        if socket.write_all(&[READY]).is_err() || socket.set_nonblocking(true).is_err() {
            // The stream did not wait for the line.
            return Ok(());
        }
        let mut carrier = Carrier::new(terminal, socket, &self.settings);
        let result = carrier.run();
        if result.is_err() || carrier.is_abandoned {
            // Closing waits for what has not gone out; nobody waits for that any more.
            let _ = terminal.purge(true, true);
        }
        result
    }
}

/// A stream and its line.
struct Carrier<'a> {
    socket: &'a UnixStream,
    port: Option<ComPort>,
    end: LineEnd<'a>,
    /// For the stream.
    to_socket: Vec<u8>,
    /// From the line, until it has been silent for a while.
    gathered: Vec<u8>,
    gathered_at: u64,
    /// The stream has no more to say.
    has_ended: bool,
    /// When that was, or when the line said something last.
    ended_at: u64,
    /// The stream is gone.
    is_abandoned: bool,
}

/// The line, as telnet sees it.
struct LineEnd<'a> {
    terminal: &'a Terminal,
    state: ComPortState,
    /// Written by the stream, not taken by the driver.
    to_line: Vec<u8>,
}

impl<'a> Carrier<'a> {
    fn new(terminal: &'a Terminal, socket: &'a UnixStream, settings: &Serial) -> Self {
        let mut to_socket = Vec::new();
        Self {
            socket,
            port: settings.rfc2217.then(|| ComPort::new(&mut to_socket)),
            end: LineEnd {
                terminal,
                state: port_state(settings),
                to_line: Vec::new(),
            },
            to_socket,
            gathered: Vec::new(),
            gathered_at: 0,
            has_ended: false,
            ended_at: 0,
            is_abandoned: false,
        }
    }

    fn run(&mut self) -> io::Result<()> {
        loop {
            let (line, socket) = self.wait()?;
            if line.intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL) {
                return Err(io::Error::new(io::ErrorKind::NotConnected, "the device is gone"));
            }
            if socket.intersects(PollFlags::HUP | PollFlags::ERR) {
                self.is_abandoned = true;
                return Ok(());
            }
            if line.contains(PollFlags::IN) {
                self.read_line()?;
            }
            self.pass_gathered();
            if socket.contains(PollFlags::IN) {
                self.read_socket();
            }
            self.end.write()?;
            self.write_socket();
            if self.is_over() {
                return Ok(());
            }
        }
    }

    /// Waits for either end, or until something is due.
    fn wait(&mut self) -> io::Result<(PollFlags, PollFlags)> {
        let (mut line, mut socket) = (PollFlags::empty(), PollFlags::empty());
        let is_suspended = self.port.as_ref().is_some_and(ComPort::is_suspended);
        line.set(PollFlags::IN, self.to_socket.is_empty() && !is_suspended);
        line.set(PollFlags::OUT, !self.end.to_line.is_empty());
        socket.set(
            PollFlags::IN,
            !self.has_ended && self.end.to_line.is_empty() && self.to_socket.is_empty(),
        );
        socket.set(PollFlags::OUT, !self.to_socket.is_empty());
        if let Some(port) = &mut self.port
            && let Ok(levels) = self.end.terminal.modem_lines()
        {
            let levels = ComPortLevels {
                cts: levels.cts,
                dsr: levels.dsr,
                ri: levels.ri,
                cd: levels.cd,
            };
            port.handle_levels(levels, &mut self.to_socket);
        }
        let now = clock::monotonic();
        let left =
            |since: u64, time: Duration| time.saturating_sub(Duration::from_nanos(now.saturating_sub(since)));
        let mut timeout: Option<Duration> = self.port.is_some().then_some(LEVELS_EVERY);
        if !self.gathered.is_empty() {
            let silence = left(self.gathered_at, silence(&self.end.state));
            timeout = Some(timeout.map_or(silence, |timeout| timeout.min(silence)));
        }
        if self.has_ended {
            let silence = left(self.ended_at, SILENCE_AT_END);
            timeout = Some(timeout.map_or(silence, |timeout| timeout.min(silence)));
        }
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        let mut polled = [
            PollFd::new(self.end.terminal, line),
            PollFd::new(self.socket, socket),
        ];
        match poll(&mut polled, timeout.as_ref()) {
            Ok(_) => {
                let [line, socket] = polled.map(|one| one.revents());
                Ok((line, socket))
            }
            Err(rustix::io::Errno::INTR) => Ok((PollFlags::empty(), PollFlags::empty())),
            Err(error) => Err(error.into()),
        }
    }

    fn read_line(&mut self) -> io::Result<()> {
        let mut buffer = [0; PIECE_MAX];
        let mut terminal = self.end.terminal;
        match terminal.read(&mut buffer) {
            Ok(0) => Err(io::Error::new(io::ErrorKind::NotConnected, "the device is gone")),
            Ok(count) => {
                self.gathered
                    .extend_from_slice(buffer.get(..count).unwrap_or_default());
                self.gathered_at = clock::monotonic();
                self.ended_at = self.gathered_at;
                Ok(())
            }
            Err(error) if is_nothing(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Gives the stream what came from the line, in one piece once the line is silent: frames of Modbus RTU end by silence, and what
    /// goes over a network in pieces would have silences within.
    fn pass_gathered(&mut self) {
        let silent_for = clock::monotonic().saturating_sub(self.gathered_at);
        let is_complete = self.gathered.len() >= GATHERED_MAX
            || Duration::from_nanos(silent_for) >= silence(&self.end.state);
        if self.gathered.is_empty() || !is_complete {
            return;
        }
        match &self.port {
            Some(_) => rfc2217::put_data(&self.gathered, &mut self.to_socket),
            None => self.to_socket.extend_from_slice(&self.gathered),
        }
        self.gathered.clear();
    }

    fn read_socket(&mut self) {
        let mut buffer = [0; PIECE_MAX];
        match self.socket.read(&mut buffer) {
            Ok(0) => {
                self.has_ended = true;
                self.ended_at = clock::monotonic();
            }
            Ok(count) => {
                let bytes = buffer.get(..count).unwrap_or_default();
                match &mut self.port {
                    Some(port) => port.handle_bytes(bytes, &mut self.end, &mut self.to_socket),
                    None => self.end.data(bytes),
                }
            }
            Err(error) if is_nothing(&error) => {}
            Err(_) => self.is_abandoned = true,
        }
    }

    fn write_socket(&mut self) {
        match self.socket.write(&self.to_socket) {
            Ok(count) => drop(self.to_socket.drain(..count)),
            Err(error) if is_nothing(&error) => {}
            Err(_) => self.is_abandoned = true,
        }
    }

    /// Whether there is nothing more to carry: of a line that has said nothing for a while after the stream had ended nothing more is
    /// expected.
    fn is_over(&self) -> bool {
        let silent_for = clock::monotonic().saturating_sub(self.ended_at);
        let is_silent = Duration::from_nanos(silent_for) >= SILENCE_AT_END;
        let has_all = self.end.to_line.is_empty() && self.to_socket.is_empty() && self.gathered.is_empty();
        self.is_abandoned || (self.has_ended && is_silent && has_all)
    }
}

impl LineEnd<'_> {
    /// Gives the driver what it takes.
    fn write(&mut self) -> io::Result<()> {
        let mut terminal = self.terminal;
        while !self.to_line.is_empty() {
            match terminal.write(&self.to_line) {
                Ok(count) => drop(self.to_line.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Waits until what was written has gone out, or would have long ago.
    fn drain(&mut self) {
        let begin = clock::monotonic();
        while Duration::from_nanos(clock::monotonic().saturating_sub(begin)) < DRAIN_TIME_MAX {
            // A line that is lost is noticed by whoever reads it.
            if self.write().is_err() {
                return;
            }
            if self.to_line.is_empty() && self.terminal.unsent().unwrap_or(0) == 0 {
                return;
            }
            // The kernel tells nobody when the last bit has gone, but to whoever waits for as long as it takes.
            let pause = Timespec::try_from(DRAIN_PAUSE).ok();
            let _ = poll(&mut [], pause.as_ref());
        }
    }
}

impl ComPortLine for LineEnd<'_> {
    fn data(&mut self, bytes: &[u8]) {
        self.to_line.extend_from_slice(bytes);
    }

    fn state(&self) -> ComPortState {
        self.state
    }

    fn set(&mut self, wanted: ComPortState) {
        self.drain();
        let (terminal, before) = (self.terminal, self.state);
        if line_settings(&wanted) != line_settings(&before)
            && let Ok(baud) = terminal.set(&line_settings(&wanted))
        {
            self.state = ComPortState {
                baud,
                dtr: before.dtr,
                rts: before.rts,
                is_break: before.is_break,
                ..wanted
            };
        }
        if wanted.dtr != before.dtr && terminal.set_dtr(wanted.dtr).is_ok() {
            self.state.dtr = wanted.dtr;
        }
        if wanted.rts != before.rts && terminal.set_rts(wanted.rts).is_ok() {
            self.state.rts = wanted.rts;
        }
        if wanted.is_break != before.is_break && terminal.set_break(wanted.is_break).is_ok() {
            self.state.is_break = wanted.is_break;
        }
    }

    fn purge(&mut self, received: bool, to_send: bool) {
        if to_send {
            self.to_line.clear();
        }
        // A line that is lost is noticed by whoever reads it.
        let _ = self.terminal.purge(received, to_send);
    }
}

fn is_nothing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}

const fn port_state(settings: &Serial) -> ComPortState {
    ComPortState {
        baud: settings.baud,
        data_bits: settings.data_bits,
        parity: match settings.parity {
            SerialParity::None => ComPortParity::None,
            SerialParity::Even => ComPortParity::Even,
            SerialParity::Odd => ComPortParity::Odd,
        },
        stop_bits: settings.stop_bits,
        flow: match settings.flow_control {
            SerialFlow::None => ComPortFlow::None,
            SerialFlow::RtsCts => ComPortFlow::RtsCts,
            SerialFlow::XonXoff => ComPortFlow::XonXoff,
        },
        // The kernel raises both when it opens a line.
        dtr: true,
        rts: true,
        is_break: false,
    }
}

const fn line_settings(state: &ComPortState) -> LineSettings {
    LineSettings {
        baud: state.baud,
        data_bits: state.data_bits,
        parity: match state.parity {
            ComPortParity::None => Parity::None,
            ComPortParity::Odd => Parity::Odd,
            ComPortParity::Even => Parity::Even,
        },
        stop_bits: state.stop_bits,
        flow: match state.flow {
            ComPortFlow::None => FlowControl::None,
            ComPortFlow::XonXoff => FlowControl::XonXoff,
            ComPortFlow::RtsCts => FlowControl::RtsCts,
        },
    }
}

fn driver_settings(rs485: &Rs485) -> terminal::Rs485 {
    let millis = |time: Duration| u32::try_from(time.as_millis()).unwrap_or(u32::MAX);
    terminal::Rs485 {
        rts_on_send: rs485.rts_on_send,
        delay_before_millis: millis(rs485.delay_before),
        delay_after_millis: millis(rs485.delay_after),
    }
}

/// How long a line is silent between two frames: three and a half characters, and 1.75 ms from 19,200 baud on (Modbus over serial
/// line 1.02 §2.5.1.1).
fn silence(state: &ComPortState) -> Duration {
    let parity = u32::from(state.parity != ComPortParity::None);
    let bits = 1 + u32::from(state.data_bits) + parity + u32::from(state.stop_bits);
    let character = Duration::from_secs(1) * bits / state.baud.max(1);
    (character * 7 / 2).max(Duration::from_micros(1_750))
}

/// What a socket says first when the line is open.
pub(super) const READY: u8 = 1;
/// Streams that wait for the line.
pub(super) const WAITING_MAX: usize = 8;
/// Bytes taken at once from either end.
const PIECE_MAX: usize = 4_096;
/// Bytes from the line that are passed on though it goes on: a frame of Modbus RTU has no more.
const GATHERED_MAX: usize = 256;
/// How long a line has to be silent, after the stream has ended, until nothing more is expected.
const SILENCE_AT_END: Duration = Duration::from_secs(1);
/// Between two looks at the lines from the other side: the kernel tells of changes only whoever waits for nothing else.
const LEVELS_EVERY: Duration = Duration::from_millis(100);
/// Longest time that a change of settings waits for what is to go out before.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(1);
const DRAIN_PAUSE: Duration = Duration::from_millis(2);

#[cfg(test)]
mod tests {
    use super::*;

    const MODBUS: Serial = Serial {
        baud: 9_600,
        data_bits: 8,
        parity: SerialParity::Even,
        stop_bits: 1,
        flow_control: SerialFlow::None,
        rs485: None,
        rfc2217: false,
    };

    #[test]
    fn silence_between_frames_is_that_of_modbus() {
        let at = |baud| {
            silence(&ComPortState {
                baud,
                ..port_state(&MODBUS)
            })
        };
        // Eleven bits for each character.
        assert_eq!(at(9_600).as_micros(), 4_010);
        assert_eq!(at(1_200).as_micros(), 32_083);
        assert_eq!(at(115_200).as_micros(), 1_750);
    }

    #[test]
    fn a_line_is_written_as_people_write_it() {
        assert_eq!(
            text(Path::new("/dev/ttyS0"), &MODBUS),
            "serial:/dev/ttyS0 9600 8E1"
        );
    }

    #[test]
    fn a_line_that_is_not_there_ends_the_stream_and_says_so() {
        let dir = tempfile::tempdir().expect("room for a directory");
        let line = Line::start(&dir.path().join("ttyX"), MODBUS).expect("a thread");
        for count in 1..=2 {
            let mut socket = line.open().expect("a pair of sockets");
            let mut all = Vec::new();
            socket.read_to_end(&mut all).expect("it ends");
            assert!(all.is_empty());
            let failures = line.failures();
            assert_eq!(failures.total, count);
            assert!(failures.last.is_some_and(|text| text.contains("No such file")));
        }
    }
}
