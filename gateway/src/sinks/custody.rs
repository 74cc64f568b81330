//! What a sink that talks to a server keeps over its connections: positions, the way to the trunk, and what was put aside.
//!
//! A gateway forgets what is confirmed to it. So a confirmation goes out once a restart would know of it: when the positions are
//! on the disk ([`Custody::save`]), or at once where the server itself says how far it is ([`Custody::confirm_settled`]).

use std::{collections::BTreeMap, io, rc::Rc, sync::Arc, time::Duration};

use fieldgate_config::settings::sink::{OnRejected, Output};
use tokio::time::Instant;

use super::{
    Confirm, Confirmation, Source,
    item::Item,
    positions::Positions,
    set_aside::SetAside,
    stats::{SinkStats, Subject},
};

/// What is kept over connections.
pub(crate) struct Custody {
    /// Which sink, counted in the order of the file.
    pub(crate) index: usize,
    /// How far it is with each source.
    pub(crate) positions: Positions,
    /// The way to the trunk.
    pub(crate) confirm: Confirm,
    /// What it shows.
    pub(crate) stats: Arc<SinkStats>,
    /// How readings look there.
    pub(crate) output: Rc<Output>,
    /// Where what is refused for good goes; `None` if it stays with the gateways.
    pub(crate) set_aside: Option<SetAside>,
    save_at: Option<Instant>,
    /// By index of the source: what is settled and not confirmed.
    settled: BTreeMap<u32, u64>,
}

impl Custody {
    /// Puts the parts together.
    pub(crate) fn new(
        index: usize,
        positions: Positions,
        confirm: Confirm,
        stats: Arc<SinkStats>,
        output: Output,
    ) -> Self {
        Self {
            index,
            positions,
            confirm,
            stats,
            output: Rc::new(output),
            set_aside: None,
            save_at: None,
            settled: BTreeMap::new(),
        }
    }

    /// Lets what is refused for good be put aside, if the settings say so.
    pub(crate) fn on_rejected(mut self, choice: OnRejected, place: SetAside) -> Self {
        self.set_aside = match choice {
            OnRejected::Stop => None,
            OnRejected::SetAside => Some(place),
        };
        self
    }

    /// Returns how far the sink is with a source.
    pub(crate) fn position(&self, source: &Source) -> u64 {
        self.positions.of(source)
    }

    /// Notes that the server has everything of `source` up to `up_to`.
    pub(crate) fn settle(&mut self, source: &Source, up_to: u64) {
        self.positions.advance(source, up_to);
        self.stats.moved();
        let settled = self.settled.entry(source.index).or_default();
        *settled = up_to.max(*settled);
    }

    /// Says to the trunk what is settled: a restart would know of it.
    pub(crate) fn confirm_settled(&mut self) {
        for (source, up_to) in std::mem::take(&mut self.settled) {
            (self.confirm)(Confirmation {
                sink: self.index,
                source,
                up_to,
            });
        }
    }

    /// Puts an item aside that was refused for good.
    ///
    /// # Errors
    /// In words, if it cannot be kept there: it then has to stay with its gateway.
    pub(crate) fn put_aside(&mut self, item: &Item<'_>, reason: &str) -> Result<(), String> {
        let Some(place) = &mut self.set_aside else {
            return Err(format!("{} is refused: {reason}", item.id()));
        };
        place.append(item, reason).map_err(|error| {
            format!(
                "{} is refused ({reason}), and cannot be put aside: {error}",
                item.id()
            )
        })?;
        let count = 1 + self
            .stats
            .set_aside
            .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        tracing::warn!(id = item.id(), reason, path = %place.path().display(), "refused for good: put aside");
        self.stats.notice(
            Subject::SetAside,
            Some(format!(
                "{count} readings were refused and put aside in {} since the start",
                place.path().display()
            )),
        );
        Ok(())
    }

    /// Writes the positions, if that was not done for a while.
    pub(crate) fn save_if_due(&mut self) {
        let now = Instant::now();
        if self.save_at.is_none_or(|due| now >= due) {
            self.save_at = Some(now + SAVE_EVERY);
            self.save();
        }
    }

    /// Writes the positions and confirms what they tell of.
    pub(crate) fn save(&mut self) {
        if let Err(error) = self.save_now() {
            tracing::warn!(%error, "positions of a sink not saved: gateways keep what they have delivered since");
        }
    }

    /// Writes the positions before something is done that they must tell of, and confirms what they tell of.
    ///
    /// # Errors
    /// Those of the file system.
    pub(crate) fn save_now(&mut self) -> io::Result<()> {
        self.positions.save()?;
        self.confirm_settled();
        Ok(())
    }
}

/// Waits between attempts: doubled each time, up to a bound.
#[derive(Debug)]
pub(crate) struct BackOff {
    wait: Duration,
}

impl BackOff {
    /// Begins anew.
    pub(crate) const fn new() -> Self {
        Self { wait: WAIT_MIN }
    }

    /// Returns the wait before the next attempt.
    pub(crate) fn next(&mut self) -> Duration {
        let wait = self.wait;
        self.wait = (wait * 2).min(WAIT_MAX);
        wait
    }
}

/// How often positions are written.
const SAVE_EVERY: Duration = Duration::from_secs(1);
/// First and longest wait before a server is tried again.
const WAIT_MIN: Duration = Duration::from_millis(250);
const WAIT_MAX: Duration = Duration::from_secs(30);
