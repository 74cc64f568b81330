//! Serial lines behind an outlet: pseudo-terminals are the devices.

use std::{
    fs::File,
    os::{fd::OwnedFd, unix::fs::symlink},
    path::{Path, PathBuf},
    process::Command,
};

use rustix::{pty, termios};

use super::*;
use crate::harness::process::{Process, command};

/// A device on a line, which answers each frame of eight bytes.
struct Device {
    /// The far end of the line; the device goes with it.
    line: OwnedFd,
    /// What the node opens.
    path: PathBuf,
}

impl Device {
    fn new() -> Self {
        // No node that the test starts may hold it too.
        let flags = pty::OpenptFlags::RDWR | pty::OpenptFlags::NOCTTY | pty::OpenptFlags::CLOEXEC;
        let line = pty::openpt(flags).expect("devpts is mounted");
        pty::grantpt(&line).expect("it is ours");
        pty::unlockpt(&line).expect("it is ours");
        let name = pty::ptsname(&line, Vec::new()).expect("it has one");
        let path = PathBuf::from(name.into_string().expect("it is plain text"));
        Self { line, path }
    }

    /// Makes it the one that `link` names.
    fn plug_in(&self, link: &Path) {
        let _ = std::fs::remove_file(link);
        symlink(&self.path, link).expect("the directory is ours");
    }

    fn file(&self) -> File {
        self.line.try_clone().expect("descriptors are left").into()
    }

    /// Takes one request of Modbus RTU for holding registers and answers it.
    fn answer(&self) {
        let mut line = self.file();
        let (mut request, mut come) = ([0; 8], 0);
        until("a request comes", || {
            // While nobody has the near end open there is nothing to be read from.
            come += line
                .read(&mut request[come..])
                .map_err(|error| error.to_string())?;
            if come == request.len() {
                Ok(())
            } else {
                Err(format!("{come} bytes"))
            }
        });
        assert_eq!(crc(&request), 0, "{request:?} is whole");
        let count = request[5];
        let mut answer = vec![request[0], request[1], 2 * count];
        answer.extend((0..count).flat_map(|register| [0xff, register]));
        answer.extend(crc(&answer).to_le_bytes());
        line.write_all(&answer).expect("the line takes it");
    }
}

/// CRC of a frame (Modbus over serial line 1.02 §6.2.2); 0 of a frame that ends in its own.
fn crc(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0xffff, |crc, byte| {
        (0..8).fold(crc ^ u16::from(*byte), |crc, _| {
            if crc & 1 == 1 { crc >> 1 ^ 0xa001 } else { crc >> 1 }
        })
    })
}

/// Asks device 7 for three registers, and checks what it says.
fn ask(device: &Device, client: &mut TcpStream) {
    let mut request = vec![7, 3, 0, 0, 0, 3];
    request.extend(crc(&request).to_le_bytes());
    client.write_all(&request).expect("the stream takes it");
    device.answer();
    let mut answer = [0; 11];
    client.read_exact(&mut answer).expect("an answer comes");
    assert_eq!(answer[..9], [7, 3, 6, 0xff, 0, 0xff, 1, 0xff, 2]);
    assert_eq!(crc(&answer), 0, "{answer:?} is whole");
}

/// Starts nodes with an inlet `meters` that leads to the line that `link` names.
fn with_line(link: &Path, more: &str) -> Portals {
    let mut portals = Portals::new(ports::free());
    portals.add_outlet(
        "meters",
        &format!(
            "address = \"serial:{}\"\nserial = {{ baud = 19200{more} }}",
            link.display()
        ),
    );
    portals.add_inlet("meters", "meters", "");
    portals.start();
    portals
}

