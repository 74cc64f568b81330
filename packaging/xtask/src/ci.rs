//! `ci`: what continuous integration runs, and nothing else.

use std::time::{Duration, Instant};

use crate::failure::Failure;
use crate::workspace::Workspace;
use crate::{check, setup, suite};

/// Sets up, checks and tests; says what each step took; ends with the sums of the tests.
pub(crate) fn run(workspace: &Workspace) -> Result<(), Failure> {
    let mut steps = Steps::default();
    steps.time("setup", || setup::run(workspace))?;
    steps.time("check", || check::run(workspace))?;
    let tally = steps.time("test", || suite::measure(workspace, &suite::Options::default()))?;
    steps.print();
    tally.conclude()
}

/// What each step took.
#[derive(Default)]
struct Steps {
    done: Vec<(&'static str, Duration)>,
}

impl Steps {
    #[expect(
        clippy::disallowed_methods,
        reason = "wall-clock time of a build step is what is asked for"
    )]
    fn time<T>(
        &mut self,
        name: &'static str,
        step: impl FnOnce() -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        println!("==> {name}");
        let started = Instant::now();
        let result = step();
        self.done.push((name, started.elapsed()));
        if result.is_err() {
            self.print();
        }
        result
    }

    fn print(&self) {
        for (name, took) in &self.done {
            println!("ci: {name} took {} s", took.as_secs());
        }
    }
}
