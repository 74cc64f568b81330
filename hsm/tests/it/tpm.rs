//! A software TPM with tpm2-pkcs11, as a real gateway's TPM would be used: behind a resource manager.
//!
//! ```text
//!  this process ── libtpm2_pkcs11 ── D-Bus of its own ── tpm2-abrmd ── socket ── swtpm ── state
//!               └─────────────────── fieldgate_hsm::tpm ───────────────┘
//! ```
//! swtpm is ready when the command that starts it returns. The bus starts the resource manager when somebody asks for
//! it, and the question waits for its answer; so nothing here waits for a moment that could be too short.

use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{PidfdFlags, Signal, kill_process, pidfd_open};

use crate::softhsm::find;
use crate::suite::{Bench, TokenUnderTest, end, identity_suite, path_text, pid_of, run, tool};

mod lockout;

/// swtpm, resource manager and their bus.
pub(crate) struct Tpm {
    directory: PathBuf,
    bus: Child,
}

impl TokenUnderTest for Tpm {
    const HAS_ED25519: bool = false;
    // tpm2-pkcs11 1.9 takes `CKA_DECRYPT` = false and reports true; it has no mechanism that would decrypt with an EC key.
    const USAGE: &'static str = "decrypt, sign";
    const IS_REMOVABLE: bool = true;

    fn real_module() -> PathBuf {
        find("libtpm2_pkcs11.so", &["pkcs11", ""])
    }

    fn environment(directory: &Path) -> Vec<(&'static str, OsString)> {
        let bus = format!("unix:path={}", directory.join("bus").display());
        vec![
            ("TPM2_PKCS11_STORE", directory.join("store").into()),
            ("TPM2_PKCS11_TCTI", "tabrmd:bus_type=session".into()),
            ("DBUS_SESSION_BUS_ADDRESS", bus.into()),
        ]
    }

    fn start(directory: &Path) -> Self {
        for name in ["state", "store", "services"] {
            fs::create_dir(directory.join(name)).unwrap();
        }
        power_on(directory);
        write_service(directory);
        let bus = start_bus(directory);
        start_resource_manager();
        let directory = directory.to_owned();
        Self { directory, bus }
    }

    /// The power goes and comes, in good order.
    fn reset(bench: &mut Bench<Self>) {
        fieldgate_hsm::tpm::shutdown_orderly(&socket(&bench.directory)).unwrap();
        bench.token.cut_power();
        bench.token.power_on();
    }

    fn unplug(bench: &mut Bench<Self>) {
        fieldgate_hsm::tpm::shutdown_orderly(&socket(&bench.directory)).unwrap();
        bench.token.cut_power();
    }

    fn plug_in(bench: &mut Bench<Self>) {
        // What has been asked for meanwhile has started a resource manager without a TPM.
        bench.token.end_resource_manager();
        bench.token.power_on();
    }

    /// Wrong tries until the TPM itself refuses.
    fn lock_pin(bench: &mut Bench<Self>) -> PathBuf {
        let module = Self::real_module();
        let attempt = [
            "--module",
            path_text(&module),
            "--token-label",
            crate::softhsm::TOKEN,
            "--login",
            "--pin",
            "000000",
            "--list-objects",
        ];
        let tries = fieldgate_hsm::tpm::read(&socket(&bench.directory))
            .unwrap()
            .tries_max;
        for _ in 0..tries {
            assert!(!run("pkcs11-tool", &attempt).status.success());
        }
        let state = fieldgate_hsm::tpm::read(&socket(&bench.directory)).unwrap();
        assert!(state.in_lockout, "{state:?}");
        module
    }
}

impl Tpm {
    /// Takes the power away without a word. The resource manager goes with it, as it would with the machine.
    fn cut_power(&mut self) {
        kill_and_wait(&self.directory.join("swtpm.pid"));
        self.end_resource_manager();
    }

    /// Gives it power again, and starts the resource manager.
    fn power_on(&self) {
        power_on(&self.directory);
        start_resource_manager();
    }

    /// Ends the resource manager, if there is one, and lets the bus notice.
    fn end_resource_manager(&mut self) {
        kill_and_wait(&self.directory.join("abrmd.pid"));
        // The bus sees the end of an old connection before it answers on a new one.
        let mut connection = UnixStream::connect(self.directory.join("bus")).unwrap();
        let user: String = rustix::process::geteuid()
            .as_raw()
            .to_string()
            .bytes()
            .map(|digit| format!("{digit:02x}"))
            .collect();
        write!(connection, "\0AUTH EXTERNAL {user}\r\n").unwrap();
        let mut answer = [0; 2];
        connection.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"OK");
    }
}

