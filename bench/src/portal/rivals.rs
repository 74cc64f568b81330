//! What fieldgate is compared with, each set up for speed.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use super::tunnel::Tunnel;
use crate::failure::Failure;
use crate::node::write;
use crate::place::Place;
use crate::process::{Running, complete};

/// What a rival needs to know.
pub(crate) struct Ground<'a> {
    pub(crate) folder: &'a Path,
    /// Where clients are.
    pub(crate) near: &'a Place,
    /// Where the server is.
    pub(crate) far: &'a Place,
    /// Where clients connect.
    pub(crate) entry: SocketAddr,
    /// Where the two halves meet.
    pub(crate) meeting: SocketAddr,
    pub(crate) server: SocketAddr,
}

/// Two stunnels: TLS 1.3 with AES-128-GCM, no relay between them.
pub(crate) fn stunnel(ground: &Ground<'_>) -> Result<Tunnel, Failure> {
    let Ground {
        folder,
        near,
        far,
        entry,
        meeting,
        server,
    } = ground;
    let (certificate, key) = (folder.join("certificate.pem"), folder.join("key.pem"));
    let mut openssl = Command::new("openssl");
    openssl.args([
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
    ]);
    openssl.args(["-days", "2", "-subj", "/CN=localhost"]);
    openssl.arg("-keyout").arg(&key).arg("-out").arg(&certificate);
    complete(&mut openssl)?;
    let common = "foreground = yes\npid =\ndebug = err\nsocket = l:TCP_NODELAY=1\nsocket = r:TCP_NODELAY=1\n\n[bench]\n\
                  sslVersionMin = TLSv1.3\nciphersuites = TLS_AES_128_GCM_SHA256\n";
    let far_file = format!(
        "{common}accept = {meeting}\nconnect = {server}\ncert = {}\nkey = {}\n",
        certificate.display(),
        key.display()
    );
    let near_file = format!(
        "{common}client = yes\naccept = {entry}\nconnect = {meeting}\nverifyPeer = yes\nCAfile = {}\n",
        certificate.display()
    );
    let mut processes = Vec::new();
    for (place, name, text) in [(far, "stunnel-far", far_file), (near, "stunnel-near", near_file)] {
        let path = write(folder, &format!("{name}.conf"), &text)?;
        processes.push(Running::start(
            name,
            place.command("/usr/bin/stunnel4").arg(path),
            folder,
        )?);
    }
    Ok(Tunnel {
        entry: *entry,
        processes,
    })
}

/// `ssh -L` with AES-128-GCM to an sshd of its own.
pub(crate) fn ssh(ground: &Ground<'_>) -> Result<Tunnel, Failure> {
    let folder = ground.folder;
    for name in ["host", "client"] {
        let mut keygen = Command::new("ssh-keygen");
        complete(
            keygen
                .args(["-q", "-t", "ed25519", "-N", "", "-f"])
                .arg(folder.join(name)),
        )?;
    }
    let authorized = folder.join("authorized");
    fs::copy(folder.join("client.pub"), &authorized).map_err(Failure::io("copying a key"))?;
    let at = folder.display();
    let text = format!(
        "ListenAddress {}\nHostKey {at}/host\nAuthorizedKeysFile {at}/authorized\nPidFile none\n\
         StrictModes no\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin yes\nAllowTcpForwarding yes\nLogLevel ERROR\n",
        ground.meeting
    );
    let path = write(folder, "sshd.conf", &text)?;
    // Debian makes this folder when its own service starts.
    let _ = fs::create_dir("/run/sshd");
    let mut server = ground.far.command("/usr/sbin/sshd");
    let server = Running::start("sshd", server.args(["-D", "-e", "-f"]).arg(path), folder)?;
    let user = String::from_utf8_lossy(&complete(Command::new("id").arg("-un"))?)
        .trim()
        .to_owned();
    let mut client = ground.near.command("ssh");
    client.args(["-N", "-F", "none", "-c", "aes128-gcm@openssh.com"]);
    client.arg("-i").arg(folder.join("client"));
    for option in [
        "IdentitiesOnly=yes",
        "StrictHostKeyChecking=no",
        "UserKnownHostsFile=/dev/null",
        "ExitOnForwardFailure=yes",
        "LogLevel=ERROR",
        "BatchMode=yes",
        // The daemon may not listen yet.
        "ConnectionAttempts=20",
    ] {
        client.args(["-o", option]);
    }
    client
        .arg("-L")
        .arg(format!("{}:{}", ground.entry, ground.server));
    client.arg("-p").arg(ground.meeting.port().to_string());
    client.arg(format!("{user}@{}", ground.meeting.ip()));
    let client = Running::start("ssh", &mut client, folder)?;
    Ok(Tunnel {
        entry: ground.entry,
        processes: vec![client, server],
    })
}

