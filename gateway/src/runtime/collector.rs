//! The collector's part of the trunk: sources, and the way of their readings to the sinks.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use fieldgate_proto::{
    crypto::sha256,
    delivery::{self, KeyTag, Lost, LostCounts, LostReason},
    identity::Identifier,
    node::{Node, ReadingSink, SourceIndex, SourceInfo, SourceView, Trouble},
    seal::reading_leaf,
    wire::Reader,
};

use super::classes::class_of;
use crate::{
    sinks::{
        Batch, BatchSeal, JournalText, ShownKey, Source,
        fanout::Fanout,
        gap::{Gap, GapReason},
        json::class as class_word,
        ledger::LedgerStats,
    },
    status::SourceStatus,
};

/// Takes readings of gateways for the sinks.
#[derive(Default)]
pub(crate) struct Collecting {
    /// The sinks; `None` on a node that is no collector.
    pub(crate) fanout: Option<Fanout>,
    /// Name of this node, the last in every path.
    pub(crate) own_name: String,
    /// Names of the gateways.
    pub(crate) gateways: BTreeMap<Identifier, String>,
    sources: Vec<Arc<Source>>,
    /// Keys that gateways showed, with their tags: the newest and the one before.
    keys: BTreeMap<Identifier, VecDeque<(KeyTag, Arc<ShownKey>)>>,
    /// What the ledger shows, if there is one.
    pub(crate) ledger: Option<Arc<LedgerStats>>,
}

impl Collecting {
    /// Makes a collector's part, without sources yet.
    pub(crate) fn new(
        fanout: Fanout,
        own_name: String,
        gateways: BTreeMap<Identifier, String>,
        ledger: Option<Arc<LedgerStats>>,
    ) -> Self {
        Self {
            fanout: Some(fanout),
            own_name,
            gateways,
            sources: Vec::new(),
            keys: BTreeMap::new(),
            ledger,
        }
    }

    /// A gateway has offered a journal for the first time since the start.
    pub(crate) fn open(&mut self, view: &SourceView, member: Option<&str>, via: Option<String>) {
        let info = &view.info;
        let name = self
            .gateways
            .get(&info.gateway)
            .cloned()
            .or_else(|| member.map(ToOwned::to_owned))
            .unwrap_or_else(|| info.gateway.to_string());
        let mut path = vec![name.clone()];
        path.extend(via.map(|address| format!("relay {address}")));
        path.push(self.own_name.clone());
        let source = Arc::new(Source {
            index: info.index.0,
            gateway: info.gateway,
            name,
            journal: info.journal,
            class: class_of(info.lane),
            path,
        });
        tracing::info!(gateway = source.name, journal = %JournalText(&info.journal), class = class_word(source.class), from = view.received + 1, "gateway delivers");
        if let Some(fanout) = &mut self.fanout {
            fanout.open(&source, view.committed);
        }
        debug_assert_eq!(
            self.sources.len(),
            info.index.0 as usize,
            "sources are numbered in order"
        );
        self.sources.push(source);
    }

    /// Returns a batch's seal for the ledger, with the key it names; `None` without a ledger.
    fn seal(&self, info: &SourceInfo, batch: &delivery::Batch<'_>) -> Option<BatchSeal> {
        self.ledger.as_ref()?;
        let sealed = batch.seal?;
        let (_, key) = self
            .keys
            .get(&info.gateway)?
            .iter()
            .find(|(tag, _)| *tag == sealed.key_tag)?;
        let mut reader = Reader::new(sealed.skipped);
        let skipped = (sealed.first..batch.first).map_while(|sequence| {
            let reading = reader.bytes_varint("reading").ok()?;
            Some(reading_leaf(&info.journal, sequence, reading))
        });
        Some(BatchSeal {
            key: Arc::clone(key),
            seal: sealed.seal,
            first: sealed.first,
            skipped: skipped.collect(),
        })
    }

    /// Returns the name of a source's gateway, and the class of its readings.
    pub(crate) fn name_and_class(&self, source: SourceIndex) -> (&str, &'static str) {
        self.sources.get(source.0 as usize).map_or(("", ""), |source| {
            (source.name.as_str(), class_word(source.class))
        })
    }

