//! `fieldgate identity create|show|rotate`.

use fieldgate_config::settings::OwnIdentity;
use fieldgate_proto::identity::{ChangeHistory, KeyAlgorithm};
use qrcode::{EcLevel, QrCode, render::unicode::Dense1x2};
use serde::Serialize;

use super::{Failure, check, print, print_json};
use crate::{
    cli::{Algorithm, IdentityCommand},
    control,
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
            let own = check::own_identity(&config.config)?;
            let wall = crate::runtime::clock::wall();
            let history = keys::create(&own, kind(algorithm), wall).map_err(|error| error.into_failure())?;
            show(&history, json)
        }
        IdentityCommand::Rotate {
            config,
            algorithm,
            destroy_old,
            json,
        } => rotate(
            &check::own_identity(&config.config)?,
            algorithm.map(kind),
            destroy_old,
            json,
        ),
        IdentityCommand::Show { config, qr, json } => {
            let own = check::own_identity(&config.config)?;
            let history = keys::read_history(&own.node.state_dir).map_err(|error| error.into_failure())?;
            show(&history, json)?;
            if qr {
                // Capital letters make a smaller code, and are the same identifier.
                print(&half_blocks(
                    &history.identifier().to_string().to_ascii_uppercase(),
                )?)?;
            }
            Ok(())
        }
    }
}

const fn kind(algorithm: Algorithm) -> fieldgate_hsm::Algorithm {
    match algorithm {
        Algorithm::P256 => fieldgate_hsm::Algorithm::P256,
        Algorithm::Ed25519 => fieldgate_hsm::Algorithm::Ed25519,
    }
}

fn half_blocks(text: &str) -> Result<String, Failure> {
    let code = QrCode::with_error_correction_level(text, EcLevel::M)
        .map_err(|error| Failure::chain("QR code", &error))?;
    Ok(format!(
        "\n{}\n",
        code.render::<Dense1x2>().quiet_zone(true).build()
    ))
}

fn rotate(
    own: &OwnIdentity,
    algorithm: Option<fieldgate_hsm::Algorithm>,
    destroy_old: bool,
    json: bool,
) -> Result<(), Failure> {
    let wall = crate::runtime::clock::wall();
    let failed = |error: crate::runtime::StartError| error.into_failure();
    let history = keys::rotate(own, algorithm, wall).map_err(failed)?;
    let told = control::tell_rotated(&own.node.control_socket).map_err(|error| {
        Failure::new(format!(
            "the identity has its new key, but the running node does not use it: {error}"
        ))
        .hint("restart the node")
    })?;
    let destroyed = if destroy_old {
        keys::destroy_old(own, &history).map_err(failed)?
    } else {
        0
    };
    show(&history, json)?;
    if !json {
        let node = if told {
            "The running node uses the new key; its channels went on."
        } else {
            "No node is running; the next start uses the new key."
        };
        print(&format!("\n{node}\n"))?;
        if destroyed > 0 {
            print(&format!("{destroyed} old keys were removed from the token.\n"))?;
        }
    }
    Ok(())
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
