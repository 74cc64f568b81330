//! The control socket: how the command line talks to a running node.
//!
//! One request per connection: a line of JSON, answered by a line of JSON. The socket's file is readable and writable by its
//! owner and group only; whoever may open it may see the node's status, enrol the node, add and remove inlets and outlets, and, on an
//! authority, do everything an administrator may.

pub(crate) mod command;
pub(crate) mod enrol;
pub(crate) mod portal;
pub(crate) mod relay;

use std::{
    fs,
    future::Future,
    io::{self, BufRead, BufReader, Read, Write},
    os::unix::{fs::PermissionsExt, net::UnixStream as BlockingStream},
    path::{Path, PathBuf},
    pin::Pin,
    rc::Rc,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
    sync::oneshot,
    time,
};
use zeroize::Zeroizing;

use self::command::{CommandJob, CommandReply};
use self::enrol::{Enrol, EnrolDone, EnrolFailure, EnrolJob};
use self::portal::{PortalDone, PortalJob};
use self::relay::RelayJob;
use crate::{
    authority::{
        AuthorityAnswer, Origin, RequestKind,
        service::{AuthorityHandle, AuthorityRequest},
        wire::{ManageAnswer, ManageError, ManageRequest},
    },
    runtime::NodeHandle,
    status::NodeStatus,
};

/// What can be asked.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "lowercase", deny_unknown_fields)]
enum Request {
    /// What is the node doing?
    Status {},
    /// Something for the authority: this node's own, or the one it is a member of.
    Manage {
        /// What.
        manage: Box<ManageRequest>,
    },
    /// Something about commands to devices.
    Command {
        /// What.
        job: CommandJob,
    },
    /// Something for a relay.
    Relay {
        /// What.
        job: RelayJob,
    },
    /// Something about portals.
    Portal {
        /// What.
        job: PortalJob,
    },
    /// The identity has a new key on disk: use it.
    Rotated {},
    /// Become a member of an authority.
    Enrol {
        /// How.
        job: EnrolJob,
    },
}

/// What is answered.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "lowercase")]
enum Answer {
    /// To [`Request::Status`].
    Status {
        /// The status.
        status: Box<NodeStatus>,
    },
    /// To [`Request::Manage`].
    Managed {
        /// What the authority answered.
        managed: Box<ManageAnswer>,
    },
    /// To [`Request::Command`].
    Commanded {
        /// What the collector answered.
        reply: Box<CommandReply>,
    },
    /// To [`Request::Relay`]: it was begun.
    Relay {},
    /// To [`Request::Portal`]: it is done.
    Portal {
        /// What has come of it.
        done: PortalDone,
    },
    /// To [`Request::Rotated`].
    Rotated {},
    /// To [`Request::Enrol`].
    Enrolled {
        /// What has come of it.
        done: EnrolDone,
    },
    /// To [`Request::Enrol`] that failed.
    NotEnrolled {
        /// Why.
        failure: EnrolFailure,
    },
    /// The request was not understood.
    Error {
        /// Why.
        message: String,
    },
}

/// Puts an operator's request, made by the user with this number, to an authority.
pub(crate) type Manage = Rc<dyn Fn(u32, ManageRequest) -> ManageFuture>;
/// What the authority answers, some time.
pub(crate) type ManageFuture = Pin<Box<dyn Future<Output = ManageAnswer>>>;

/// Has the node use the new key of its identity; in the result, why it cannot.
pub(crate) type Rotated = Rc<dyn Fn() -> RotatedFuture>;
/// What came of it, some time.
pub(crate) type RotatedFuture = Pin<Box<dyn Future<Output = Result<(), String>>>>;

/// Has a relay do something; in the result, why it cannot.
pub(crate) type Relaying = Rc<dyn Fn(RelayJob) -> RotatedFuture>;

/// Adds and removes inlets and outlets for the user with this number; in the result, everything that is wrong, in words.
pub(crate) type Portalling = Rc<dyn Fn(u32, PortalJob) -> PortalFuture>;
/// What came of it, some time.
pub(crate) type PortalFuture = Pin<Box<dyn Future<Output = Result<PortalDone, String>>>>;

