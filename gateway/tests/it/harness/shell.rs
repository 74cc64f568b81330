//! A shell on a machine of its own, for commands as they stand in a guide.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::ChildStdin,
};

use super::{
    process::{Process, command},
    wait::PATIENCE,
};

/// A shell with a loopback network and process numbers of its own: addresses and ports of a guide can be used as they are, and
/// whatever it leaves in the background ends with it. Needs root.
pub(crate) struct Shell {
    process: Process,
    /// Closed to end the shell.
    input: Option<ChildStdin>,
    dir: PathBuf,
    ran: usize,
}

impl Shell {
    /// Starts it in `dir`, where the binary under test is the command `fieldgate`.
    ///
    /// # Panics
    /// If this process is not root, or the programs are not installed.
    pub(crate) fn start(dir: &Path) -> Self {
        assert!(
            rustix::process::geteuid().is_root(),
            "namespaces need root: run the tests as root, or in a container that has CAP_NET_ADMIN and CAP_SYS_ADMIN"
        );
        let binary = Path::new(env!("CARGO_BIN_EXE_fieldgate"));
        let programs = binary.parent().expect("the binary is in a directory");
        let path = std::env::var("PATH").expect("there is a PATH");
        let mut bash = command(&[
            "unshare",
            "--net",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
        ]);
        bash.args(["bash", "--noprofile", "--norc"]).current_dir(dir);
        bash.env("PATH", format!("{}:{path}", programs.display()));
        let (process, input) = Process::spawn_with_input("the shell", &mut bash);
        let mut shell = Self {
            process,
            input: Some(input),
            dir: dir.to_owned(),
            ran: 0,
        };
        shell.run("set -eu -o pipefail; ip link set lo up");
        shell
    }

    /// Runs commands to their end and returns what they print. They see what those before have set and where they went.
    ///
    /// # Panics
    /// If one fails that is not in a condition, or they take longer than [`PATIENCE`]; with everything that was printed.
    pub(crate) fn run(&mut self, text: &str) -> Vec<String> {
        self.ran += 1;
        let script = self.dir.join(format!("commands-{}.sh", self.ran));
        fs::write(&script, text).expect("the directory is ours");
        let end = format!("[end of commands {}]", self.ran);
        // Commands that read their input must not eat what is to run next.
        let line = format!(". '{}' < /dev/null; echo; echo '{end}'\n", script.display());
        let input = self.input.as_mut().expect("it is open until the end");
        input
            .write_all(line.as_bytes())
            .expect("the shell takes commands");
        let mut printed = Vec::new();
        self.process.wait_for(&end, |line| {
            let over = line == end;
            printed.push(line.to_owned());
            over.then_some(())
        });
        printed
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        // The shell is the first process of its namespace, which the kernel empties before it is reported to have ended.
        self.input = None;
        let _ = self.process.ends_within(PATIENCE);
    }
}
