//! `fieldgate device password`.

use std::io::Read as _;

use fieldgate_adapters::password::{
    ITERATIONS_FOR_GENERATED, ITERATIONS_FOR_PEOPLE, SCRAM_ITERATIONS_MIN, generate_password, hash_password,
    scram_password,
};
use serde::Serialize;
use zeroize::Zeroizing;

use super::{Failure, print, print_json};
use crate::{cli::DeviceCommand, runtime::entropy::SystemEntropy};

#[derive(Serialize)]
struct Made<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    password: Option<&'a str>,
    password_hash: String,
}

pub(super) fn run(command: DeviceCommand) -> Result<(), Failure> {
    let DeviceCommand::Password {
        name,
        stdin,
        scram,
        json,
    } = command;
    let (password, iterations) = if stdin {
        (read_password()?, ITERATIONS_FOR_PEOPLE)
    } else {
        (generate_password(&mut SystemEntropy), ITERATIONS_FOR_GENERATED)
    };
    let hash = if scram {
        let iterations = iterations.max(SCRAM_ITERATIONS_MIN);
        scram_password(password.as_bytes(), iterations, &mut SystemEntropy)
    } else {
        hash_password(password.as_bytes(), iterations, &mut SystemEntropy)
    };
    let hash = hash.map_err(|error| Failure::chain("password", &error).hint(error.hint()))?;
    // A password that was given is known already: it is not shown again.
    let shown = (!stdin).then_some(password.as_str());
    if json {
        return print_json(&Made {
            name: &name,
            password: shown,
            password_hash: hash.to_string(),
        });
    }
    if let Some(password) = shown {
        print(&format!("# Password of {name}, shown only now: {password}\n"))?;
    }
    print(&format!(
        "[[mqtt.device]]\nname = {name:?}\npassword_hash = \"{hash}\"\n"
    ))
}

fn read_password() -> Result<Zeroizing<String>, Failure> {
    let mut password = Zeroizing::new(String::new());
    std::io::stdin()
        .lock()
        .take(PASSWORD_BYTES_MAX)
        .read_to_string(&mut password)
        .map_err(|error| Failure::chain("standard input", &error))?;
    let trimmed = Zeroizing::new(password.trim_end_matches(['\r', '\n']).to_owned());
    if trimmed.len() < PASSWORD_BYTES_MIN {
        return Err(
            Failure::input(format!("the password has fewer than {PASSWORD_BYTES_MIN} bytes"))
                .hint("leave --stdin out and let fieldgate make one"),
        );
    }
    Ok(trimmed)
}

/// Shortest password taken from a person.
const PASSWORD_BYTES_MIN: usize = 8;
/// Longest password (MQTT 5.0 §3.1.3.6: Binary Data).
const PASSWORD_BYTES_MAX: u64 = 65_535;