/// Has a collector do something about commands.
pub(crate) type Commanding = Rc<dyn Fn(CommandJob) -> CommandFuture>;
/// What the collector answers, some time; `None` if it ends before.
pub(crate) type CommandFuture = Pin<Box<dyn Future<Output = Option<CommandReply>>>>;

/// What can be asked besides the status.
#[derive(Clone, Default)]
struct Services {
    manage: Option<Manage>,
    enrol: Option<Enrol>,
    rotated: Option<Rotated>,
    commanding: Option<Commanding>,
    relaying: Option<Relaying>,
    portalling: Option<Portalling>,
}

/// Removes the socket's file when the node ends.
pub(crate) struct Socket {
    listener: UnixListener,
    path: PathBuf,
    services: Services,
}

impl Socket {
    /// Binds the socket, replacing the file of a node that is gone.
    ///
    /// # Errors
    /// Those of the file system; `AddrInUse` if a node answers there.
    pub(crate) fn bind(path: &Path) -> io::Result<Self> {
        let named = |error: &io::Error| {
            io::Error::new(
                error.kind(),
                format!("control socket {}: {error}", path.display()),
            )
        };
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(|error| named(&error))?;
        }
        if BlockingStream::connect(path).is_ok() {
            return Err(named(&io::Error::new(
                io::ErrorKind::AddrInUse,
                "a node is running there",
            )));
        }
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(named(&error)),
            _ => {}
        }
        let listener = UnixListener::bind(path).map_err(|error| named(&error))?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o660)).map_err(|error| named(&error))?;
        Ok(Self {
            listener,
            path: path.to_owned(),
            services: Services::default(),
        })
    }

    /// Lets operators manage an authority: this node's own ([`manage_here`]), or the one it is a member of.
    #[must_use]
    pub(crate) fn with_manage(mut self, manage: Manage) -> Self {
        self.services.manage = Some(manage);
        self
    }

    /// Lets operators enrol this node.
    #[must_use]
    pub(crate) fn with_enrol(mut self, enrol: Enrol) -> Self {
        self.services.enrol = Some(enrol);
        self
    }

    /// Lets operators command devices.
    #[must_use]
    pub(crate) fn with_commanding(mut self, commanding: Commanding) -> Self {
        self.services.commanding = Some(commanding);
        self
    }

    /// Lets operators drain and stop a relay.
    #[must_use]
    pub(crate) fn with_relaying(mut self, relaying: Relaying) -> Self {
        self.services.relaying = Some(relaying);
        self
    }

    /// Lets operators add and remove inlets and outlets.
    #[must_use]
    pub(crate) fn with_portalling(mut self, portalling: Portalling) -> Self {
        self.services.portalling = Some(portalling);
        self
    }

    /// Lets operators say that the identity was rotated.
    #[must_use]
    pub(crate) fn with_rotated(mut self, rotated: Rotated) -> Self {
        self.services.rotated = Some(rotated);
        self
    }

    /// Answers requests until the runtime ends.
    pub(crate) async fn serve(self, node: Rc<NodeHandle>) {
        self.serve_with(move || {
            let node = Rc::clone(&node);
            async move { node.status().await }
        })
        .await;
    }

    /// Answers requests, those for the status with what `status` says.
    async fn serve_with<F>(self, status: impl Fn() -> F + Clone + 'static)
    where
        F: Future<Output = NodeStatus>,
    {
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let (status, services) = (status.clone(), self.services.clone());
                    tokio::task::spawn_local(async move {
                        // Whoever hangs up or dawdles loses only its own answer.
                        let _ = answer(stream, status, &services).await;
                    });
                }
                Err(error) => {
                    tracing::debug!(%error, "control connection not accepted");
                    time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // Nothing depends on it: the next start replaces a stale file.
        let _ = fs::remove_file(&self.path);
    }
}