impl Drop for Tpm {
    fn drop(&mut self) {
        for name in ["swtpm.pid", "abrmd.pid"] {
            end(&self.directory.join(name));
        }
        let _ = self.bus.kill();
        let _ = self.bus.wait();
        let _ = fs::remove_file(self.directory.join("bus.pid"));
    }
}

/// The socket that takes TPM commands.
pub(crate) fn socket(directory: &Path) -> PathBuf {
    directory.join("tpm")
}

/// Starts swtpm on the state that is there; it listens when this returns.
fn power_on(directory: &Path) {
    let name = |file: &str| directory.join(file).display().to_string();
    let arguments = [
        "socket",
        "--tpm2",
        "--daemon",
        "--tpmstate",
        &format!("dir={}", name("state")),
        "--server",
        &format!("type=unixio,path={}", socket(directory).display()),
        "--ctrl",
        &format!("type=unixio,path={}.ctrl", socket(directory).display()),
        "--flags",
        "not-need-init,startup-clear",
        "--pid",
        &format!("file={}", name("swtpm.pid")),
        "--log",
        &format!("file={}", name("swtpm.log")),
    ];
    tool("swtpm", &arguments);
}

/// Tells the bus how to start the resource manager.
fn write_service(directory: &Path) {
    let script = format!(
        "#!/bin/sh\necho $$ > {directory}/abrmd.pid\n\
         exec tpm2-abrmd --session --allow-root --tcti=swtpm:path={socket}\n",
        directory = directory.display(),
        socket = socket(directory).display(),
    );
    let path = directory.join("abrmd.sh");
    fs::write(&path, script).unwrap();
    let service = format!(
        "[D-BUS Service]\nName=com.intel.tss2.Tabrmd\nExec=/bin/sh {}\n",
        path.display()
    );
    fs::write(
        directory.join("services").join("com.intel.tss2.Tabrmd.service"),
        service,
    )
    .unwrap();
}

/// Has the bus start the resource manager, and asks it until it shows its object: it takes its name a moment before, and
/// a program that asks in between gets an error.
fn start_resource_manager() {
    let question = [
        "--print-reply",
        "--dest=com.intel.tss2.Tabrmd",
        "/com/intel/tss2/Tabrmd/Tcti",
        "org.freedesktop.DBus.Introspectable.Introspect",
    ];
    let shows = || {
        let answer = run("dbus-send", &question);
        String::from_utf8_lossy(&answer.stdout).contains("CreateConnection")
    };
    assert!((0..1000).any(|_| shows()), "tpm2-abrmd does not start");
}

/// Starts a bus for this test alone; it listens when this returns.
fn start_bus(directory: &Path) -> Child {
    let configuration = format!(
        "<!DOCTYPE busconfig PUBLIC \"-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN\"\n \
         \"http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd\">\n<busconfig>\n<type>session</type>\n\
         <listen>unix:path={directory}/bus</listen>\n<pidfile>{directory}/bus.pid</pidfile>\n<auth>EXTERNAL</auth>\n\
         <servicedir>{directory}/services</servicedir>\n<policy context=\"default\">\n\
         <allow send_destination=\"*\" eavesdrop=\"true\"/>\n<allow eavesdrop=\"true\"/>\n<allow own=\"*\"/>\n</policy>\n</busconfig>\n",
        directory = directory.display()
    );
    let path = directory.join("bus.conf");
    fs::write(&path, configuration).unwrap();
    let mut bus = Command::new("dbus-daemon")
        .arg(format!("--config-file={}", path.display()))
        .args(["--nofork", "--nosyslog", "--print-address=1"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| {
            panic!("dbus-daemon: {error}; install what the tests need: cargo xtask setup")
        });
    let mut address = String::new();
    BufReader::new(bus.stdout.take().unwrap())
        .read_line(&mut address)
        .unwrap();
    assert!(
        address.starts_with("unix:path="),
        "the bus did not start: {address}"
    );
    bus
}

/// Kills a daemon and waits until it is gone: its files and its lock on the state are free then.
fn kill_and_wait(file: &Path) {
    let Some(pid) = pid_of(file) else {
        return;
    };
    if let Ok(handle) = pidfd_open(pid, PidfdFlags::empty()) {
        let _ = kill_process(pid, Signal::KILL);
        poll(&mut [PollFd::new(&handle, PollFlags::IN)], None).unwrap();
    }
    fs::remove_file(file).unwrap();
}

identity_suite! { "tpm", Tpm }
