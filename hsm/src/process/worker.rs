//! The worker's side: it confines itself, opens the key and serves one request after the other.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::net::sockopt::socket_peercred;

use super::connection::{Connection, Interruption};
use super::marker;
use super::sandbox;
use super::wire::{
    AnswerBody, Configuration, LoginOutcome, Opened, RequestBody, Task, WireError, WorkerAnswer,
    WorkerRequest, WorkerStatistics, decode_request, encode_answer,
};
use crate::error::{Error, WorkerEnd};
use crate::file::FileSigner;
use crate::pkcs11::{
    LoginStep, LoginWatch, LowCount, Pin, Pkcs11Signer, WrappedSecret, create_for, create_successor, destroy,
    wrapped_secret,
};
use crate::secret::Secret;
use crate::settings::{DEFAULT_LABEL, Settings};
use crate::signer::{PublicKey, Signer};
use crate::uri::Pkcs11Uri;

/// Is the worker: serves the node at the other end of standard input, a socket, until the node is done with it.
///
/// Call it first thing in `main`, before there are threads and open files: the sandbox covers the whole process.
pub fn run() -> ExitCode {
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            // Nobody else is there to hear of it.
            let _ = writeln!(io::stderr().lock(), "token worker: {problem}");
            ExitCode::FAILURE
        }
    }
}

/// The signer of a worker.
#[expect(clippy::large_enum_variant, reason = "a process has one of it")]
enum Served {
    Token(Pkcs11Signer),
    File(FileSigner),
}

/// The socket, shared with what tells of logins.
type SharedConnection = Arc<Mutex<Connection>>;

fn serve() -> Result<(), String> {
    let stream = standard_input()?;
    let node = socket_peercred(&stream).map_err(|error| format!("{NOT_BY_HAND} ({error})"))?;
    // A name for `ps`: the path of the program may be that of a link in /proc.
    let _ = rustix::thread::set_name(c"fieldgate-token");
    sandbox::harden(Some(node.pid)).map_err(|error| format!("it cannot secure itself: {error}"))?;
    let sender = Connection::new(stream);
    let mut receiver = sender
        .try_clone()
        .map_err(|error| format!("standard input: {error}"))?;
    let sender = Arc::new(Mutex::new(sender));
    let software = env!("CARGO_PKG_VERSION").to_owned();
    answer(&sender, 0, AnswerBody::Hello { software })?;
    let mut served = None;
    loop {
        let Some(WorkerRequest { id, body }) = request(&mut receiver)? else {
            return Ok(());
        };
        let body = match (body, &mut served) {
            (RequestBody::Stop, _) => return Ok(()),
            (RequestBody::Configure(configuration), None) => match configure(configuration, &sender) {
                Ok(Done::Opened(signer, opened)) => {
                    served = Some(signer);
                    AnswerBody::Opened(opened)
                }
                Ok(Done::Destroyed) => AnswerBody::Destroyed,
                Ok(Done::Unwrapped(unwrapped)) => AnswerBody::Unwrapped(unwrapped),
                Err(error) => AnswerBody::Failed(error),
            },
            (RequestBody::Sign(message), Some(signer)) => match signer.sign(&message) {
                Ok(signature) => AnswerBody::Signed(signature),
                Err(error) => AnswerBody::Failed(error),
            },
            (RequestBody::Keys, Some(Served::Token(signer))) => match signer.keys() {
                Ok(keys) => AnswerBody::Keys(keys),
                Err(error) => AnswerBody::Failed(error),
            },
            (RequestBody::Keys, Some(Served::File(_))) => AnswerBody::Keys(Vec::new()),
            (RequestBody::Statistics, Some(signer)) => AnswerBody::Statistics(signer.statistics()),
            (RequestBody::Configure(_), Some(_))
            | (RequestBody::Sign(_) | RequestBody::Keys | RequestBody::Statistics, None) => {
                return Err("a request came out of turn".to_owned());
            }
        };
        answer(&sender, id, body)?;
    }
}

/// Takes the socket that the node has put in the place of standard input.
fn standard_input() -> Result<UnixStream, String> {
    let descriptor = io::stdin()
        .as_fd()
        .try_clone_to_owned()
        .map_err(|error| format!("standard input: {error}"))?;
    let stream = UnixStream::from(descriptor);
    match stream.local_addr() {
        Ok(_) => Ok(stream),
        Err(_) => Err(NOT_BY_HAND.to_owned()),
    }
}

/// Waits for the next request; `None` when the node has closed its end.
fn request(receiver: &mut Connection) -> Result<Option<WorkerRequest>, String> {
    let frame = match receiver.receive(None) {
        Ok(frame) => frame,
        Err(Interruption::Closed | Interruption::Late) => return Ok(None),
        Err(Interruption::Broken(error)) => return Err(describe(&error)),
    };
    decode_request(&frame).map(Some).map_err(|error| describe(&error))
}

fn describe(error: &WireError) -> String {
    format!("{error}; {}", error.hint())
}

