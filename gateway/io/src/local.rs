//! UNIX sockets that are listened on: their files.

use std::{
    fs::{self, Permissions},
    io,
    net::TcpListener,
    os::unix::fs::{FileTypeExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use socket2::{Domain, SockAddr, Socket, Type};

/// The file of a socket that is listened on; it is removed with this.
#[derive(Debug)]
pub(crate) struct LocalPath(PathBuf);

impl Drop for LocalPath {
    fn drop(&mut self) {
        // It may be gone already, or its directory; whoever listens there next replaces what is left.
        let _ = fs::remove_file(&self.0);
    }
}

/// Listens at `path`. Nobody can connect before the permissions are set: the kernel refuses until `listen`.
pub(crate) fn listen(path: &Path, mode: u32, backlog: i32) -> io::Result<(TcpListener, LocalPath)> {
    let address = SockAddr::unix(path)?;
    remove_stale(path, &address)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&address)?;
    let local = LocalPath(path.to_owned());
    fs::set_permissions(path, Permissions::from_mode(mode))?;
    socket.listen(backlog)?;
    // The calls that are made on it are those that every socket has.
    Ok((TcpListener::from(socket), local))
}

/// Removes a socket on which nobody listens any more.
fn remove_stale(path: &Path, address: &SockAddr) -> io::Result<()> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !metadata.file_type().is_socket() {
        return Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "something is there that is not a socket",
        ));
    }
    let probe = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // Whoever listens and is busy lets a connect wait.
    probe.set_nonblocking(true)?;
    match probe.connect(address) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        },
        Ok(()) => Err(io::ErrorKind::AddrInUse.into()),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(io::ErrorKind::AddrInUse.into()),
        Err(error) => Err(error),
    }
}
