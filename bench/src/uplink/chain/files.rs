//! The TOML files of a measured chain.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;

use fieldgate_proto::identity::Identifier;

use super::{ALARM_TOPIC, Settings};
use crate::node;

/// What the files are made from.
pub(super) struct Files<'a> {
    pub(super) folder: &'a Path,
    pub(super) settings: &'a Settings,
    /// Where devices connect to the gateway.
    pub(super) devices: SocketAddr,
    /// Where links connect to the relay.
    pub(super) relay: SocketAddr,
    pub(super) gateway_metrics: SocketAddr,
    pub(super) relay_metrics: SocketAddr,
    pub(super) collector_metrics: SocketAddr,
    /// The broker that the sink publishes to; `None`: the null sink.
    pub(super) sink: Option<SocketAddr>,
}

/// Who the nodes are, as `fg1…` texts.
pub(super) struct Identifiers {
    pub(super) gateway: String,
    pub(super) relay: String,
    pub(super) collector: String,
}

impl Identifiers {
    /// Returns identifiers that are well-formed and belong to no key.
    pub(super) fn nobody() -> Self {
        let of = |byte| Identifier::from_bytes([byte; 32]).to_string();
        Self {
            gateway: of(1),
            relay: of(2),
            collector: of(3),
        }
    }
}

impl Files<'_> {
    /// Returns what every node has.
    fn node(&self, name: &str) -> String {
        let Settings {
            io, shards, rules, ..
        } = self.settings;
        let mut text = node::head(self.folder, name, io, *shards, "warn");
        if rules.is_some() {
            let _ = write!(
                text,
                "\n[trust]\npolicy = \"{}/policy.cedar\"\n",
                self.folder.display()
            );
        }
        text
    }

    /// Returns the file of the gateway.
    pub(super) fn gateway(&self, identifiers: &Identifiers) -> String {
        let mut text = self.node("gateway");
        let Settings {
            durable,
            clients,
            window,
            ..
        } = self.settings;
        let clients_max = clients + SPARE_CLIENTS;
        let _ = write!(
            text,
            "\n[journal]\n\
             bytes_max = \"2 GiB\"\n\
             durable = {durable}\n\
             \n\
             [mqtt]\n\
             listen = [\"{devices}\"]\n\
             anonymous = true\n\
             latency_ms = 1\n\
             alarm_topics = [\"+/{ALARM_TOPIC}\"]\n\
             clients_max = {clients_max}\n\
             connects_per_second_max = 0\n\
             slow_consumer = \"drop\"\n\
             receive_max = {window}\n\
             \n\
             [[uplink]]\n\
             name = \"main\"\n\
             collector = \"{collector}\"\n\
             via = \"{COLLECTOR_NAME}\"\n\
             relay = {relay}\n\
             latency_ms = 1\n\
             \n\
             [metrics]\n\
             listen = \"{metrics}\"\n",
            devices = self.devices,
            collector = identifiers.collector,
            relay = self.relay_table(identifiers),
            metrics = self.gateway_metrics,
        );
        text
    }

    /// Returns the file of the relay.
    pub(super) fn relay(&self, identifiers: &Identifiers) -> String {
        let mut text = self.node("relay");
        let _ = write!(
            text,
            "\n[link.tcp]\n\
             listen = [\"{relay}\"]\n\
             \n\
             [relay]\n\
             \n\
             [[relay.member]]\n\
             name = \"gateway\"\n\
             identifier = \"{gateway}\"\n\
             hold = []\n\
             reach = [\"{COLLECTOR_NAME}\"]\n\
             \n\
             [[relay.member]]\n\
             name = \"collector\"\n\
             identifier = \"{collector}\"\n\
             hold = [\"{COLLECTOR_NAME}\"]\n\
             reach = []\n\
             \n\
             [metrics]\n\
             listen = \"{metrics}\"\n",
            relay = self.relay,
            gateway = identifiers.gateway,
            collector = identifiers.collector,
            metrics = self.relay_metrics,
        );
        text
    }

    /// Returns the file of the collector.
    pub(super) fn collector(&self, identifiers: &Identifiers) -> String {
        let mut text = self.node("collector");
        let _ = write!(
            text,
            "\n[collector]\n\
             register = [{{ relay = {relay}, name = \"{COLLECTOR_NAME}\" }}]\n\
             \n\
             [[collector.gateway]]\n\
             name = \"gateway\"\n\
             identifier = \"{gateway}\"\n\
             \n\
             [[collector.sink]]\n\
             {sink}\
             \n\
             [metrics]\n\
             listen = \"{metrics}\"\n",
            relay = self.relay_table(identifiers),
            gateway = identifiers.gateway,
            sink = self.sink_keys(),
            metrics = self.collector_metrics,
        );
        text
    }

    fn relay_table(&self, identifiers: &Identifiers) -> String {
        format!(
            "{{ address = \"{}\", identifier = \"{}\" }}",
            self.relay, identifiers.relay
        )
    }

    fn sink_keys(&self) -> String {
        self.sink.map_or_else(
            || "kind = \"null\"\n".to_owned(),
            |address| {
                format!(
                    "kind = \"mqtt\"\n\
                     address = \"{address}\"\n\
                     client_id = \"bench-collector\"\n\
                     topic = \"{{gateway}}/{{device}}/{{resource}}\"\n\
                     inflight_max = 1000\n"
                )
            },
        )
    }
}

/// The name that the collector registers at the relay.
const COLLECTOR_NAME: &str = "bench-collector";
/// Connections besides the devices: probes before the measurement.
const SPARE_CLIENTS: usize = 16;

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::{Files, Identifiers};
    use crate::uplink::chain::Settings;

    /// Fails with what fieldgate would say if it refused the file.
    fn check(text: &str) {
        let loaded = fieldgate_config::load_str("bench.toml", text, Path::new("/tmp"), "host");
        let said = loaded.problems.render_text(fieldgate_config::Colour::None, 100);
        assert!(loaded.settings.is_some(), "{said}\n{text}");
    }

    #[test]
    fn fieldgate_takes_every_file() {
        let address = |port: u16| ([127, 0, 0, 1], port).into();
        for (durable, sink, clients, window) in [
            (true, None, 1000, 1),
            (false, Some(address(6)), 1, 1000),
            (true, None, 50_000, 1),
        ] {
            let settings = Settings {
                binary: PathBuf::new(),
                durable,
                rules: (clients == 1).then_some(3),
                timed: sink.is_some(),
                clients,
                window,
                io: "epoll".to_owned(),
                shards: 1,
            };
            let files = Files {
                folder: Path::new("/tmp/bench"),
                settings: &settings,
                devices: address(1),
                relay: address(2),
                gateway_metrics: address(3),
                relay_metrics: address(4),
                collector_metrics: address(5),
                sink,
            };
            let identifiers = Identifiers::nobody();
            check(&files.gateway(&identifiers));
            check(&files.relay(&identifiers));
            check(&files.collector(&identifiers));
        }
    }
}
