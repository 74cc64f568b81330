//! Debian's nats-server with JetStream, and a look into its streams.

use std::{fs, path::Path, time::Duration};

use async_nats::jetstream::{self, stream::Info};

use crate::harness::{
    process::{Process, command},
    wait::PATIENCE,
};

/// A server on a port of 127.0.0.1; its streams outlive it.
pub(crate) struct NatsServer {
    process: Process,
    port: u16,
}

/// A message as the stream has it.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) subject: String,
    pub(crate) id: String,
    pub(crate) payload: String,
}

impl NatsServer {
    /// Starts it with its files in `dir`, and `more` in its file.
    ///
    /// # Panics
    /// If it does not run.
    pub(crate) fn start(dir: &Path, port: u16, more: &str) -> Self {
        fs::create_dir_all(dir).expect("the directory above is ours");
        let store = dir.join("jetstream");
        let file = dir.join("nats.conf");
        let text = format!(
            "listen: \"127.0.0.1:{port}\"\njetstream {{ store_dir: \"{}\", max_file_store: 64MB }}\n{more}\n",
            store.display()
        );
        fs::write(&file, text).expect("the directory is ours");
        let words = [SERVER, "-c", file.to_str().expect("the path is text")];
        let mut process = Process::spawn("nats-server", &mut command(&words));
        process.wait_for_text("Server is ready");
        Self { process, port }
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

    fn ask<T>(&self, question: impl AsyncFn(&jetstream::Context) -> T) -> T {
        self.ask_within(PATIENCE, question)
    }

    fn ask_within<T>(&self, wait: Duration, question: impl AsyncFn(&jetstream::Context) -> T) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("the system has timers");
        runtime.block_on(async {
            let options = async_nats::ConnectOptions::new()
                .connection_timeout(PATIENCE)
                .request_timeout(Some(wait));
            let client = options.connect(format!("127.0.0.1:{}", self.port)).await;
            let mut context = jetstream::new(client.expect("the server runs"));
            context.set_timeout(wait);
            question(&context).await
        })
    }
}

/// How long a server is waited for that may have nothing to say.
const ANSWER_TIME: Duration = Duration::from_secs(2);
const SERVER: &str = "/usr/sbin/nats-server";
