//! The clients, which know an inlet's address only.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use super::{Ground, Program};
use crate::clock;
use crate::failure::Failure;
use crate::node::write;
use crate::process::complete;

/// Runs a program's client to its end and checks what it says. Returns that in short.
pub(super) fn run(program: Program, ground: &Ground<'_>) -> Result<String, Failure> {
    match program {
        Program::Psql => psql(ground),
        Program::Ssh => ssh(ground),
        Program::Rsync => rsync(ground),
        Program::Browser => browser(ground),
        Program::Modbus => modbus(ground),
        Program::Iperf3 => iperf3(ground),
    }
}

/// Returns a command that is ended if it hangs.
fn limited(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new("timeout");
    command.args(["--kill-after", "5", "300"]).arg(program);
    command
}

/// Fails unless what a program said is what it should.
fn demand(who: &str, said: &str, wanted: &str) -> Result<(), Failure> {
    if said.trim() == wanted {
        return Ok(());
    }
    Err(Failure::peer(who, format!("said {said:?} instead of {wanted:?}")))
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Writes a table of ten megabytes, reads it back, and compares sums.
fn psql(ground: &Ground<'_>) -> Result<String, Failure> {
    let ask = |sql: &str| {
        let mut psql = limited("psql");
        psql.args([
            "--no-psqlrc",
            "-qAt",
            "-v",
            "ON_ERROR_STOP=1",
            "-U",
            "bench",
            "-d",
            "postgres",
        ]);
        psql.args(["-h", "127.0.0.1", "-p"])
            .arg(ground.entry.port().to_string());
        complete(psql.args(["-c", sql])).map(text)
    };
    // A database that has just been started may still be recovering.
    let mut tries = 0;
    while let Err(failure) = ask("select 1") {
        tries += 1;
        if tries > TRIES {
            return Err(failure);
        }
        clock::pause(STEP);
    }
    ask(
        "create table reading as select n, repeat(md5(n::text), 3) as words from generate_series(1, 100000) n",
    )?;
    let sum = ask("select count(*), sum(n), sum(length(words)) from reading")?;
    demand("psql", &sum, "100000|5000050000|9600000")?;
    let all = ask("copy reading to stdout")?;
    let lines = all.lines().count();
    demand("psql", &lines.to_string(), "100000")?;
    Ok(format!("100000 rows, {} bytes read", all.len()))
}

/// Returns an ssh that logs in with the key of the server's folder.
fn ssh_words(ground: &Ground<'_>) -> Result<Vec<String>, Failure> {
    let key = ground.folder.join("client");
    let mut words: Vec<String> = ["ssh", "-F", "none", "-i"].map(str::to_owned).to_vec();
    words.push(key.display().to_string());
    for option in [
        "IdentitiesOnly=yes",
        "StrictHostKeyChecking=no",
        "UserKnownHostsFile=/dev/null",
        "LogLevel=ERROR",
        "BatchMode=yes",
    ] {
        words.extend(["-o".to_owned(), option.to_owned()]);
    }
    words.extend(["-p".to_owned(), ground.entry.port().to_string()]);
    Ok(words)
}

fn login() -> Result<String, Failure> {
    let user = text(complete(Command::new("id").arg("-un"))?);
    Ok(format!("{}@127.0.0.1", user.trim()))
}

/// Writes `count` bytes that look random.
fn random_file(path: &Path, count: usize) -> Result<(), Failure> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(count + 8);
    while bytes.len() < count {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_be_bytes());
    }
    bytes.truncate(count);
    fs::write(path, bytes).map_err(Failure::io(format!("writing {}", path.display())))
}

/// Sends a file through a command at the far end and gets its hash back, then the file itself.
fn ssh(ground: &Ground<'_>) -> Result<String, Failure> {
    let path = ground.folder.join("sent");
    random_file(&path, FILE_BYTES)?;
    let hash = |bytes: Vec<u8>| text(bytes).split(' ').next().unwrap_or_default().to_owned();
    let wanted = hash(complete(limited("sha256sum").arg(&path))?);
    let words = ssh_words(ground)?;
    let remote = |command: &str| -> Result<Vec<u8>, Failure> {
        let mut line = Command::new("timeout");
        line.args(["300", "sh", "-c", "exec \"$@\" < \"$0\""]).arg(&path);
        line.args(&words).arg(login()?).arg(command);
        complete(&mut line)
    };
    demand("ssh", &hash(remote("sha256sum")?), &wanted)?;
    let back = remote("cat")?;
    let sent = fs::read(&path).map_err(Failure::io("reading what was sent"))?;
    if back != sent {
        return Err(Failure::peer("ssh", "brought back something else"));
    }
    Ok(format!("{FILE_BYTES} bytes there, hashed, and back"))
}

