//! How good a credential is now, and how long a node goes on without word from its authority.

use std::time::Duration;

use crate::{
    identity::{Identifier, SKEW_SECS},
    time::WallTime,
};

use super::{Credential, StatusList};

/// Whom a node trusts, and for how long without contact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrustSettings {
    /// The authority; `None` if this node trusts none.
    pub authority: Option<Identifier>,
    /// How long a credential or a status list that has ended still counts, in whole seconds.
    pub grace: Duration,
    /// What happens then, if the authority was silent all the time.
    pub after_grace: AfterGrace,
    /// Verified credentials remembered, 1 to [`REMEMBERED_MAX`](super::REMEMBERED_MAX).
    pub remembered_max: usize,
}

impl Default for TrustSettings {
    /// No authority; seven days of grace, then nobody counts; 4,096 credentials.
    fn default() -> Self {
        Self {
            authority: None,
            grace: Duration::from_hours(7 * 24),
            after_grace: AfterGrace::Refuse,
            remembered_max: 4096,
        }
    }
}

/// What a node does when its authority was silent for longer than the grace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AfterGrace {
    /// It takes no credential any more.
    #[default]
    Refuse,
    /// It goes on with those it knows to be not revoked, even if they have ended. Only while the authority is silent.
    GoOn,
}

/// How good a credential is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Valid, and not revoked by a list that is current.
    Good,
    /// It counts, but only because of the grace: it has ended, or no current list says that it is not revoked.
    Grace {
        /// Since when, seconds since 1970.
        since: u64,
    },
    /// It begins later.
    NotYetValid,
    /// It has ended, and so has its grace.
    Expired,
    /// The newest list names its subject.
    Revoked,
    /// The authority was silent for longer than the grace.
    Lapsed {
        /// Since when a newer list is missing, seconds since 1970.
        since: u64,
    },
}

impl Standing {
    /// Returns whether the credential counts.
    #[must_use]
    pub const fn counts(self) -> bool {
        match self {
            Self::Good | Self::Grace { .. } => true,
            Self::NotYetValid | Self::Expired | Self::Revoked | Self::Lapsed { .. } => false,
        }
    }

    /// Returns the word for logs, metrics and status.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Grace { .. } => "grace",
            Self::NotYetValid => "not_yet_valid",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
            Self::Lapsed { .. } => "lapsed",
        }
    }
}

/// How fresh the status list is. Times in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// None has come yet. A credential then counts for the grace time from when it was issued.
    NoList,
    /// It is current, as far as the clock can tell.
    Fresh {
        /// When a newer one will have come.
        until: u64,
    },
    /// A newer one is missing.
    Stale {
        /// Since when.
        since: u64,
        /// Until when credentials still count.
        grace_until: u64,
    },
    /// A newer one has been missing for longer than the grace.
    Lapsed {
        /// Since when it is missing.
        since: u64,
    },
}

impl Freshness {
    /// Returns the word for logs, metrics and status.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoList => "none",
            Self::Fresh { .. } => "fresh",
            Self::Stale { .. } => "stale",
            Self::Lapsed { .. } => "lapsed",
        }
    }
}

/// Says how fresh `list` is at `wall`.
pub(super) fn freshness(settings: &TrustSettings, wall: WallTime, list: Option<&StatusList>) -> Freshness {
    list.map_or(Freshness::NoList, |list| {
        silence(settings, wall, list.not_after())
    })
}

/// Says how good `credential` is at `wall`, given the newest list.
pub(super) fn standing(
    settings: &TrustSettings,
    wall: WallTime,
    credential: &Credential,
    list: Option<&StatusList>,
) -> Standing {
    if list.is_some_and(|list| list.is_revoked(&credential.subject)) {
        return Standing::Revoked;
    }
    if credential.is_early(wall) {
        return Standing::NotYetValid;
    }
    // Without a list, the credential itself is the authority's latest word that its subject is not revoked.
    let silence = match list {
        Some(list) => silence(settings, wall, list.not_after()),
        None => match silence(settings, wall, credential.issued_at) {
            Freshness::Lapsed { since } => Freshness::Lapsed { since },
            Freshness::NoList | Freshness::Fresh { .. } | Freshness::Stale { .. } => Freshness::Stale {
                since: credential.issued_at,
                grace_until: grace_end(settings, credential.issued_at),
            },
        },
    };
    let goes_on = settings.after_grace == AfterGrace::GoOn && matches!(silence, Freshness::Lapsed { .. });
    let end = credential.not_after;
    if is_over(wall, grace_end(settings, end)) && !goes_on {
        return Standing::Expired;
    }
    let ended = is_over(wall, end).then_some(end);
    let since = match silence {
        Freshness::Lapsed { since } if !goes_on => return Standing::Lapsed { since },
        Freshness::Lapsed { since } | Freshness::Stale { since, .. } => Some(since),
        Freshness::Fresh { .. } | Freshness::NoList => None,
    };
    match (since, ended) {
        (None, None) => Standing::Good,
        (Some(since), None) | (None, Some(since)) => Standing::Grace { since },
        (Some(one), Some(other)) => Standing::Grace {
            since: one.min(other),
        },
    }
}

/// Says how long the authority has been silent, if its next word was due at `due`.
fn silence(settings: &TrustSettings, wall: WallTime, due: u64) -> Freshness {
    let grace_until = grace_end(settings, due);
    if is_over(wall, grace_until) {
        Freshness::Lapsed { since: due }
    } else if is_over(wall, due) {
        Freshness::Stale {
            since: due,
            grace_until,
        }
    } else {
        Freshness::Fresh { until: due }
    }
}

const fn grace_end(settings: &TrustSettings, end: u64) -> u64 {
    end.saturating_add(settings.grace.as_secs())
}

/// Whether `end` is surely past, with room for clocks that differ.
const fn is_over(wall: WallTime, end: u64) -> bool {
    wall.is_surely_after(end.saturating_add(SKEW_SECS))
}