/// Tells the node something.
fn answer(sender: &SharedConnection, id: u32, body: AnswerBody) -> Result<(), String> {
    let frame = encode_answer(&WorkerAnswer { id, body }).or_else(|_| {
        // A token with names beyond all measure; that it was too much is all that can be said.
        let how = WorkerEnd::Confused;
        let body = AnswerBody::Failed(Error::WorkerEnded { how });
        encode_answer(&WorkerAnswer { id, body })
    });
    let frame = frame.map_err(|error| describe(&error))?;
    let mut sender = sender.lock().unwrap_or_else(PoisonError::into_inner);
    // A node that does not read any more is gone, and this process with it.
    sender
        .send(&frame, None)
        .map_err(|_| "the node has closed the connection".to_owned())
}

/// What became of a worker's task.
#[expect(clippy::large_enum_variant, reason = "a process has one of it")]
enum Done {
    Opened(Served, Opened),
    Destroyed,
    Unwrapped(WrappedSecret),
}

/// Confines this process and does its task.
fn configure(configuration: Configuration, sender: &SharedConnection) -> Result<Done, Error> {
    let Configuration {
        settings,
        secret,
        task,
        mut low_count,
        closed,
    } = configuration;
    let sandbox = sandbox::confine(&settings, closed.as_deref());
    match settings {
        Settings::Pkcs11 { module, uri, pin, .. } => {
            let mut pin = || Pin {
                source: pin.to_string(),
                // The task may take two logins, and each of them keeps its PIN.
                secret: Secret::new(secret.expose().to_vec()),
                low_count: std::mem::replace(&mut low_count, LowCount::Stop),
                watch: watch_logins(sender),
            };
            if let Task::Unwrap(wrapped) = task {
                let unwrapped = wrapped_secret(&module, &uri, pin(), wrapped.as_deref())?;
                return Ok(Done::Unwrapped(unwrapped));
            }
            let Some((uri, wanted)) = prepare(&module, uri, &mut pin, task)? else {
                return Ok(Done::Destroyed);
            };
            let signer = Pkcs11Signer::open_with(&module, &uri, pin(), wanted.as_ref())?;
            let opened = Opened {
                public_key: *signer.public_key(),
                location: signer.location(),
                origin: Some(signer.origin()),
                module: signer.module_description(),
                sandbox,
            };
            Ok(Done::Opened(Served::Token(signer), opened))
        }
        Settings::File { path, .. } => {
            // A file needs no vendor's code: the node makes and removes those itself.
            let Task::Open(wanted) = task else {
                return Err(Error::WorkerProtocol(WireError::Unexpected));
            };
            let signer = FileSigner::open_wanted(&path, &secret, wanted.as_ref())?;
            let opened = Opened {
                public_key: *signer.public_key(),
                location: signer.location(),
                origin: None,
                module: None,
                sandbox,
            };
            Ok(Done::Opened(Served::File(signer), opened))
        }
    }
}

/// Does what comes before the opening, and returns which key is to be opened; none if there is none any more.
fn prepare(
    module: &Path,
    uri: Pkcs11Uri,
    pin: &mut impl FnMut() -> Pin,
    task: Task,
) -> Result<Option<(Pkcs11Uri, Option<PublicKey>)>, Error> {
    let created = match task {
        Task::Open(wanted) => return Ok(Some((uri, wanted))),
        Task::Unwrap(_) => return Err(Error::WorkerProtocol(WireError::Unexpected)),
        Task::Destroy(public_key) => {
            destroy(module, &uri, pin(), &public_key)?;
            return Ok(None);
        }
        Task::Create(algorithm) => {
            let label = uri.object.as_deref().unwrap_or(DEFAULT_LABEL);
            create_for(module, &uri, pin(), label, algorithm)?
        }
        Task::CreateNext { current, algorithm } => {
            create_successor(module, &uri, pin(), &current, algorithm)?
        }
    };
    Ok(Some((created.uri, Some(created.public_key))))
}

/// Returns what tells the node of logins while they happen: it must know if the worker dies in one.
fn watch_logins(sender: &SharedConnection) -> LoginWatch {
    let sender = Arc::clone(sender);
    Box::new(move |step| {
        let body = match step {
            LoginStep::Begun => AnswerBody::LoginBegun,
            LoginStep::Accepted => AnswerBody::LoginDone(LoginOutcome::Accepted),
            // Without random numbers the refusal is remembered by this process alone.
            LoginStep::Refused(pin) => {
                AnswerBody::LoginDone(marker::reduce(pin).map_or(LoginOutcome::Other, LoginOutcome::Refused))
            }
            LoginStep::Other => AnswerBody::LoginDone(LoginOutcome::Other),
        };
        // If the node is gone, the next receive says so.
        let _ = answer(&sender, 0, body);
    })
}

impl Served {
    fn sign(&mut self, message: &[u8]) -> Result<crate::signer::Signature, Error> {
        match self {
            Self::Token(signer) => signer.sign(message),
            Self::File(signer) => signer.sign(message),
        }
    }

    fn statistics(&self) -> WorkerStatistics {
        match self {
            Self::Token(signer) => WorkerStatistics {
                recoveries: signer.recoveries(),
                token: signer.token_state(),
            },
            Self::File(_) => WorkerStatistics::default(),
        }
    }
}

/// What somebody reads who starts a worker.
const NOT_BY_HAND: &str = "fieldgate starts this program by itself; it is of no use on its own";
