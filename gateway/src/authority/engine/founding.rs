//! What happens when the store is opened: it is founded, and brought in line with the node's file.

use fieldgate_proto::{identity::Identifier, time::WallTime, trust::StatusList};

use super::restored::{self, Found};

use crate::authority::{
    AuthoritySettings, StoreError,
    log::{Action, Actor, Decision, Outcome},
    order,
    record::{Grant, Member, Source},
    store::Batch,
};

/// Brings the members in line with the settings, and the revoked and the numbers of status lists with the newest list that the node
/// holds; returns what an operator should know.
pub(super) fn align(
    batch: &mut Batch<'_>,
    wall: WallTime,
    settings: &AuthoritySettings,
    authority: &Identifier,
    held: Option<&StatusList>,
) -> Result<(Vec<String>, Option<Found>), StoreError> {
    if batch.log_head().0 == 0 {
        batch.log(wall, decision(Action::Founded, *authority, "the store was made"))?;
    }
    for (identifier, member) in batch.members_where(|member| member.source == Source::File)? {
        if !settings.members.contains_key(&identifier) {
            batch.remove_member(&identifier)?;
            let reason = format!("{} stands in the file no more", member.grant.name);
            batch.log(wall, decision(Action::RemoveMember, identifier, &reason))?;
        }
    }
    let mut complaints = Vec::new();
    // Nodes refuse a list with a lower number than the one they hold: without this nobody could be revoked any more.
    let valid = settings.credential_valid.as_secs();
    let found = match held {
        Some(held) => restored::take_back(batch, wall, valid, authority, held)?,
        None => None,
    };
    for (identifier, grant) in &settings.members {
        if let Some(complaint) = take_in(batch, wall, settings, identifier, grant)? {
            tracing::warn!(%identifier, complaint, "a member in the file was not taken in");
            complaints.push(complaint);
        }
    }
    Ok((complaints, found))
}

/// Takes in one member that the file names; returns why not.
fn take_in(
    batch: &mut Batch<'_>,
    wall: WallTime,
    settings: &AuthoritySettings,
    identifier: &Identifier,
    grant: &Grant,
) -> Result<Option<String>, StoreError> {
    let name = &grant.name;
    if let Err(refusal) = order::check_name(name) {
        return Ok(Some(format!("member {name} in the file: {refusal}")));
    }
    if batch.is_revoked(identifier)? {
        return Ok(Some(format!(
            "member {name} in the file is revoked: {identifier}"
        )));
    }
    if let Some(holder) = batch.holder(name)?.filter(|holder| holder != identifier) {
        return Ok(Some(format!("member {name} in the file: {holder} has that name")));
    }
    let before = batch.member(identifier)?;
    let (action, member) = match before {
        Some(before) if before.source == Source::File && before.grant == *grant => return Ok(None),
        Some(before) => {
            let member = Member {
                grant: grant.clone(),
                source: Source::File,
                ..before
            };
            (Action::ChangeMember, member)
        }
        None if batch.member_count()? >= settings.limits.members_max => {
            return Ok(Some(format!(
                "member {name} in the file: there are too many members"
            )));
        }
        None => {
            let member = Member {
                grant: grant.clone(),
                source: Source::File,
                since: wall.unix_secs(),
                serial: 0,
                not_after: 0,
            };
            (Action::AddMember, member)
        }
    };
    batch.put_member(identifier, &member)?;
    let reason = format!("{name} stands in the file");
    batch.log(wall, decision(action, *identifier, &reason))?;
    Ok(None)
}

fn decision(action: Action, subject: Identifier, reason: &str) -> Decision {
    Decision {
        actor: Actor::Authority,
        action,
        outcome: Outcome::Done,
        subject: Some(subject),
        ticket: None,
        reason: reason.to_owned(),
    }
}