    fn name(&self, source: SourceIndex) -> &str {
        self.name_and_class(source).0
    }

    /// Returns what is shown of the sources.
    pub(crate) fn source_status(&self, node: &Node) -> Vec<SourceStatus> {
        let status = node.sources().map(|view| SourceStatus {
            gateway: self.name(view.info.index).to_owned(),
            class: view.info.lane.name().to_owned(),
            journal: JournalText(&view.info.journal).to_string(),
            connected: view.connected,
            received: view.received,
            confirmed: view.committed,
            duplicates: view.stats.duplicates,
            lost: view.stats.lost.total(),
            lost_by: lost_by(&view.stats.lost),
            gaps: view.stats.gaps,
            trouble: view.trouble.map(describe),
            stopped: view.trouble == Some(Trouble::GatewaySetBack),
        });
        status.collect()
    }
}

impl ReadingSink for Collecting {
    fn accept(&mut self, info: &SourceInfo, batch: delivery::Batch<'_>) -> bool {
        let seal = self.seal(info, &batch);
        let (Some(fanout), Some(source)) = (&mut self.fanout, self.sources.get(info.index.0 as usize)) else {
            return false;
        };
        if !fanout.accepts(source.class) {
            return false;
        }
        fanout.offer(&Arc::new(Batch {
            source: Arc::clone(source),
            first: batch.first,
            count: batch.count,
            readings: batch.readings.to_vec(),
            seal,
        }));
        true
    }

    fn seal_key(&mut self, gateway: &Identifier, key: delivery::ShownKey<'_>) {
        if self.ledger.is_none() {
            return;
        }
        let keys = self.keys.entry(*gateway).or_default();
        if keys
            .back()
            .is_some_and(|(_, known)| known.attestation == key.attestation)
        {
            return;
        }
        if keys.len() >= KEYS_PER_GATEWAY {
            keys.pop_front();
        }
        let tag = delivery::key_tag(&sha256(&[key.attestation]));
        let shown = ShownKey {
            history: key.history.to_vec(),
            attestation: key.attestation.to_vec(),
        };
        keys.push_back((tag, Arc::new(shown)));
    }

    fn gap(&mut self, info: &SourceInfo, lost: &Lost) -> bool {
        let (Some(fanout), Some(source)) = (&mut self.fanout, self.sources.get(info.index.0 as usize)) else {
            return false;
        };
        if !fanout.accepts(source.class) {
            return false;
        }
        fanout.offer_gap(&Arc::new(Gap {
            source: Arc::clone(source),
            first: lost.first,
            last: lost.last,
            reason: match lost.reason {
                LostReason::Corrupt => GapReason::Corrupt,
                LostReason::Discarded => GapReason::Discarded,
                LostReason::Expired => GapReason::Expired,
                LostReason::Released => GapReason::Released,
            },
            class: source.class,
            captured: lost.captured,
        }));
        true
    }
}

/// Returns the reasons for which readings were lost, and how many for each.
fn lost_by(lost: &LostCounts) -> Vec<(String, u64)> {
    let counts = [
        (LostReason::Corrupt, lost.corrupt),
        (LostReason::Discarded, lost.discarded),
        (LostReason::Expired, lost.expired),
        (LostReason::Released, lost.released),
    ];
    let happened = counts.into_iter().filter(|(_, count)| *count > 0);
    happened
        .map(|(reason, count)| (reason.name().to_owned(), count))
        .collect()
}

fn describe(trouble: Trouble) -> String {
    match trouble {
        Trouble::GatewaySetBack => {
            "the gateway's journal is older than what was received of it; it sends nothing".to_owned()
        }
        Trouble::Forgotten { confirmed, received } => format!(
            "this collector had confirmed up to {confirmed} and knew of {received} only: it was set back; what the gateway still had \
             came again, the rest is recorded as released"
        ),
    }
}

/// A key that is renewed is in use until what was sealed with it has come.
const KEYS_PER_GATEWAY: usize = 2;