async fn answer<F>(mut stream: UnixStream, status: impl Fn() -> F, services: &Services) -> io::Result<()>
where
    F: Future<Output = NodeStatus>,
{
    let uid = stream.peer_cred()?.uid();
    let (mut reader, mut writer) = stream.split();
    // A request may hold a ticket.
    let mut line = Zeroizing::new(Vec::new());
    time::timeout(
        REQUEST_TIME_MAX,
        tokio::io::BufReader::new((&mut reader).take(REQUEST_BYTES_MAX)).read_until(b'\n', &mut line),
    )
    .await??;
    let answer = match serde_json::from_slice(&line) {
        Ok(Request::Status {}) => Answer::Status {
            status: Box::new(status().await),
        },
        Ok(Request::Manage { manage }) => manage_somewhere(services, uid, *manage).await,
        Ok(Request::Enrol { job }) => enrol(services, job).await,
        Ok(Request::Rotated {}) => rotated(services).await,
        Ok(Request::Relay { job }) => relay(services, job).await,
        Ok(Request::Portal { job }) => portal(services, uid, job).await,
        Ok(Request::Command { job }) => tokio::select! {
            answer = command(services, job) => answer,
            // A command may take days: whoever does not wait for it any more takes its place with it.
            _ = reader.read_u8() => return Ok(()),
        },
        Err(error) => Answer::Error {
            message: format!("request not understood: {error}"),
        },
    };
    // Nor is the answer with a new ticket left in memory.
    let mut text = Zeroizing::new(serde_json::to_vec(&answer)?);
    text.push(b'\n');
    time::timeout(REQUEST_TIME_MAX, writer.write_all(&text)).await?
}

async fn manage_somewhere(services: &Services, uid: u32, request: ManageRequest) -> Answer {
    let Some(manage) = &services.manage else {
        return Answer::Error {
            message: "this node is no authority, and a member of none: it cannot manage one".to_owned(),
        };
    };
    let answer = time::timeout(MANAGE_TIME_MAX, manage(uid, request)).await;
    Answer::Managed {
        managed: Box::new(answer.unwrap_or_else(|_| {
            ManageAnswer::Error(ManageError {
                code: "no-answer".to_owned(),
                message: format!("the authority has not answered in {MANAGE_TIME_MAX:?}"),
                hint: Some("look whether it was done all the same before you ask again".to_owned()),
            })
        })),
    }
}

async fn rotated(services: &Services) -> Answer {
    let failed = |message: String| Answer::Error { message };
    let Some(rotated) = &services.rotated else {
        return failed("this node's identity is in memory only".to_owned());
    };
    match time::timeout(ENROL_TIME_MAX, rotated()).await {
        Ok(Ok(())) => Answer::Rotated {},
        Ok(Err(message)) => failed(message),
        Err(_) => failed(format!("the key has not signed in {ENROL_TIME_MAX:?}")),
    }
}

async fn relay(services: &Services, job: RelayJob) -> Answer {
    let Some(relaying) = &services.relaying else {
        return Answer::Error {
            message: "this node is no relay: its file has no [relay]".to_owned(),
        };
    };
    match relaying(job).await {
        Ok(()) => Answer::Relay {},
        Err(message) => Answer::Error { message },
    }
}

async fn portal(services: &Services, uid: u32, job: PortalJob) -> Answer {
    let Some(portalling) = &services.portalling else {
        return Answer::Error {
            message: "this node takes no portals by command".to_owned(),
        };
    };
    match time::timeout(REQUEST_TIME_MAX, portalling(uid, job)).await {
        Ok(Ok(done)) => Answer::Portal { done },
        Ok(Err(message)) => Answer::Error { message },
        Err(_) => Answer::Error {
            message: format!(
                "the node has not done it in {REQUEST_TIME_MAX:?}; `fieldgate portal list` shows what there is"
            ),
        },
    }
}

/// Waits as long as the command may take.
async fn command(services: &Services, job: CommandJob) -> Answer {
    let Some(commanding) = &services.commanding else {
        return Answer::Error {
            message: "this node is no collector: it sends no commands".to_owned(),
        };
    };
    match commanding(job).await {
        Some(reply) => Answer::Commanded {
            reply: Box::new(reply),
        },
        None => Answer::Error {
            message: "the node is busy or ending".to_owned(),
        },
    }
}

