//! An HTTP server that does what a test tells it to.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

/// A request as it came.
#[derive(Clone, Debug)]
pub(super) struct Posted {
    /// Headers with names in lower case.
    pub(super) headers: BTreeMap<String, String>,
    pub(super) body: Vec<u8>,
}

/// What the server does with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reaction {
    /// Keeps it and answers 200.
    Take,
    /// Keeps it and closes the connection without an answer.
    TakeAndVanish,
    /// Answers with this status.
    Refuse(u16),
    /// Answers 400 to what contains this text, and takes the rest.
    RefuseText(&'static str),
}

/// A server on 127.0.0.1, until it is stopped.
pub(super) struct HttpServer {
    port: u16,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    reaction: Mutex<Reaction>,
    /// Everything that came, whatever became of it.
    seen: Mutex<Vec<Posted>>,
    /// What was kept, by idempotency key.
    kept: Mutex<BTreeMap<String, Posted>>,
    stopping: AtomicBool,
    connections: Mutex<Vec<TcpStream>>,
}

impl HttpServer {
    /// Starts it.
    ///
    /// # Panics
    /// If the port is taken.
    pub(super) fn start(port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).expect("the port is free");
        let shared = Arc::new(Shared {
            reaction: Mutex::new(Reaction::Take),
            seen: Mutex::default(),
            kept: Mutex::default(),
            stopping: AtomicBool::new(false),
            connections: Mutex::default(),
        });
        let serving = Arc::clone(&shared);
        let thread = thread::spawn(move || {
            for stream in listener.incoming() {
                if serving.stopping.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let again = stream.try_clone().expect("a descriptor");
                {
                    let mut connections = serving.connections.lock().expect("no thread panics");
                    // Whoever ends it has seen those that are in there.
                    if serving.stopping.load(Ordering::SeqCst) {
                        return;
                    }
                    connections.push(again);
                }
                let serving = Arc::clone(&serving);
                thread::spawn(move || drop(serve(&stream, &serving)));
            }
        });
        Self {
            port,
            shared,
            thread: Some(thread),
        }
    }

    /// Says what becomes of requests from now on.
    pub(super) fn react(&self, reaction: Reaction) {
        *self.shared.reaction.lock().expect("no thread panics") = reaction;
    }

    /// Returns everything that came.
    pub(super) fn seen(&self) -> Vec<Posted> {
        self.shared.seen.lock().expect("no thread panics").clone()
    }

    /// Returns what a server keeps that takes each key once.
    pub(super) fn kept(&self) -> BTreeMap<String, Posted> {
        self.shared.kept.lock().expect("no thread panics").clone()
    }

    /// Ends it with all connections.
    pub(super) fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        for stream in self
            .shared
            .connections
            .lock()
            .expect("no thread panics")
            .drain(..)
        {
            let _ = stream.shutdown(Shutdown::Both);
        }
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for HttpServer {
    fn drop(&mut self) {
        self.end();
    }
}

fn serve(stream: &TcpStream, shared: &Shared) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let mut headers = BTreeMap::new();
        loop {
            let mut header = String::new();
            reader.read_line(&mut header)?;
            let Some((name, value)) = header.trim_end().split_once(':') else {
                break;
            };
            headers.insert(name.to_lowercase(), value.trim().to_owned());
        }
        let length: usize = headers
            .get("content-length")
            .and_then(|text| text.parse().ok())
            .unwrap_or(0);
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        let posted = Posted { headers, body };
        shared.seen.lock().expect("no thread panics").push(posted.clone());
        let reaction = *shared.reaction.lock().expect("no thread panics");
        let has = |text: &str| {
            posted
                .body
                .windows(text.len())
                .any(|part| part == text.as_bytes())
        };
        let status = match reaction {
            Reaction::Take | Reaction::TakeAndVanish => 200,
            Reaction::Refuse(status) => status,
            Reaction::RefuseText(text) => {
                if has(text) {
                    400
                } else {
                    200
                }
            }
        };
        if status == 200 {
            let key = posted.headers.get("idempotency-key").cloned().unwrap_or_default();
            shared
                .kept
                .lock()
                .expect("no thread panics")
                .entry(key)
                .or_insert(posted);
        }
        if reaction == Reaction::TakeAndVanish {
            return stream.shutdown(Shutdown::Both);
        }
        let text = format!("HTTP/1.1 {status} Whatever\r\nContent-Length: 2\r\n\r\nok");
        (&*stream).write_all(text.as_bytes())?;
    }
}
