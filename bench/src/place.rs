//! Where a process or a socket lives: this machine's network, or a namespace made for the measurement.

use std::fs::File;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::thread;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::failure::Failure;
use crate::process::complete;

/// A network; clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Place(Option<Arc<Namespace>>);

/// A network namespace, which is deleted with what is in it when the last [`Place`] is dropped.
#[derive(Debug)]
struct Namespace {
    name: String,
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // What is left of it can be seen with `ip netns`.
        let _ = complete(Command::new("ip").args(["netns", "del", &self.name]));
    }
}

impl Place {
    /// Returns this machine's network.
    pub(crate) const fn here() -> Self {
        Self(None)
    }

    /// Makes a namespace with a loopback interface. Needs root.
    pub(crate) fn fresh(name: &str) -> Result<Self, Failure> {
        let name = format!("fgbench-{}-{name}", std::process::id());
        complete(Command::new("ip").args(["netns", "add", &name]))?;
        let place = Self(Some(Arc::new(Namespace { name })));
        place.ip(&["link", "set", "lo", "up"])?;
        Ok(place)
    }

    /// Returns the name of the namespace; `None` for this machine's network.
    pub(crate) fn name(&self) -> Option<&str> {
        self.0.as_ref().map(|namespace| namespace.name.as_str())
    }

    /// Returns a command that runs here. Its process is the program's own.
    pub(crate) fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        match self.name() {
            None => Command::new(program),
            Some(name) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", name]).arg(program);
                command
            }
        }
    }

    /// Has `ip` do something here.
    pub(crate) fn ip(&self, words: &[&str]) -> Result<(), Failure> {
        complete(self.command("ip").args(words)).map(drop)
    }

    /// Lays a cable, which is `device` here and `other_device` in another namespace.
    pub(crate) fn cable(&self, device: &str, other: &Self, other_device: &str) -> Result<(), Failure> {
        let (Some(name), Some(other)) = (self.name(), other.name()) else {
            return Err(Failure::peer("this machine", "has its addresses already"));
        };
        let mut pair = Command::new("ip");
        pair.args(["link", "add", device, "netns", name, "type", "veth"]);
        complete(pair.args(["peer", "name", other_device, "netns", other])).map(drop)
    }

    /// Moves the calling thread here, for good.
    pub(crate) fn enter(&self) -> Result<(), Failure> {
        let Some(name) = self.name() else { return Ok(()) };
        let path = format!("/run/netns/{name}");
        let file = File::open(&path).map_err(Failure::io(format!("opening {path}")))?;
        move_into_link_name_space(std::os::fd::AsFd::as_fd(&file), Some(LinkNameSpaceType::Network))
            .map_err(|error| Failure::io(format!("entering {name}"))(error.into()))
    }

    /// Does something here, on a thread of its own.
    fn run<T: Send>(&self, act: impl FnOnce() -> Result<T, Failure> + Send) -> Result<T, Failure> {
        thread::scope(|scope| {
            let thread = scope.spawn(|| self.enter().and_then(|()| act()));
            thread
                .join()
                .unwrap_or_else(|_| Err(Failure::peer("a thread", "panicked")))
        })
    }

    /// Listens here.
    pub(crate) fn listen(&self, address: SocketAddr) -> Result<TcpListener, Failure> {
        self.run(|| TcpListener::bind(address).map_err(Failure::io(format!("listening at {address}"))))
    }

    /// Connects from here.
    pub(crate) fn connect(&self, address: SocketAddr) -> Result<TcpStream, Failure> {
        let what = Failure::io(format!("connecting to {address}"));
        self.run(|| TcpStream::connect(address).map_err(what))
    }
}
