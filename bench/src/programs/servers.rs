//! The servers behind the outlets.

use std::fs;
use std::path::Path;
use std::process::Command;

use rustix::process::getuid;

use super::{Ground, Program};
use crate::failure::Failure;
use crate::node::write;
use crate::process::{Running, complete};

/// Starts what a program talks to.
pub(super) fn start(program: Program, ground: &Ground<'_>) -> Result<Option<Running>, Failure> {
    let mut server = match program {
        Program::Psql => postgres(ground),
        Program::Ssh | Program::Rsync => sshd(ground),
        Program::Browser => http(ground),
        Program::Modbus => modbus(ground),
        Program::Iperf3 => iperf3(ground),
    }?;
    if program != Program::Iperf3 {
        server.await_listener(ground.server)?;
    }
    Ok(Some(server))
}

/// PostgreSQL refuses to run as root, so root lends the folder to the user that Debian made for it.
fn postgres(ground: &Ground<'_>) -> Result<Running, Failure> {
    let programs = postgres_programs()?;
    let data = ground.folder.join("data");
    let as_user = |program: &str| {
        let mut command = Command::new("runuser");
        if getuid().is_root() {
            command.args(["-u", "postgres", "--"]).arg(programs.join(program));
            command
        } else {
            Command::new(programs.join(program))
        }
    };
    if getuid().is_root() {
        // The folders above are private, and the server's user has to pass them.
        for folder in ground.folder.ancestors().take(2) {
            complete(Command::new("chmod").arg("a+x").arg(folder))?;
        }
        complete(Command::new("chown").arg("postgres").arg(ground.folder))?;
    }
    let mut initdb = as_user("initdb");
    complete(
        initdb
            .args(["-A", "trust", "-U", "bench", "-D"])
            .arg(&data)
            .current_dir("/"),
    )?;
    let mut server = as_user("postgres");
    server.arg("-D").arg(&data).arg("-k").arg(&data);
    server.args(["-c", "listen_addresses=127.0.0.1", "-c", "fsync=off", "-p"]);
    server.arg(ground.server.port().to_string()).current_dir("/");
    Running::start("postgres", &mut server, ground.folder)
}

/// Debian keeps the server's programs by version.
fn postgres_programs() -> Result<std::path::PathBuf, Failure> {
    let versions = Path::new("/usr/lib/postgresql");
    let found = fs::read_dir(versions).map_err(Failure::io("looking for PostgreSQL"))?;
    let newest = found.flatten().map(|entry| entry.path().join("bin")).max();
    newest.ok_or_else(|| Failure::peer("PostgreSQL", "is not installed"))
}

/// An sshd of our own, for the key `client` in the folder.
fn sshd(ground: &Ground<'_>) -> Result<Running, Failure> {
    let folder = ground.folder;
    for name in ["host", "client"] {
        let mut keygen = Command::new("ssh-keygen");
        complete(
            keygen
                .args(["-q", "-t", "ed25519", "-N", "", "-f"])
                .arg(folder.join(name)),
        )?;
    }
    let at = folder.display();
    let text = format!(
        "ListenAddress {}\nHostKey {at}/host\nAuthorizedKeysFile {at}/client.pub\nPidFile none\nStrictModes no\nUsePAM no\n\
         PasswordAuthentication no\nPermitRootLogin yes\nLogLevel ERROR\n",
        ground.server
    );
    let path = write(folder, "sshd.conf", &text)?;
    // Debian makes this folder when its own service starts.
    let _ = fs::create_dir("/run/sshd");
    let mut server = Command::new("/usr/sbin/sshd");
    Running::start("sshd", server.args(["-D", "-e", "-f"]).arg(path), folder)
}

fn http(ground: &Ground<'_>) -> Result<Running, Failure> {
    let script = write(ground.folder, "page.py", include_str!("page.py"))?;
    let mut server = Command::new("python3");
    let port = ground.server.port().to_string();
    Running::start("page", server.arg(script).arg(port), ground.folder)
}

fn modbus(ground: &Ground<'_>) -> Result<Running, Failure> {
    let script = write(ground.folder, "modbus.py", include_str!("modbus.py"))?;
    let mut server = Command::new(ground.python);
    let port = ground.server.port().to_string();
    Running::start("modbus", server.arg(script).args(["serve", &port]), ground.folder)
}

/// It serves one test at a time, and what looks whether it listens would be one; so its client tries again.
fn iperf3(ground: &Ground<'_>) -> Result<Running, Failure> {
    let mut server = Command::new("iperf3");
    server.args(["--server", "--bind", "127.0.0.1", "--port"]);
    Running::start(
        "iperf3",
        server.arg(ground.server.port().to_string()),
        ground.folder,
    )
}
