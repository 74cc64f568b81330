//! `fieldgate identity create|show`.

use fieldgate_proto::identity::{ChangeHistory, KeyAlgorithm};
use serde::Serialize;

use super::{Failure, check, print, print_json};
use crate::{
    cli::{Algorithm, IdentityCommand},
    runtime::keys,
    sinks::json::rfc3339,
};

#[derive(Serialize)]
struct Shown {
    identifier: String,
    algorithm: &'static str,
    keys: usize,
    created_at: String,
}

pub(super) fn run(command: IdentityCommand) -> Result<(), Failure> {
    match command {
        IdentityCommand::Create {
            config,
            algorithm,
            json,
        } => {
            let settings = check::settings(&config.config)?;
            let algorithm = match algorithm {
                Algorithm::P256 => fieldgate_hsm::Algorithm::P256,
                Algorithm::Ed25519 => fieldgate_hsm::Algorithm::Ed25519,
            };
            let wall = crate::runtime::clock::wall();
            let history = keys::create(&settings.identity, &settings.node.state_dir, algorithm, wall)
                .map_err(|error| error.into_failure())?;
            show(&history, json)
        }
        IdentityCommand::Show { config, json } => {
            let settings = check::settings(&config.config)?;
            let history =
                keys::read_history(&settings.node.state_dir).map_err(|error| error.into_failure())?;
            show(&history, json)
        }
    }
}

fn show(history: &ChangeHistory, json: bool) -> Result<(), Failure> {
    let first = history.changes().next().map_or(0, |change| change.created_at);
    let shown = Shown {
        identifier: history.identifier().to_string(),
        algorithm: match history.current_key().algorithm() {
            KeyAlgorithm::EcdsaP256 => "ECDSA P-256",
            KeyAlgorithm::Ed25519 => "Ed25519",
        },
        keys: history.changes().count(),
        created_at: rfc3339(first * 1000),
    };
    if json {
        return print_json(&shown);
    }
    print(&format!(
        "{}\n\n  key      {}, {} in all\n  created  {}\n\nOther nodes name this node by the first line in their files.\n",
        shown.identifier, shown.algorithm, shown.keys, shown.created_at
    ))
}
