//! `test`: the whole suite, on both I/O backends.

use clap::{Args, ValueEnum};

use crate::failure::Failure;
use crate::fuzz;
use crate::partitions;
use crate::program::Program;
use crate::workspace::Workspace;

/// Which part of the suite runs.
#[derive(Args, Default)]
pub(crate) struct Options {
    /// Only this I/O backend, with the whole suite; without it: everything on io_uring, I/O again on epoll
    #[arg(long, value_enum)]
    backend: Option<Backend>,
}

/// The I/O backend that tests are made to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Backend {
    /// The io_uring data plane.
    Uring,
    /// The epoll fallback.
    Epoll,
}

impl Backend {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Uring => "uring",
            Self::Epoll => "epoll",
        }
    }
}

/// Runs the suite to its end whatever fails, and closes with one line of sums.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<(), Failure> {
    let tally = measure(workspace, options)?;
    tally.conclude()
}

/// Runs the suite and returns the sums, so that a caller can print something before they close its output.
pub(crate) fn measure(workspace: &Workspace, options: &Options) -> Result<Tally, Failure> {
    let mut tally = Tally::default();
    match options.backend {
        Some(backend) => run_on(workspace, backend, &["--workspace"], &mut tally)?,
        None => {
            run_on(workspace, Backend::Uring, &["--workspace"], &mut tally)?;
            run_on(workspace, Backend::Epoll, &IO_CRATES, &mut tally)?;
        }
    }
    let corpora = Program::cargo_build(workspace, "test")
        .args(["--manifest-path", fuzz::MANIFEST, "--lib", "--target-dir"])
        .arg(workspace.target_dir());
    run_one(corpora, &mut tally)?;
    Ok(tally)
}

fn run_on(
    workspace: &Workspace,
    backend: Backend,
    packages: &[&str],
    tally: &mut Tally,
) -> Result<(), Failure> {
    let program = Program::cargo_build(workspace, "test")
        .args(packages)
        .args(["--no-fail-fast", "--"])
        .args(partitions::TESTS.iter().flat_map(|test| ["--skip", *test]))
        .env("FIELDGATE_IO", backend.name())
        .env(PROPERTY_SEED_NAME, PROPERTY_SEED);
    run_one(program, tally)
}

/// Runs one call of `cargo test` and adds what it counts.
pub(crate) fn run_one(program: Program, tally: &mut Tally) -> Result<(), Failure> {
    let line = program.line().to_owned();
    let mut part = Tally::default();
    let ended_well = program.watch(|line| part.add_line(line))?;
    if ended_well && part.total() == 0 {
        return Err(Failure::NoTests { line });
    }
    if !ended_well && part.failed == 0 {
        // It did not compile, or a test binary died before it could count.
        part.broken = Some(line);
    }
    tally.add(part);
    Ok(())
}

/// Sums over the closing lines of test binaries.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    passed: u64,
    failed: u64,
    ignored: u64,
    /// A runner that failed without a failed test.
    broken: Option<String>,
}

impl Tally {
    /// Takes a line if it closes a test binary: `test result: ok. 3 passed; 0 failed; 0 ignored; …`.
    pub(crate) fn add_line(&mut self, line: &str) {
        let Some((_, counts)) = line
            .strip_prefix("test result: ")
            .and_then(|rest| rest.split_once(". "))
        else {
            return;
        };
        for part in counts.split(';') {
            let Some((count, what)) = part.trim().split_once(' ') else {
                continue;
            };
            let Ok(count) = count.parse::<u64>() else { continue };
            match what {
                "passed" => self.passed += count,
                "failed" => self.failed += count,
                "ignored" => self.ignored += count,
                _ => {}
            }
        }
    }

    /// Returns how many tests ran.
    pub(crate) const fn total(&self) -> u64 {
        self.passed + self.failed
    }

    /// Prints the closing line and turns failed tests into an error.
    pub(crate) fn conclude(self) -> Result<(), Failure> {
        println!(
            "tests: {} passed, {} failed, {} skipped",
            self.passed, self.failed, self.ignored
        );
        if self.failed > 0 {
            return Err(Failure::Tests {
                failed: self.failed,
                total: self.total(),
            });
        }
        match self.broken {
            Some(line) => Err(Failure::Status {
                line,
                status: "an error outside of any test".to_owned(),
            }),
            None => Ok(()),
        }
    }

    fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored += other.ignored;
        self.broken = self.broken.take().or(other.broken);
    }
}

/// The crates whose tests touch sockets or files through the driver.
const IO_CRATES: [&str; 2] = ["--package=fieldgate-io", "--package=fieldgate"];

/// The variable with which proptest is told what to draw.
pub(crate) const PROPERTY_SEED_NAME: &str = "PROPTEST_RNG_SEED";
/// The suite tries the same inputs each time, so that a change is judged by what it changes; `properties` looks for others.
const PROPERTY_SEED: &str = "20260101";

#[cfg(test)]
mod tests {
    use super::{Failure, Tally};

    #[test]
    fn sums_the_closing_lines_of_test_binaries() {
        let mut tally = Tally::default();
        tally.add_line("running 3 tests\n");
        tally.add_line(
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out; finished in 0.00s\n",
        );
        tally.add_line("test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out\n");
        assert_eq!(
            tally,
            Tally {
                passed: 4,
                failed: 2,
                ignored: 1,
                broken: None
            }
        );
    }

    #[test]
    fn a_failed_test_is_an_error_of_the_recipe() {
        let tally = Tally {
            passed: 4,
            failed: 2,
            ..Tally::default()
        };
        assert!(matches!(
            tally.conclude(),
            Err(Failure::Tests { failed: 2, total: 6 })
        ));
    }

    #[test]
    fn a_runner_that_broke_is_an_error_though_no_test_failed() {
        let tally = Tally {
            passed: 4,
            broken: Some("cargo test".to_owned()),
            ..Tally::default()
        };
        assert!(matches!(tally.conclude(), Err(Failure::Status { .. })));
    }
}
