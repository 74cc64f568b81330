//! Looking at a PKCS#11 module in a process of its own: what a vendor's library does there harms nobody.

use std::{
    io::Read as _,
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

/// Runs `hsm probe` of this very program on `module` and returns what it prints as JSON.
///
/// # Errors
/// What happened, in words.
pub(super) fn probe(module: &Path, time_max: Duration) -> Result<serde_json::Value, String> {
    let mut command = Command::new("/proc/self/exe");
    command
        .args(["hsm", "probe", "--json", "--serials", "--module"])
        .arg(module);
    let ended = run(&mut command, time_max)?;
    if ended.success {
        return serde_json::from_str(&ended.out)
            .map_err(|_| "the module printed into its own answer".to_owned());
    }
    let error = ended.err.lines().find_map(|line| line.strip_prefix("error: "));
    Err(error.map_or_else(
        || format!("the module ended its process: {}", ended.how),
        str::to_owned,
    ))
}

struct Ended {
    success: bool,
    how: String,
    out: String,
    err: String,
}

fn run(command: &mut Command, time_max: Duration) -> Result<Ended, String> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("no process: {error}"))?;
    let (out, err) = (read(child.stdout.take()), read(child.stderr.take()));
    // A module that hangs keeps both open.
    let (Ok(out), Ok(err)) = (out.recv_timeout(time_max), err.recv_timeout(time_max)) else {
        end(&mut child);
        return Err(format!(
            "the module did not answer within {} s",
            time_max.as_secs()
        ));
    };
    let status = child.wait().map_err(|error| error.to_string())?;
    Ok(Ended {
        success: status.success(),
        how: status.to_string(),
        out,
        err,
    })
}

/// Reads a pipe on a thread of its own.
fn read(pipe: Option<impl std::io::Read + Send + 'static>) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(pipe) = pipe {
            // What cannot be read any more was not said.
            let _ = pipe.take(ANSWER_BYTES_MAX).read_to_end(&mut bytes);
        }
        let _ = sender.send(String::from_utf8_lossy(&bytes).into_owned());
    });
    receiver
}

fn end(child: &mut Child) {
    // It may have ended by itself meanwhile.
    let _ = child.kill();
    let _ = child.wait();
}

/// More than any module has to say, in bytes.
const ANSWER_BYTES_MAX: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    const TIME_MAX: Duration = Duration::from_secs(300);

    fn shell(script: &str, time_max: Duration) -> Result<Ended, String> {
        run(Command::new("/bin/sh").args(["-c", script]), time_max)
    }

    #[test]
    fn output_and_end_are_told() {
        let ended = shell("echo out; echo err >&2", TIME_MAX).unwrap();
        assert!(ended.success);
        assert_eq!((ended.out.as_str(), ended.err.as_str()), ("out\n", "err\n"));
        // Without a core dump, which takes a slow machine long.
        let ended = shell("ulimit -c 0; kill -SEGV $$", TIME_MAX).unwrap();
        assert!(!ended.success && ended.how.contains("SIGSEGV"), "{}", ended.how);
    }

    #[test]
    fn a_process_that_hangs_is_ended() {
        let error = shell("exec sleep 1000", Duration::from_millis(10)).err().unwrap();
        assert_eq!(error, "the module did not answer within 0 s");
    }
}