#[test]
fn a_line_of_modbus_is_for_one_client_and_may_come_and_go() {
    let dir = private_dir();
    let link = dir.path().join("line");
    let device = Device::new();
    device.plug_in(&link);
    let mut portals = with_line(&link, ", parity = \"even\"");
    let mut first = portals.connect("meters");
    ask(&device, &mut first);
    let modes = termios::tcgetattr(&device.line).expect("it is a terminal");
    assert_eq!(modes.input_speed(), 19_200);
    assert!(!modes.local_modes.contains(termios::LocalModes::ECHO));
    // The second one waits a moment for the first, and is refused.
    wait_reset(&mut portals.connect("meters"));
    let line = portals.hall.process().wait_for_text("portal stream refused");
    assert!(line.contains("reason=\"limit\""), "{line}");
    ask(&device, &mut first);
    // What is still on its way gets to the first, and whoever comes after it gets the line.
    device.file().write_all(b"late").expect("the line takes it");
    first.shutdown(Shutdown::Write).expect("it is open");
    let mut rest = Vec::new();
    first.read_to_end(&mut rest).expect("it ends");
    assert_eq!(rest, b"late");
    let mut third = portals.connect("meters");
    ask(&device, &mut third);
    // The device is gone: so is the stream, and there is no other. Its name may be that of another device any moment.
    std::fs::remove_file(&link).expect("the directory is ours");
    drop(device);
    wait_reset(&mut third);
    wait_reset(&mut portals.connect("meters"));
    let listed = Portals::portal(&portals.hall, "outlets", "meters");
    assert!(listed["line"]["failure"].is_string(), "{listed:#}");
    let again = Device::new();
    again.plug_in(&link);
    let mut fourth = portals.connect("meters");
    ask(&again, &mut fourth);
    let listed = Portals::portal(&portals.hall, "outlets", "meters");
    assert_eq!(listed["line"], serde_json::json!({ "failures": 2 }));
    assert_eq!(listed["streams"], 1);
    assert!(
        portals
            .hall
            .run(&["portal", "list"])
            .expect(0)
            .out
            .contains("19200 8E1"),
        "the line is shown as it is set"
    );
    let failures = portals.hall.samples().sum("fieldgate_portal_line_failures_total");
    assert!(failures > 1.0, "{failures}");
}

/// A line that is set to something else, what was written is given back as it came.
fn wait_speed(device: &Device, baud: u32) {
    until("the line is set", || {
        let modes = termios::tcgetattr(&device.line).map_err(|error| error.to_string())?;
        match modes.output_speed() {
            speed if speed == baud => Ok(()),
            speed => Err(format!("{speed} baud")),
        }
    });
}

#[test]
fn a_stock_client_sets_the_line_over_telnet() {
    let dir = private_dir();
    let link = dir.path().join("line");
    let device = Device::new();
    device.plug_in(&link);
    let portals = with_line(&link, ", rfc2217 = true");
    let port = portals
        .inlets
        .iter()
        .find(|(name, _)| *name == "meters")
        .expect("it was added")
        .1;
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = here.join("../target/python/bin/python");
    assert!(
        python.exists(),
        "{} is missing: run `cargo xtask setup`, which installs pyserial there",
        python.display()
    );
    let mut client: Command = command(&[python.to_str().expect("the path is text")]);
    client
        .arg(here.join("tests/it/serial_port.py"))
        .arg(port.to_string());
    let (mut client, until_here) = Process::spawn_with_input("serial port", &mut client);
    client.wait_for_text("open");
    wait_speed(&device, 4_800);
    let modes = termios::tcgetattr(&device.line).expect("it is a terminal");
    assert!(modes.control_modes.contains(termios::ControlModes::CSTOPB));
    let mut line = device.file();
    let mut all = [0; 256];
    line.read_exact(&mut all).expect("every byte comes");
    assert!(all.iter().zip(0..=u8::MAX).all(|(byte, place)| *byte == place));
    line.write_all(&all).expect("the line takes it");
    client.wait_for_text("set");
    wait_speed(&device, 57_600);
    drop(until_here);
    assert!(client.wait().success(), "{}", client.printed());
}