/// Copies a tree to the far end; a second run, which compares checksums, must find nothing to do.
fn rsync(ground: &Ground<'_>) -> Result<String, Failure> {
    let (from, to) = (ground.folder.join("from"), ground.folder.join("to"));
    for folder in [&from, &to] {
        fs::create_dir(folder).map_err(Failure::io("making a folder"))?;
    }
    for number in 0..FILES {
        random_file(&from.join(format!("file-{number}")), number * 997)?;
    }
    random_file(&from.join("large"), FILE_BYTES)?;
    let shell = ssh_words(ground)?.join(" ");
    let target = format!("{}:{}/", login()?, to.display());
    let copy = |more: &[&str]| {
        let mut rsync = limited("rsync");
        rsync.args(["--archive", "--checksum", "-e", &shell]).args(more);
        complete(rsync.arg(format!("{}/", from.display())).arg(&target)).map(text)
    };
    copy(&[])?;
    let left = copy(&["--dry-run", "--itemize-changes"])?;
    demand("rsync", &left, "")?;
    complete(limited("diff").arg("-r").arg(&from).arg(&to))?;
    Ok(format!("{} files, compared by checksum", FILES + 1))
}

/// Loads the page in a headless browser, which says how many images it got.
fn browser(ground: &Ground<'_>) -> Result<String, Failure> {
    let profile = ground.folder.join("profile");
    let mut chromium = limited("chromium");
    chromium.args([
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
    ]);
    chromium.args([
        "--no-first-run",
        "--disable-background-networking",
        "--virtual-time-budget=60000",
    ]);
    chromium.arg(format!("--user-data-dir={}", profile.display()));
    chromium
        .arg("--dump-dom")
        .arg(format!("http://{}/", ground.entry));
    let page = text(complete(&mut chromium)?);
    if !page.contains("loaded 200 failed 0") {
        let _ = write(ground.folder, "page.html", &page);
        let said = page
            .split("id=\"said\">")
            .nth(1)
            .and_then(|rest| rest.split('<').next());
        return Err(Failure::peer("chromium", format!("said {said:?}")));
    }
    Ok("a page with 200 images".to_owned())
}

fn modbus(ground: &Ground<'_>) -> Result<String, Failure> {
    let mut client = limited(ground.python);
    client.arg(ground.folder.join("modbus.py"));
    let said = text(complete(client.args(["ask", &ground.entry.port().to_string()]))?);
    demand("pymodbus", &said, "1000 registers written and read")?;
    Ok(said.trim().to_owned())
}

/// Eight streams at once, there and then back.
fn iperf3(ground: &Ground<'_>) -> Result<String, Failure> {
    let ask = |more: &[&str]| -> Result<f64, Failure> {
        let mut iperf = limited("iperf3");
        iperf.args([
            "--client",
            "127.0.0.1",
            "--json",
            "--time",
            "3",
            "--parallel",
            "8",
            "--port",
        ]);
        let said = complete(iperf.arg(ground.entry.port().to_string()).args(more))?;
        let said: Value = serde_json::from_slice(&said).map_err(|error| Failure::Format {
            what: "what iperf3 says".to_owned(),
            problem: error.to_string(),
        })?;
        let rate = said["end"]["sum_received"]["bits_per_second"].as_f64();
        rate.filter(|rate| *rate > 0.0)
            .map(|rate| rate / 1e9)
            .ok_or_else(|| Failure::peer("iperf3", format!("carried nothing: {}", said["error"])))
    };
    // The server may not listen yet, or still be busy with the end of the test before.
    let patient = |more: &[&str]| {
        let mut tries = 0;
        loop {
            match ask(more) {
                Err(_) if tries < TRIES => {
                    tries += 1;
                    clock::pause(STEP);
                }
                outcome => return outcome,
            }
        }
    };
    let (there, back) = (patient(&[])?, patient(&["--reverse"])?);
    Ok(format!("8 streams: {there:.2} Gbit/s there, {back:.2} back"))
}

/// Bytes of the large files.
const FILE_BYTES: usize = 20_000_000;
/// Small files of the tree.
const FILES: usize = 300;
/// How often a server that is starting is asked again.
const TRIES: u32 = 40;
const STEP: Duration = Duration::from_millis(250);
