//! I/O driver of fieldgate: sockets, durable writes, clocks, threads; no protocol knowledge.
//!
//! A *shard* is one thread that owns one [`Driver`]. The driver waits, calls a [`Handler`] with what happened, and
//! carries out at the end of each *turn* what the handler asked for through [`Io`]: one send per connection and turn,
//! however many messages were written.
//!
//! ```text
//!            ┌──────────────────────────── one turn ────────────────────────────┐
//!   flush ─▶ wait (deadline, coalescing window) ─▶ accepted/received/written/woken … ─▶ turn_ended ─┐
//!     ▲                                                                                             │
//!     └─────────────────────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! Two backends do the same behind it, chosen once per process by [`Backend::select`]: io_uring and epoll.
//!
//! The other parts serve the threads around the shards: [`mailbox`] and [`Waker`] carry messages between threads,
//! [`storage`] executes what a journal asks for, [`files`] appends lines durably, [`lock`] keeps files for one process,
//! [`clock`] is the only reader of clocks, [`thread`] names and pins threads, [`process`] hardens the process.
//!
//! It is the only crate of the workspace with `unsafe` code, confined to the modules that say so at their top.

pub mod clock;
pub mod files;
pub mod interfaces;
pub mod lock;
pub mod mailbox;
pub mod process;
pub mod storage;
pub mod terminal;
pub mod thread;

mod backend;
mod connection;
mod datagram;
mod driver;
mod epoll;
mod handler;
mod io;
mod local;
mod outbox;
mod shard;
mod sys;
mod table;
mod uring;
mod waker;

pub use backend::{Backend, BackendChoice, BackendError, Selected, UnknownBackend};
pub use connection::{BufferClass, CloseReason, ConnectionId, ListenerId};
pub use datagram::{DatagramId, DatagramOptions, DatagramPath};
pub use driver::Driver;
pub use handler::{Handler, LocalPeer, Turn};
pub use io::{ConnectOptions, Io, ListenOptions};
pub use shard::{Settings, SettingsError, Stats};

pub use waker::Waker;