/// Two nebula nodes in two namespaces, clients in the one and the server in the other at [`NEBULA_SERVER`].
pub(crate) fn nebula(folder: &Path, near: &Place, far: &Place) -> Result<Tunnel, Failure> {
    let certificates = |arguments: &[&str]| {
        complete(Command::new("nebula-cert").args(arguments).current_dir(folder)).map(drop)
    };
    certificates(&["ca", "-name", "bench"])?;
    let mut processes = Vec::new();
    for (place, name, overlay) in [
        (far, "nebula-far", NEBULA_FAR),
        (near, "nebula-near", NEBULA_NEAR),
    ] {
        certificates(&["sign", "-name", name, "-ip", &format!("{overlay}/24")])?;
        let text = nebula_file(folder, name, overlay == NEBULA_FAR);
        let path = write(folder, &format!("{name}.yml"), &text)?;
        let mut command = place.command("nebula");
        processes.push(Running::start(name, command.arg("-config").arg(path), folder)?);
    }
    Ok(Tunnel {
        entry: (NEBULA_SERVER, SERVER_PORT).into(),
        processes,
    })
}

fn nebula_file(folder: &Path, name: &str, is_far: bool) -> String {
    let at = folder.display();
    let mut text = format!(
        "pki:\n  ca: {at}/ca.crt\n  cert: {at}/{name}.crt\n  key: {at}/{name}.key\n\
         static_host_map:\n  \"{NEBULA_FAR}\": [\"{FAR_ADDRESS}:4242\"]\n\
         listen:\n  host: 0.0.0.0\n  port: 4242\n  read_buffer: 10485760\n  write_buffer: 10485760\n\
         tun:\n  dev: nebula1\n  tx_queue: 500\n  mtu: 1300\n\
         logging:\n  level: error\n\
         firewall:\n  outbound:\n    - port: any\n      proto: any\n      host: any\n  \
         inbound:\n    - port: any\n      proto: any\n      host: any\n"
    );
    let _ = if is_far {
        writeln!(text, "lighthouse:\n  am_lighthouse: true")
    } else {
        writeln!(
            text,
            "lighthouse:\n  am_lighthouse: false\n  hosts: [\"{NEBULA_FAR}\"]"
        )
    };
    text
}

/// Connects two namespaces: [`NEAR_ADDRESS`] is in the first, [`FAR_ADDRESS`] in the second.
pub(crate) fn join(near: &Place, far: &Place) -> Result<(), Failure> {
    near.cable("veth", far, "veth")?;
    for (place, address) in [(near, NEAR_ADDRESS), (far, FAR_ADDRESS)] {
        let network = format!("{address}/24");
        place.ip(&["address", "add", &network, "dev", "veth"])?;
        place.ip(&["link", "set", "veth", "up"])?;
    }
    Ok(())
}

/// Addresses at the two ends of what joins two namespaces.
pub(crate) const NEAR_ADDRESS: &str = "10.77.9.1";
pub(crate) const FAR_ADDRESS: &str = "10.77.9.2";
const NEBULA_NEAR: &str = "10.77.8.1";
const NEBULA_FAR: &str = "10.77.8.2";
/// Where clients find the server through nebula.
pub(crate) const NEBULA_SERVER: std::net::Ipv4Addr = std::net::Ipv4Addr::new(10, 77, 8, 2);
/// The server's port where it has a namespace for itself.
pub(crate) const SERVER_PORT: u16 = 5000;
