//! TCP relays that do nothing but copy: what no tunnel over as many hops can go below.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;

use clap::Args;

use super::rivals::Ground;
use super::tunnel::Tunnel;
use crate::failure::Failure;
use crate::process::{Running, free_address};

/// What one relay does.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Where it listens
    #[arg(long)]
    listen: SocketAddr,
    /// Whereto it connects for each connection
    #[arg(long)]
    to: SocketAddr,
}

/// Copies between each connection and one of its own, both ways, until it is stopped.
pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    let listener = TcpListener::bind(options.listen).map_err(Failure::io("listening"))?;
    for stream in listener.incoming() {
        // One that cannot be carried on is closed, which who measures finds out.
        let _ = stream.and_then(|stream| carry(stream, options.to));
    }
    Ok(())
}

fn carry(near: TcpStream, to: SocketAddr) -> std::io::Result<()> {
    let far = TcpStream::connect(to)?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    for (from, to) in [(near.try_clone()?, far.try_clone()?), (far, near)] {
        let builder = thread::Builder::new().stack_size(STACK_BYTES);
        builder.spawn(move || copy(from, to))?;
    }
    Ok(())
}

/// Copies to the end of a stream, or until one of the two breaks, which the other then shows.
fn copy(mut from: TcpStream, mut to: TcpStream) {
    let mut buffer = vec![0; BUFFER_BYTES];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        if to.write_all(buffer.get(..count).unwrap_or_default()).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

/// Starts as many of them, one behind the other, as fieldgate has processes where there is one relay.
pub(super) fn start(ground: &Ground<'_>) -> Result<Tunnel, Failure> {
    let program = std::env::current_exe().map_err(Failure::io("looking for this program"))?;
    let mut processes = Vec::new();
    let mut to = ground.server;
    for name in ["hop-3", "hop-2", "hop-1"] {
        let listen = if name == "hop-1" {
            ground.entry
        } else {
            free_address()?
        };
        let place = if name == "hop-1" { ground.near } else { ground.far };
        let mut command = place.command(&program);
        command.arg("plain-relay");
        command.arg("--listen").arg(listen.to_string());
        command.arg("--to").arg(to.to_string());
        processes.push(Running::start(name, &mut command, ground.folder)?);
        to = listen;
    }
    Ok(Tunnel {
        entry: ground.entry,
        processes,
    })
}

/// As much as fieldgate receives at once.
const BUFFER_BYTES: usize = 256 << 10;
/// Enough for a read and a write.
const STACK_BYTES: usize = 64 << 10;
