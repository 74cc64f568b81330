//! The control socket: how the command line talks to a running node.
//!
//! One request per connection: a line of JSON, answered by a line of JSON. The socket's file is readable and writable by its
//! owner and group only; whoever may open it may see the node's status.

use std::{
    fs,
    io::{self, BufRead, BufReader, Read, Write},
    os::unix::{fs::PermissionsExt, net::UnixStream as BlockingStream},
    path::{Path, PathBuf},
    rc::Rc,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
    time,
};

use crate::{runtime::NodeHandle, status::NodeStatus};

/// What can be asked.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "lowercase", deny_unknown_fields)]
enum Request {
    /// What is the node doing?
    Status,
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
    /// The request was not understood.
    Error {
        /// Why.
        message: String,
    },
}

/// Removes the socket's file when the node ends.
pub(crate) struct Socket {
    listener: UnixListener,
    path: PathBuf,
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
        })
    }

    /// Answers requests until the runtime ends.
    pub(crate) async fn serve(self, node: Rc<NodeHandle>) {
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let node = Rc::clone(&node);
                    tokio::task::spawn_local(async move {
                        // Whoever hangs up or dawdles loses only its own answer.
                        let _ = time::timeout(REQUEST_TIME_MAX, answer(stream, &node)).await;
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

async fn answer(mut stream: UnixStream, node: &NodeHandle) -> io::Result<()> {
    let (reader, mut writer) = stream.split();
    let mut line = Vec::new();
    tokio::io::BufReader::new(reader.take(REQUEST_BYTES_MAX))
        .read_until(b'\n', &mut line)
        .await?;
    let answer = match serde_json::from_slice(&line) {
        Ok(Request::Status) => Answer::Status {
            status: Box::new(node.status().await),
        },
        Err(error) => Answer::Error {
            message: format!("request not understood: {error}"),
        },
    };
    let mut text = serde_json::to_vec(&answer)?;
    text.push(b'\n');
    writer.write_all(&text).await
}

/// Asks the node at `path` for its status.
///
/// # Errors
/// If no node answers there, or what answers is not one.
pub(crate) fn ask_status(path: &Path) -> io::Result<NodeStatus> {
    let named = |error: &io::Error| {
        io::Error::new(
            error.kind(),
            format!("no answer from a node at {}: {error}", path.display()),
        )
    };
    let mut stream = BlockingStream::connect(path).map_err(|error| named(&error))?;
    stream.set_read_timeout(Some(REQUEST_TIME_MAX))?;
    stream.set_write_timeout(Some(REQUEST_TIME_MAX))?;
    let mut request = serde_json::to_vec(&Request::Status)?;
    request.push(b'\n');
    stream.write_all(&request).map_err(|error| named(&error))?;
    let mut line = Vec::new();
    BufReader::new(stream.take(ANSWER_BYTES_MAX))
        .read_until(b'\n', &mut line)
        .map_err(|error| named(&error))?;
    match serde_json::from_slice(&line)? {
        Answer::Status { status } => Ok(*status),
        Answer::Error { message } => Err(io::Error::other(message)),
    }
}

/// Longest time for one request.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(5);
/// Largest request, in bytes.
const REQUEST_BYTES_MAX: u64 = 64 << 10;
/// Largest answer, in bytes: 10,000 links of 300 bytes each.
const ANSWER_BYTES_MAX: u64 = 16 << 20;
