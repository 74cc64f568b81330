//! Fuzz targets of fieldgate: every decoder, and the machines behind them.
//!
//! A target is a module with one `run(data)` that panics when a promise is broken; `targets/` wraps each for libFuzzer, and the
//! tests here replay the committed corpora without it.
#![forbid(unsafe_code)]

mod authority;
mod world;

pub mod candidates;
pub mod channel;
pub mod cluster;
pub mod command;
pub mod config;
pub mod credential;
pub mod delivery;
pub mod identity;
pub mod journal;
pub mod link;
pub mod mqtt_packet;
pub mod mqtt_session;
pub mod node;
pub mod pkcs11_uri;
pub mod portal;
pub mod proof;
pub mod quic;
pub mod reading;
pub mod record;
pub mod registrar;
pub mod replication;
pub mod status_list;
pub mod ticket;
pub mod topic;
pub mod websocket;
pub mod websocket_client;
pub mod wire;
pub mod worker_protocol;

/// A target's name and its function.
pub type Target = (&'static str, fn(&[u8]));

/// Every target, by name.
pub const TARGETS: [Target; 30] = [
    ("candidates", candidates::run),
    ("channel", channel::run),
    ("cluster", cluster::run),
    ("command", command::run),
    ("config", config::run),
    ("credential", credential::run),
    ("delivery", delivery::run),
    ("identity", identity::run),
    ("journal", journal::run),
    ("journal_scan", journal::run_scan),
    ("ledger", proof::run_ledger),
    ("link", link::run),
    ("mqtt_packet", mqtt_packet::run),
    ("mqtt_session", mqtt_session::run),
    ("node", node::run),
    ("pkcs11_uri", pkcs11_uri::run),
    ("portal", portal::run),
    ("proof", proof::run),
    ("quic", quic::run),
    ("reading", reading::run),
    ("record", record::run),
    ("registrar", registrar::run),
    ("replication", replication::run),
    ("status_list", status_list::run),
    ("ticket", ticket::run),
    ("topic", topic::run),
    ("websocket", websocket::run),
    ("websocket_client", websocket_client::run),
    ("wire", wire::run),
    ("worker_protocol", worker_protocol::run),
];

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::{fs, iter};

    use super::TARGETS;

    #[test]
    fn the_manifest_names_the_same_targets() {
        let manifest = include_str!("../Cargo.toml");
        let named = manifest
            .lines()
            .skip_while(|line| *line != "[[bin]]")
            .filter_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"'));
        let mut named: Vec<&str> = named.collect();
        named.sort_unstable();
        assert_eq!(named, TARGETS.map(|(name, _)| name));
    }

    #[test]
    fn every_committed_input_keeps_the_promises() {
        let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
        for (name, run) in TARGETS {
            run(&[]);
            for entry in fs::read_dir(corpora.join(name)).into_iter().flatten() {
                run(&fs::read(entry.unwrap().path()).unwrap());
            }
        }
    }

    #[test]
    fn noise_keeps_the_promises() {
        // A linear congruential generator: the same bytes in every run.
        let mut state = 1_u64;
        let mut byte = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            state.to_be_bytes()[0]
        };
        for length in 0..200 {
            let input: Vec<u8> = iter::repeat_with(&mut byte).take(length).collect();
            TARGETS.iter().for_each(|(_, run)| run(&input));
        }
    }
}
