//! Debian's nats-server with JetStream, and a look into its streams.

use std::{fs, net::SocketAddr, path::Path, time::Duration};

use async_nats::jetstream::{self, stream::Info};

use crate::harness::{
    bridged::inside,
    process::{Process, command},
    wait::PATIENCE,
};

/// A server; its streams outlive it.
pub(crate) struct NatsServer {
    process: Process,
    address: SocketAddr,
    /// Where it runs, if that is not where the test does.
    machine: Option<String>,
}

/// A message as the stream has it.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) subject: String,
    pub(crate) id: String,
    pub(crate) payload: String,
}

impl NatsServer {
    /// Starts it on a port of 127.0.0.1 with its files in `dir`, and `more` in its file.
    ///
    /// # Panics
    /// If it does not run.
    pub(crate) fn start(dir: &Path, port: u16, more: &str) -> Self {
        Self::start_on(None, dir, SocketAddr::from(([127, 0, 0, 1], port)), more)
    }

    /// Starts it on a machine of its own.
    ///
    /// # Panics
    /// If it does not run.
    pub(crate) fn start_on(machine: Option<&str>, dir: &Path, address: SocketAddr, more: &str) -> Self {
        fs::create_dir_all(dir).expect("the directory above is ours");
        let store = dir.join("jetstream");
        let file = dir.join("nats.conf");
        let text = format!(
            "listen: \"{address}\"\njetstream {{ store_dir: \"{}\", max_file_store: 64MB }}\n{more}\n",
            store.display()
        );
        fs::write(&file, text).expect("the directory is ours");
        let words = [SERVER, "-c", file.to_str().expect("the path is text")];
        let mut process = inside(machine, || Process::spawn("nats-server", &mut command(&words)));
        process.wait_for_text("Server is ready");
        Self {
            process,
            address,
            machine: machine.map(str::to_owned),
        }
    }

    /// Kills it as a crash would.
    pub(crate) fn kill(mut self) {
        self.process.kill();
    }

    /// Returns what the stream says of itself; `None` if it is not there.
    pub(crate) fn info(&self, stream: &str) -> Option<Info> {
        self.ask(async |context| Some(context.get_stream(stream).await.ok()?.cached_info().clone()))
    }

    /// Returns the messages of a stream in order.
    pub(crate) fn messages(&self, stream: &str) -> Vec<Stored> {
        self.ask(async |context| {
            let Ok(stream) = context.get_stream(stream).await else {
                return Vec::new();
            };
            let state = &stream.cached_info().state;
            let mut messages = Vec::new();
            for sequence in state.first_sequence..=state.last_sequence {
                let message = stream.get_raw_message(sequence).await.expect("it is stored");
                let id = message.headers.get("Nats-Msg-Id").map(ToString::to_string);
                messages.push(Stored {
                    subject: message.subject.to_string(),
                    id: id.unwrap_or_default(),
                    payload: String::from_utf8_lossy(&message.payload).into_owned(),
                });
            }
            messages
        })
    }

    /// Creates a stream by hand.
    pub(crate) fn create(&self, config: jetstream::stream::Config) {
        self.ask(async |context| {
            context.create_stream(config.clone()).await.expect("it is new");
        });
    }

    /// Deletes a stream.
    pub(crate) fn delete(&self, stream: &str) {
        self.ask(async |context| {
            context.delete_stream(stream).await.expect("it is there");
        });
    }

    /// Returns what the stream says of itself, if the server answers soon: while its cluster has no leader it says nothing.
    pub(crate) fn info_now(&self, stream: &str) -> Option<Info> {
        self.ask_within(ANSWER_TIME, async |context| {
            Some(context.get_stream(stream).await.ok()?.cached_info().clone())
        })
    }

    fn ask<T: Send>(&self, question: impl AsyncFn(&jetstream::Context) -> T + Send) -> T {
        self.ask_within(PATIENCE, question)
    }

    fn ask_within<T: Send>(
        &self,
        wait: Duration,
        question: impl AsyncFn(&jetstream::Context) -> T + Send,
    ) -> T {
        let address = self.address;
        inside(self.machine.as_deref(), move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("the system has timers");
            runtime.block_on(async {
                let options = async_nats::ConnectOptions::new()
                    .connection_timeout(PATIENCE)
                    .request_timeout(Some(wait));
                let client = options.connect(address.to_string()).await;
                let mut context = jetstream::new(client.expect("the server runs"));
                context.set_timeout(wait);
                question(&context).await
            })
        })
    }
}

/// How long a server is waited for that may have nothing to say.
const ANSWER_TIME: Duration = Duration::from_secs(2);
const SERVER: &str = "/usr/sbin/nats-server";
