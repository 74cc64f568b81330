//! Debian's nats-server with JetStream, and a look into its streams.

use std::{fs, path::Path};

use async_nats::jetstream::{self, stream::Info};

use crate::harness::{
    process::{Process, command},
    wait::PATIENCE,
};

/// A server on a port of 127.0.0.1; its streams outlive it.
pub(super) struct NatsServer {
    process: Process,
    port: u16,
}

/// A message as the stream has it.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) subject: String,
    pub(super) id: String,
    pub(super) payload: String,
}

impl NatsServer {
    /// Starts it with its files in `dir`, and `more` in its file.
    ///
    /// # Panics
    /// If it does not run.
    pub(super) fn start(dir: &Path, port: u16, more: &str) -> Self {
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
    pub(super) fn kill(mut self) {
        self.process.kill();
    }

    /// Returns what the stream says of itself; `None` if it is not there.
    pub(super) fn info(&self, stream: &str) -> Option<Info> {
        self.ask(async |context| Some(context.get_stream(stream).await.ok()?.cached_info().clone()))
    }

    /// Returns the messages of a stream in order.
    pub(super) fn messages(&self, stream: &str) -> Vec<Stored> {
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
    pub(super) fn create(&self, config: jetstream::stream::Config) {
        self.ask(async |context| {
            context.create_stream(config.clone()).await.expect("it is new");
        });
    }

    /// Deletes a stream.
    pub(super) fn delete(&self, stream: &str) {
        self.ask(async |context| {
            context.delete_stream(stream).await.expect("it is there");
        });
    }

    fn ask<T>(&self, question: impl AsyncFn(&jetstream::Context) -> T) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("the system has timers");
        runtime.block_on(async {
            let options = async_nats::ConnectOptions::new()
                .connection_timeout(PATIENCE)
                .request_timeout(Some(PATIENCE));
            let client = options.connect(format!("127.0.0.1:{}", self.port)).await;
            let mut context = jetstream::new(client.expect("the server runs"));
            context.set_timeout(PATIENCE);
            question(&context).await
        })
    }
}

const SERVER: &str = "/usr/sbin/nats-server";
