//! Making the identity key, and changing it. As while the node runs, a token's module is loaded by a confined process of its own.

use std::fs;

use fieldgate_config::settings::OwnIdentity;
use fieldgate_hsm::process::ProcessSettings;
use fieldgate_proto::{
    identity::{ChangeDraft, ChangeHistory},
    time::WallTime,
};

use super::{
    StartError, history_key, history_path, new_history, process_settings, read_history, signer_key,
    write_durably,
};

/// Makes a key where the settings say, and the identity around it; returns the history.
///
/// # Errors
/// [`StartError`] if there is an identity already, or the key cannot be made.
pub(crate) fn create(
    own: &OwnIdentity,
    algorithm: fieldgate_hsm::Algorithm,
    wall: WallTime,
) -> Result<ChangeHistory, StartError> {
    let state_dir = &own.node.state_dir;
    let path = history_path(state_dir);
    if path.exists() {
        return Err(
            StartError::new(format!("there is an identity already: {}", path.display()))
                .hint("show it with `fieldgate identity show`; a node keeps its identity for life"),
        );
    }
    fs::create_dir_all(state_dir).map_err(|error| StartError::file(state_dir, &error))?;
    let (process, _) = process_settings(&own.identity, &own.sandbox, state_dir)?;
    let mut signer = process
        .create(algorithm)
        .map_err(|error| StartError::key(&error))?;
    let history = new_history(signer.as_mut(), wall)?;
    write_durably(&path, &history.to_bytes()).map_err(|error| StartError::file(&path, &error))?;
    Ok(history)
}

/// Makes another key where the settings say and has the current key hand the identity over to it. The old key stays where
/// it is; a node that is running goes on with it until it is told.
///
/// The history is on stable storage before a sealed file takes the place of the old one, so that a crash at any point leaves
/// a key that the history names.
///
/// # Errors
/// [`StartError`] if one of the keys cannot be used, or the identity has changed its key too often.
pub(crate) fn rotate(
    own: &OwnIdentity,
    algorithm: Option<fieldgate_hsm::Algorithm>,
    wall: WallTime,
) -> Result<ChangeHistory, StartError> {
    let state_dir = &own.node.state_dir;
    let path = history_path(state_dir);
    let history = read_history(state_dir)?;
    let (process, _) = process_settings(&own.identity, &own.sandbox, state_dir)?;
    let key_error = |error: fieldgate_hsm::Error| StartError::key(&error);
    let broken = |error: fieldgate_proto::identity::IdentityError| {
        StartError::new(format!("identity: {error}")).hint(error.hint())
    };
    let current = signer_key(history.current_key())?;
    // What a rotation that was cut off has left would be in the way of this one.
    process.signer.commit_next(&current).map_err(key_error)?;
    let opening = ProcessSettings {
        wanted: Some(current),
        ..process.clone()
    };
    let mut before = opening.open().map_err(key_error)?;
    let algorithm = algorithm.unwrap_or_else(|| current.algorithm());
    let making = process.clone();
    let mut next = making.create_next(&current, algorithm).map_err(key_error)?;
    let draft =
        ChangeDraft::next(history, history_key(next.public_key())?, wall.unix_secs()).map_err(broken)?;
    let message = draft.message();
    let taken_over = next.sign(&message).map_err(key_error)?;
    let handed_over = before.sign(&message).map_err(key_error)?;
    let history = draft.finish(taken_over, Some(handed_over)).map_err(broken)?;
    write_durably(&path, &history.to_bytes()).map_err(|error| StartError::file(&path, &error))?;
    process.signer.commit_next(next.public_key()).map_err(key_error)?;
    Ok(history)
}

/// Removes the keys that the identity does not use any more from the token.
///
/// # Errors
/// [`StartError`] for a key that is there and cannot be removed.
pub(crate) fn destroy_old(own: &OwnIdentity, history: &ChangeHistory) -> Result<usize, StartError> {
    let (process, kind) = process_settings(&own.identity, &own.sandbox, &own.node.state_dir)?;
    if kind != "token" {
        return Ok(0);
    }
    let mut destroyed = 0;
    let current = history.current_key();
    for change in history.changes().filter(|change| change.key != *current) {
        match process.destroy(&signer_key(&change.key)?) {
            Ok(()) => destroyed += 1,
            Err(fieldgate_hsm::Error::KeyNotWanted { .. }) => {}
            Err(error) => return Err(StartError::key(&error)),
        }
    }
    Ok(destroyed)
}