async fn enrol(services: &Services, job: EnrolJob) -> Answer {
    let Some(enrol) = &services.enrol else {
        return Answer::Error {
            message: "this node does not take part in an authority: its file has no [trust]".to_owned(),
        };
    };
    match time::timeout(ENROL_TIME_MAX, enrol(job)).await {
        Ok(Ok(done)) => Answer::Enrolled { done },
        Ok(Err(failure)) => Answer::NotEnrolled { failure },
        Err(_) => Answer::NotEnrolled {
            failure: EnrolFailure {
                message: format!("the authority has not answered in {ENROL_TIME_MAX:?}"),
                hint: Some(
                    "try again with the same ticket: it is not spent, or spent for this node".to_owned(),
                ),
            },
        },
    }
}

/// Puts operators' requests to the authority in this process.
pub(crate) fn manage_here(authority: AuthorityHandle) -> Manage {
    Rc::new(move |uid, request| {
        let (sender, answer) = oneshot::channel();
        let submitted = authority.submit(AuthorityRequest {
            from: Origin::Local { uid },
            kind: RequestKind::Manage(Box::new(request)),
            // Whoever asked may have hung up.
            reply: Box::new(move |answer| drop(sender.send(answer))),
        });
        Box::pin(async move {
            let answered = if submitted.is_ok() {
                answer.await.ok()
            } else {
                None
            };
            if let Some(AuthorityAnswer::Managed(answer)) = answered {
                return *answer;
            }
            ManageAnswer::Error(ManageError {
                code: "busy".to_owned(),
                message: "the authority is busy or ending".to_owned(),
                hint: Some("ask again in a moment".to_owned()),
            })
        })
    })
}

/// Asks the node at `path` for its status.
///
/// # Errors
/// If no node answers there, or what answers is not one.
pub(crate) fn ask_status(path: &Path) -> io::Result<NodeStatus> {
    let answer = ask(path, &Request::Status {}, REQUEST_TIME_MAX)?;
    let Answer::Status { status } = answer else {
        return Err(unexpected(answer));
    };
    Ok(*status)
}

/// Puts `request` to the authority behind the node at `path`.
///
/// # Errors
/// If no node answers there, or it has no authority.
pub(crate) fn ask_manage(path: &Path, request: ManageRequest) -> io::Result<ManageAnswer> {
    let manage = Box::new(request);
    let answer = ask(
        path,
        &Request::Manage { manage },
        MANAGE_TIME_MAX + REQUEST_TIME_MAX,
    )?;
    let Answer::Managed { managed } = answer else {
        return Err(unexpected(answer));
    };
    Ok(*managed)
}

/// Has the collector at `path` do something about commands, which may take `patience`.
///
/// # Errors
/// If no node answers there, or it is no collector.
pub(crate) fn ask_command(path: &Path, job: CommandJob, patience: Duration) -> io::Result<CommandReply> {
    let answer = ask(path, &Request::Command { job }, patience + COMMAND_TIME_MAX)?;
    let Answer::Commanded { reply } = answer else {
        return Err(unexpected(answer));
    };
    Ok(*reply)
}

/// Has the relay at `path` do something.
///
/// # Errors
/// If no node answers there, or it is no relay.
pub(crate) fn ask_relay(path: &Path, job: RelayJob) -> io::Result<()> {
    match ask(path, &Request::Relay { job }, REQUEST_TIME_MAX)? {
        Answer::Relay {} => Ok(()),
        answer @ (Answer::Status { .. }
        | Answer::Managed { .. }
        | Answer::Commanded { .. }
        | Answer::Enrolled { .. }
        | Answer::Rotated {}
        | Answer::Portal { .. }
        | Answer::NotEnrolled { .. }
        | Answer::Error { .. }) => Err(unexpected(answer)),
    }
}

