//! TLS between the MQTT client and its broker.
//!
//! The client's own TLS brings a second library of cryptography into the process. So the client speaks to a UNIX socket in a
//! directory that only this user can enter, and behind it is one TLS connection of ours.

use std::{cell::RefCell, io, rc::Rc};

use fieldgate_config::settings::sink::SinkTls;
use tempfile::TempDir;
use tokio::{
    io::copy_bidirectional,
    net::{TcpStream, UnixListener},
    task::JoinHandle,
};

use crate::sinks::tls;

/// One TLS connection to a broker, at a UNIX socket; ends when dropped.
pub(crate) struct Bridge {
    /// Where the client connects to.
    pub(crate) path: String,
    failure: Rc<RefCell<Option<String>>>,
    task: JoinHandle<()>,
    _directory: TempDir,
}

impl Bridge {
    /// Makes the socket, and the TLS connection once the client is there.
    ///
    /// # Errors
    /// If the socket cannot be made.
    pub(crate) fn open(settings: SinkTls, host: String, port: u16) -> io::Result<Self> {
        // Mode 0700, as tempfile makes directories.
        let directory = tempfile::Builder::new().prefix("fg-mqtt-").tempdir()?;
        let path = directory.path().join("broker");
        let listener = UnixListener::bind(&path)?;
        let failure = Rc::new(RefCell::new(None));
        let told = Rc::clone(&failure);
        let task = tokio::task::spawn_local(async move {
            if let Err(error) = serve(&listener, &settings, &host, port).await {
                *told.borrow_mut() = Some(error);
            }
        });
        let path = path.to_str().ok_or(io::ErrorKind::InvalidFilename)?.to_owned();
        Ok(Self {
            path,
            failure,
            task,
            _directory: directory,
        })
    }

    /// Returns why the TLS connection ended, if that is known.
    pub(crate) fn failure(&self) -> Option<String> {
        self.failure.borrow().clone()
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(listener: &UnixListener, settings: &SinkTls, host: &str, port: u16) -> Result<(), String> {
    let (mut client, _) = listener.accept().await.map_err(|error| error.to_string())?;
    let stream = TcpStream::connect((host, port))
        .await
        .map_err(|error| error.to_string())?;
    // Many small publishes wait for their acknowledgements.
    stream.set_nodelay(true).map_err(|error| error.to_string())?;
    let mut broker = tls::connect(settings, host, stream).await?;
    copy_bidirectional(&mut client, &mut broker)
        .await
        .map(drop)
        .map_err(|error| error.to_string())
}
