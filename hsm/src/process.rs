//! The token worker: a process of its own that owns the PKCS#11 module and its sessions, or the key of a sealed file.
//!
//! ```text
//!  node                                              worker process, the same program
//!  Worker: queue, deadlines ── ProcessSigner ══ socket pair ══ run ── Pkcs11Signer ── the vendor's module
//!                              │ restart, PIN guard            └ sandbox: no other files, no network, no programs
//!                              └ <state_dir>/pin.refused
//! ```
//!
//! A module that crashes or hangs costs a restart of the worker and no more. What a module can do to the machine is
//! bounded by the sandbox; what it can say to the node is bounded by [`wire`]. The PIN goes over the socket, right before it
//! is needed, and is neither in the arguments nor in the environment of the worker.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::error::Error;
use crate::pkcs11::{KeyOrigin, TokenState, WrappedSecret};
use crate::settings::Settings;
use crate::signer::{Algorithm, PublicKey, Signer};

mod connection;
mod environment;
mod marker;
mod running;
mod sandbox;
mod supervisor;
pub mod wire;
mod worker;

use wire::Task;

pub use supervisor::ProcessSigner;
pub use worker::run;

/// How a worker process is started and watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessSettings {
    /// The program of the worker; it calls [`run`] when it is given `arguments`.
    pub program: PathBuf,
    /// Its arguments. Others can read them.
    pub arguments: Vec<OsString>,
    /// Where the key is.
    pub signer: Settings,
    /// The public key of the key to be used; with `None` exactly one key must match.
    pub wanted: Option<PublicKey>,
    /// The node's state directory: keeps the marker of refused PINs, and stays closed to the worker. Without it a PIN that
    /// was refused is forgotten when this process ends.
    pub state_dir: Option<PathBuf>,
    /// Time without an answer after which the worker is killed and started anew.
    pub hang_after: Duration,
    /// How often an idle worker is asked how it and its token are.
    pub check_every: Duration,
}

impl ProcessSettings {
    /// Takes this very program with the argument `token-worker`, and the default times: 30 s and 10 s.
    pub fn new(signer: Settings) -> Self {
        Self {
            // By the link of the kernel: it leads to this very program even if its file was replaced meanwhile.
            program: "/proc/self/exe".into(),
            arguments: vec!["token-worker".into()],
            signer,
            wanted: None,
            state_dir: None,
            hang_after: HANG_AFTER,
            check_every: CHECK_EVERY,
        }
    }

    /// Opens the key: one in a token by a worker process, one in a sealed file, which needs no vendor's code, in this process.
    ///
    /// # Errors
    /// Those of [`ProcessSigner::start`] and of [`Settings::open_key`].
    pub fn open(self) -> Result<Box<dyn Signer>, Error> {
        match self.signer {
            Settings::Pkcs11 { .. } => Ok(Box::new(ProcessSigner::start(self)?)),
            Settings::File { .. } => self.signer.open_key(self.wanted.as_ref()),
        }
    }

    /// Makes a new key as [`Settings::create`] does, one in a token by a worker process, and returns it open.
    ///
    /// # Errors
    /// Those of [`ProcessSigner::start`] and of [`Settings::create`].
    pub fn create(self, algorithm: Algorithm) -> Result<Box<dyn Signer>, Error> {
        match self.signer {
            Settings::Pkcs11 { .. } => Ok(Box::new(ProcessSigner::begin(self, Task::Create(algorithm))?)),
            Settings::File { .. } => self.signer.create(algorithm),
        }
    }

    /// Makes a successor of the key `current` as [`Settings::create_next`] does, one in a token by a worker process, and
    /// returns it open.
    ///
    /// # Errors
    /// Those of [`ProcessSigner::start`] and of [`Settings::create_next`].
    pub fn create_next(self, current: &PublicKey, algorithm: Algorithm) -> Result<Box<dyn Signer>, Error> {
        let task = Task::CreateNext {
            current: *current,
            algorithm,
        };
        match self.signer {
            Settings::Pkcs11 { .. } => Ok(Box::new(ProcessSigner::begin(self, task)?)),
            Settings::File { .. } => self.signer.create_next(current, algorithm),
        }
    }

