//! Serial lines: terminals of the kernel as lines that carry plain bytes.
#![expect(
    unsafe_code,
    reason = "requests to a terminal's driver; every function here upholds the contract of the one it makes"
)]

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{self, Read, Write},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, AsRawFd as _, BorrowedFd},
        unix::fs::OpenOptionsExt as _,
    },
    path::Path,
};

use rustix::termios::{
    self, ControlModes, InputModes, LocalModes, OptionalActions, OutputModes, QueueSelector, SpecialCodeIndex,
};

/// Whether and how each byte carries a bit to check it by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Parity {
    /// It carries none.
    #[default]
    None,
    /// The number of ones is odd.
    Odd,
    /// The number of ones is even.
    Even,
}

/// Who may hold up the bytes that come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FlowControl {
    /// Nobody.
    #[default]
    None,
    /// The lines RTS and CTS.
    RtsCts,
    /// The bytes XON and XOFF, which are then no data.
    XonXoff,
}

/// How bytes stand on a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LineSettings {
    /// Bits per second.
    pub baud: u32,
    /// Bits of a byte, 5 to 8.
    pub data_bits: u8,
    /// The bit to check them by.
    pub parity: Parity,
    /// Bits between two bytes, 1 or 2.
    pub stop_bits: u8,
    /// Who may hold up the bytes.
    pub flow: FlowControl,
}

/// How the driver switches a line of RS-485 between sending and receiving.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rs485 {
    /// Level of RTS while this side sends; the other one otherwise.
    pub rts_on_send: bool,
    /// Milliseconds from switching to the first bit.
    pub delay_before_millis: u32,
    /// Milliseconds from the last bit to switching back.
    pub delay_after_millis: u32,
}

/// Levels of the lines that come from the other side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ModemLines {
    /// Clear to send.
    pub cts: bool,
    /// Data set ready.
    pub dsr: bool,
    /// Ring indicator.
    pub ri: bool,
    /// Carrier detect.
    pub cd: bool,
}

/// An open serial line; reading and writing do not wait.
///
/// Opening, setting and closing may wait for the driver, closing until what was written has gone out: up to half a minute. So it is
/// not for the thread of a shard.
#[derive(Debug)]
pub struct Terminal(File);

