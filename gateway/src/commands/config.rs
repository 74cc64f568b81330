//! `fieldgate config schema|reference` and `fieldgate completions`.

use clap::CommandFactory as _;

use super::{Failure, print};
use crate::cli::{Cli, ConfigCommand};

pub(super) fn run(command: &ConfigCommand) -> Result<(), Failure> {
    match command {
        ConfigCommand::Schema => {
            let text = serde_json::to_string_pretty(&fieldgate_config::schema());
            print(&(text.map_err(|error| Failure::chain("schema", &error))? + "\n"))
        }
        ConfigCommand::Reference => print(&fieldgate_config::reference()),
    }
}

pub(super) fn completions(shell: clap_complete::Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "fieldgate", &mut script);
    print(&String::from_utf8_lossy(&script))
}