/// Has the node at `path` add or remove an inlet or an outlet.
///
/// # Errors
/// If no node answers there, or with everything that is wrong.
pub(crate) fn ask_portal(path: &Path, job: PortalJob) -> io::Result<PortalDone> {
    match ask(path, &Request::Portal { job }, 2 * REQUEST_TIME_MAX)? {
        Answer::Portal { done } => Ok(done),
        answer @ (Answer::Status { .. }
        | Answer::Managed { .. }
        | Answer::Commanded { .. }
        | Answer::Enrolled { .. }
        | Answer::Relay {}
        | Answer::Rotated {}
        | Answer::NotEnrolled { .. }
        | Answer::Error { .. }) => Err(unexpected(answer)),
    }
}

/// Has the node at `path` enrol.
///
/// # Errors
/// If no node answers there; in the result, why it has not become a member.
pub(crate) fn ask_enrol(path: &Path, job: EnrolJob) -> io::Result<Result<EnrolDone, EnrolFailure>> {
    let answer = ask(path, &Request::Enrol { job }, ENROL_TIME_MAX + REQUEST_TIME_MAX)?;
    match answer {
        Answer::Enrolled { done } => Ok(Ok(done)),
        Answer::NotEnrolled { failure } => Ok(Err(failure)),
        Answer::Status { .. }
        | Answer::Managed { .. }
        | Answer::Commanded { .. }
        | Answer::Relay {}
        | Answer::Rotated {}
        | Answer::Portal { .. }
        | Answer::Error { .. } => Err(unexpected(answer)),
    }
}

/// Tells the node at `path` that its identity has a new key; `false` if no node runs there.
///
/// # Errors
/// If the node cannot use the key.
pub(crate) fn tell_rotated(path: &Path) -> io::Result<bool> {
    match ask(path, &Request::Rotated {}, ENROL_TIME_MAX + REQUEST_TIME_MAX) {
        Ok(Answer::Rotated {}) => Ok(true),
        Ok(answer) => Err(unexpected(answer)),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
            ) =>
        {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

fn unexpected(answer: Answer) -> io::Error {
    match answer {
        Answer::Error { message } => io::Error::other(message),
        Answer::Status { .. }
        | Answer::Managed { .. }
        | Answer::Commanded { .. }
        | Answer::Enrolled { .. }
        | Answer::Relay {}
        | Answer::Rotated {}
        | Answer::Portal { .. }
        | Answer::NotEnrolled { .. } => io::Error::other("the node has answered another question"),
    }
}

fn ask(path: &Path, request: &Request, patience: Duration) -> io::Result<Answer> {
    let named = |error: &io::Error| {
        io::Error::new(
            error.kind(),
            format!("no answer from a node at {}: {error}", path.display()),
        )
    };
    let mut stream = BlockingStream::connect(path).map_err(|error| named(&error))?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(REQUEST_TIME_MAX))?;
    let mut text = Zeroizing::new(serde_json::to_vec(request)?);
    text.push(b'\n');
    stream.write_all(&text).map_err(|error| named(&error))?;
    let mut line = Zeroizing::new(Vec::new());
    BufReader::new(stream.take(ANSWER_BYTES_MAX))
        .read_until(b'\n', &mut line)
        .map_err(|error| named(&error))?;
    serde_json::from_slice(&line).map_err(|error| {
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!(
                "what answers at {} is no node of this version: {error}",
                path.display()
            ),
        )
    })
}

/// Longest time for a request to come or an answer to go, and for the status.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(5);
/// Longest time an authority may take, which may be at the other end of a channel.
const MANAGE_TIME_MAX: Duration = Duration::from_secs(30);
/// Longest time for an enrolment: every way of the ticket is tried.
const ENROL_TIME_MAX: Duration = Duration::from_secs(120);
/// Longest time beyond its deadline until a command has come to its end.
const COMMAND_TIME_MAX: Duration = Duration::from_secs(15);
/// Largest request, in bytes: a response to an enrolment with the longest status list, in Base64.
const REQUEST_BYTES_MAX: u64 = 2 << 20;
/// Largest answer, in bytes: 10,000 links of 300 bytes each.
const ANSWER_BYTES_MAX: u64 = 16 << 20;

#[cfg(test)]
pub(crate) mod tests;