    /// Removes a key as [`Settings::destroy`] does, one in a token by a worker process.
    ///
    /// # Errors
    /// Those of [`ProcessSigner::start`] and of [`Settings::destroy`].
    pub fn destroy(&self, public_key: &PublicKey) -> Result<(), Error> {
        match self.signer {
            Settings::Pkcs11 { .. } => supervisor::destroy(self, public_key),
            Settings::File { .. } => self.signer.destroy(public_key),
        }
    }

    /// Opens a secret that a key of the token has wrapped, in a worker process that ends with it; without one draws a secret and
    /// wraps it, after making the key if the token has none. `None` for a sealed file: what seals that can seal other things.
    ///
    /// A TPM needs up to a minute to make the key, so a worker that makes one is given [`MAKING_TIME_MAX`] at least.
    ///
    /// # Errors
    /// Those of [`ProcessSigner::start`] for the worker, the token and the login; [`Error::NotUnwrapped`] for what the token did
    /// not wrap, [`Error::KeyNotFound`] if its key is gone, [`Error::Mechanism`] if the token cannot decrypt with RSA.
    pub fn unwrap_secret(mut self, wrapped: Option<&[u8]>) -> Result<Option<WrappedSecret>, Error> {
        match self.signer {
            Settings::Pkcs11 { .. } => {
                if wrapped.is_none() {
                    self.hang_after = self.hang_after.max(MAKING_TIME_MAX);
                }
                supervisor::unwrap_secret(&self, wrapped).map(Some)
            }
            Settings::File { .. } => Ok(None),
        }
    }
}

/// What confines a worker process. Each confinement was tried out by the worker itself before the module was loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SandboxReport {
    /// Files, programs, other processes and the network are closed, but for what the settings name.
    Full,
    /// Something stayed open; what, and why.
    Partial(Vec<String>),
}

impl fmt::Display for SandboxReport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => formatter.write_str("full"),
            Self::Partial(gaps) => write!(formatter, "partial: {}", gaps.join("; ")),
        }
    }
}

/// A worker process as `status` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessState {
    /// Number of the process; `None` while there is none.
    pub pid: Option<u32>,
    /// What it is doing.
    pub condition: Condition,
    /// What confines it.
    pub sandbox: SandboxReport,
    /// Description and version of the module, if it says.
    pub module: Option<String>,
    /// What the token says about how the key came to be.
    pub origin: Option<KeyOrigin>,
    /// The token as it was when it was last looked at; `None` for a sealed file and while there is no token.
    pub token: Option<TokenState>,
    /// How often the worker was started anew because it had crashed.
    pub restarts_crash: u64,
    /// How often because it had hung.
    pub restarts_hang: u64,
    /// How often because a token that was away did not come back to it.
    pub restarts_renewal: u64,
}

/// What a worker process is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// It runs.
    Running,
    /// It is gone and will be started again.
    Restarting,
    /// The token has refused the PIN: nothing is tried until the operator has corrected it and restarted the node.
    PinRefused,
    /// The worker died while it logged in, twice in a row: nothing is tried until the operator has looked into it.
    LoginDeadly,
}

impl Condition {
    /// Returns the condition's name, as status and metrics show it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Restarting => "restarting",
            Self::PinRefused => "pin_refused",
            Self::LoginDeadly => "login_deadly",
        }
    }
}

/// Time a token may take to make an RSA key.
pub const MAKING_TIME_MAX: Duration = Duration::from_secs(180);
/// Default of [`ProcessSettings::hang_after`]; a slow TPM needs a second for a signature.
const HANG_AFTER: Duration = Duration::from_secs(30);
/// Default of [`ProcessSettings::check_every`].
const CHECK_EVERY: Duration = Duration::from_secs(10);