impl Terminal {
    /// Opens the line at `path` for this process alone, in raw form: no echo, no lines, no signals, no byte changed.
    ///
    /// # Errors
    /// `ResourceBusy` when another process has it; `InvalidInput` when something else than a terminal is there; the kernel's.
    pub fn open(path: &Path) -> io::Result<Self> {
        let flags = libc::O_NOCTTY | libc::O_NONBLOCK;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(flags)
            .open(path)?;
        if !termios::isatty(&file) {
            let error = "what is there is no serial line";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, error));
        }
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(io::Error::new(
                    io::ErrorKind::ResourceBusy,
                    "another process has locked it",
                ));
            }
            Err(TryLockError::Error(error)) => return Err(error),
        }
        // Whoever does not look at locks is kept out too, but for root.
        termios::ioctl_tiocexcl(&file)?;
        Ok(Self(file))
    }

    /// Sets how bytes stand on the line. What is on its way is not waited for. Returns the baud rate that the driver has made of it.
    ///
    /// # Errors
    /// `InvalidInput` for numbers out of range; the kernel's, when the driver cannot do it.
    pub fn set(&self, line: &LineSettings) -> io::Result<u32> {
        let size = match line.data_bits {
            5 => ControlModes::CS5,
            6 => ControlModes::CS6,
            7 => ControlModes::CS7,
            8 => ControlModes::CS8,
            _ => return Err(io::ErrorKind::InvalidInput.into()),
        };
        let mut terminal = termios::tcgetattr(&self.0)?;
        terminal.make_raw();
        terminal.output_modes.remove(OutputModes::OPOST);
        terminal.local_modes.remove(LocalModes::ICANON);
        let modes = &mut terminal.control_modes;
        modes.remove(
            ControlModes::CSIZE
                | ControlModes::PARENB
                | ControlModes::PARODD
                | ControlModes::CMSPAR
                | ControlModes::CSTOPB
                | ControlModes::CRTSCTS,
        );
        modes.insert(size | ControlModes::CREAD | ControlModes::CLOCAL);
        modes.set(ControlModes::PARENB, line.parity != Parity::None);
        modes.set(ControlModes::PARODD, line.parity == Parity::Odd);
        modes.set(ControlModes::CSTOPB, line.stop_bits == 2);
        modes.set(ControlModes::CRTSCTS, line.flow == FlowControl::RtsCts);
        let inputs = &mut terminal.input_modes;
        inputs.remove(InputModes::IXON | InputModes::IXOFF | InputModes::IXANY);
        // A byte that is wrong is left out: a frame with a hole is refused by its checksum, one with another byte perhaps not.
        inputs.set(InputModes::INPCK, line.parity != Parity::None);
        inputs.insert(InputModes::IGNPAR | InputModes::IGNBRK);
        if line.flow == FlowControl::XonXoff {
            inputs.insert(InputModes::IXON | InputModes::IXOFF);
        }
        terminal.special_codes[SpecialCodeIndex::VMIN] = 1;
        terminal.special_codes[SpecialCodeIndex::VTIME] = 0;
        terminal.set_speed(line.baud)?;
        termios::tcsetattr(&self.0, OptionalActions::Now, &terminal)?;
        Ok(termios::tcgetattr(&self.0)?.output_speed())
    }

    /// Has the driver switch a line of RS-485.
    ///
    /// # Errors
    /// The kernel's: most drivers cannot do it (`ENOTTY`).
    pub fn set_rs485(&self, rs485: &Rs485) -> io::Result<()> {
        let level = if rs485.rts_on_send {
            RS485_RTS_ON_SEND
        } else {
            RS485_RTS_AFTER_SEND
        };
        let mut request = KernelRs485 {
            flags: RS485_ENABLED | level,
            delay_before_send: rs485.delay_before_millis,
            delay_after_send: rs485.delay_after_millis,
            padding: [0; 5],
        };
        // SAFETY: the structure is the kernel's `serial_rs485`, which the request reads and writes and no more.
        check(unsafe { libc::ioctl(self.descriptor(), TIOCSRS485, &raw mut request) })
    }

    /// Returns the levels of the lines from the other side.
    ///
    /// # Errors
    /// The kernel's: a pseudo-terminal has none.
    pub fn modem_lines(&self) -> io::Result<ModemLines> {
        let mut bits = MaybeUninit::<libc::c_int>::zeroed();
        // SAFETY: the request writes one integer.
        check(unsafe { libc::ioctl(self.descriptor(), libc::TIOCMGET, bits.as_mut_ptr()) })?;
        // SAFETY: it began as zero, which is valid.
        let bits = unsafe { bits.assume_init() };
        Ok(ModemLines {
            cts: bits & libc::TIOCM_CTS != 0,
            dsr: bits & libc::TIOCM_DSR != 0,
            ri: bits & libc::TIOCM_RI != 0,
            cd: bits & libc::TIOCM_CD != 0,
        })
    }

    /// Sets the line DTR.
    ///
    /// # Errors
    /// The kernel's: a pseudo-terminal has none.
    pub fn set_dtr(&self, level: bool) -> io::Result<()> {
        self.set_modem(libc::TIOCM_DTR, level)
    }

    /// Sets the line RTS.
    ///
    /// # Errors
    /// The kernel's: a pseudo-terminal has none.
    pub fn set_rts(&self, level: bool) -> io::Result<()> {
        self.set_modem(libc::TIOCM_RTS, level)
    }

    fn set_modem(&self, bits: libc::c_int, level: bool) -> io::Result<()> {
        let request = if level { libc::TIOCMBIS } else { libc::TIOCMBIC };
        // SAFETY: the request reads one integer, which lives until it is done.
        check(unsafe { libc::ioctl(self.descriptor(), request, &raw const bits) })
    }

    /// Begins or ends a break: the line is held at zero.
    ///
    /// # Errors
    /// The kernel's, when the driver cannot do it.
    pub fn set_break(&self, on: bool) -> io::Result<()> {
        let request = if on { libc::TIOCSBRK } else { libc::TIOCCBRK };
        // SAFETY: the request has no argument.
        check(unsafe { libc::ioctl(self.descriptor(), request) })
    }

    /// Throws away what has come and was not read, what was written and has not gone out, or both.
    ///
    /// # Errors
    /// The kernel's, when the device is gone.
    pub fn purge(&self, received: bool, written: bool) -> io::Result<()> {
        let queue = match (received, written) {
            (false, false) => return Ok(()),
            (true, false) => QueueSelector::IFlush,
            (false, true) => QueueSelector::OFlush,
            (true, true) => QueueSelector::IOFlush,
        };
        Ok(termios::tcflush(&self.0, queue)?)
    }

    /// Returns how many bytes were written and are still with the driver.
    ///
    /// # Errors
    /// The kernel's, when the device is gone.
    pub fn unsent(&self) -> io::Result<usize> {
        let mut count = MaybeUninit::<libc::c_int>::zeroed();
        // SAFETY: the request writes one integer.
        check(unsafe { libc::ioctl(self.descriptor(), libc::TIOCOUTQ, count.as_mut_ptr()) })?;
        // SAFETY: it began as zero, which is valid.
        let count = unsafe { count.assume_init() };
        Ok(usize::try_from(count).unwrap_or(0))
    }

    fn descriptor(&self) -> libc::c_int {
        self.0.as_raw_fd()
    }
}

impl AsFd for Terminal {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Read for &Terminal {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (&self.0).read(buffer)
    }
}

impl Write for &Terminal {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (&self.0).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Turns the kernel's −1 into the error it left behind.
fn check(result: libc::c_int) -> io::Result<()> {
    if result == -1 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// `serial_rs485` of the kernel.
#[repr(C)]
struct KernelRs485 {
    flags: u32,
    delay_before_send: u32,
    delay_after_send: u32,
    padding: [u32; 5],
}

/// `SER_RS485_ENABLED`, `SER_RS485_RTS_ON_SEND`, `SER_RS485_RTS_AFTER_SEND`.
const RS485_ENABLED: u32 = 1;
const RS485_RTS_ON_SEND: u32 = 2;
const RS485_RTS_AFTER_SEND: u32 = 4;
/// Number of the request on every machine but Alpha, MIPS, PowerPC and SPARC, where the kernel refuses this one.
const TIOCSRS485: libc::Ioctl = 0x542f;

#[cfg(test)]
mod tests {
    use rustix::{fs::OFlags, pty};

    use super::*;

    const LINE: LineSettings = LineSettings {
        baud: 19_200,
        data_bits: 8,
        parity: Parity::Even,
        stop_bits: 1,
        flow: FlowControl::None,
    };

    /// Makes a pseudo-terminal: the far end, and the path of the near one.
    fn pair() -> (File, std::path::PathBuf) {
        let far = pty::openpt(pty::OpenptFlags::RDWR | pty::OpenptFlags::NOCTTY).expect("devpts is mounted");
        pty::grantpt(&far).expect("it is ours");
        pty::unlockpt(&far).expect("it is ours");
        let name = pty::ptsname(&far, Vec::new()).expect("it has one");
        let near = std::path::PathBuf::from(name.into_string().expect("it is plain text"));
        // Nothing of the terminal's manners before the line is set.
        let flags = rustix::fs::fcntl_getfl(&far).expect("it is open");
        rustix::fs::fcntl_setfl(&far, flags - OFlags::NONBLOCK).expect("it is open");
        (File::from(far), near)
    }

    #[test]
    fn a_line_carries_every_byte_as_it_is() {
        let (mut far, path) = pair();
        let near = Terminal::open(&path).expect("it is there");
        assert_eq!(near.set(&LINE).expect("every rate is one"), 19_200);
        let all: Vec<u8> = (0..=u8::MAX).collect();
        assert_eq!((&near).write(&all).expect("there is room"), all.len());
        let mut came = vec![0; all.len()];
        far.read_exact(&mut came).expect("it comes");
        assert_eq!(came, all);
        let empty = (&near)
            .read(&mut [0; 8])
            .expect_err("nothing has come, and no echo");
        assert_eq!(empty.kind(), io::ErrorKind::WouldBlock);
        far.write_all(b"\r\n\x03\x04\x11\x13").expect("it takes it");
        let mut polled = [rustix::event::PollFd::new(&near, rustix::event::PollFlags::IN)];
        rustix::event::poll(&mut polled, None).expect("it comes");
        let mut back = [0; 16];
        let count = (&near).read(&mut back).expect("it has come");
        assert_eq!(&back[..count], b"\r\n\x03\x04\x11\x13");
    }

    #[test]
    fn a_line_is_for_one() {
        let (_far, path) = pair();
        let near = Terminal::open(&path).expect("it is there");
        let error = Terminal::open(&path).expect_err("it has it");
        assert_eq!(error.kind(), io::ErrorKind::ResourceBusy);
        drop(near);
        let _ = Terminal::open(&path).expect("it is free again");
    }

    #[test]
    fn what_is_no_line_is_said() {
        let error = Terminal::open(Path::new("/dev/null")).expect_err("it is no terminal");
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        let error = Terminal::open(Path::new("/dev/no-such-line")).expect_err("it is not there");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        let (_far, path) = pair();
        let near = Terminal::open(&path).expect("it is there");
        assert!(near.modem_lines().is_err(), "a pseudo-terminal has none");
        let rs485 = Rs485 {
            rts_on_send: true,
            delay_before_millis: 0,
            delay_after_millis: 0,
        };
        assert!(
            near.set_rs485(&rs485).is_err(),
            "nor has it a driver that switches"
        );
        let error = near
            .set(&LineSettings { data_bits: 9, ..LINE })
            .expect_err("there are no more than eight");
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        near.purge(true, true).expect("it is open");
        assert_eq!(near.unsent().expect("it is open"), 0);
    }
}
