//! fieldgate: gateway, relay and collector as three processes.
//!
//! ```text
//! devices ─▶ gateway ══channel══▶ relay ══channel══▶ collector ─▶ null sink, or a sink that is timed
//! ```

mod files;

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use self::files::{Files, Identifiers};
use super::System;
use crate::clock::Window;
use crate::consumer::Consumer;
use crate::failure::Failure;
use crate::latency::Latencies;
use crate::node;
use crate::process::{Running, free_address};

/// How a chain is set up.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// The `fieldgate` binary.
    pub(crate) binary: PathBuf,
    /// Whether a reading is on stable storage before its PUBACK.
    pub(crate) durable: bool,
    /// Whether the collector publishes to a consumer, which takes the time, or drops everything.
    pub(crate) timed: bool,
    /// Rules of the policy that every node reads and asks again all the time; `None`: the built-in one, asked once.
    pub(crate) rules: Option<usize>,
    /// Clients that will connect.
    pub(crate) clients: usize,
    /// Publishes of each that may wait for their PUBACK.
    pub(crate) window: u16,
    /// `[node] io`.
    pub(crate) io: String,
    /// `[node] shards`.
    pub(crate) shards: u16,
}

/// Three nodes, and a consumer if the sink is timed.
pub(crate) struct Chain {
    devices: SocketAddr,
    collector_metrics: SocketAddr,
    /// Gateway, relay, collector: the order in which they stop.
    processes: Vec<Running>,
    consumer: Option<Consumer>,
    storm: Option<Storm>,
    /// How the collector is started.
    collector: Restart,
}

/// What it takes to start a node again.
struct Restart {
    settings: Settings,
    folder: PathBuf,
    text: String,
}

impl Chain {
    /// Makes the identities and files in `folder` and starts the nodes.
    pub(crate) fn start(settings: &Settings, folder: &Path, window: Arc<Window>) -> Result<Self, Failure> {
        let consumer = settings.timed.then(|| Consumer::listen(window)).transpose()?;
        let files = Files {
            folder,
            settings,
            devices: free_address()?,
            relay: free_address()?,
            gateway_metrics: free_address()?,
            relay_metrics: free_address()?,
            collector_metrics: free_address()?,
            sink: consumer.as_ref().map(Consumer::address),
        };
        if let Some(rules) = settings.rules {
            node::write(folder, "policy.cedar", &policy(rules))?;
        }
        node::write_passphrase(folder)?;
        // A file is refused while it names nobody, so the first ones name nodes that do not exist.
        let nobody = Identifiers::nobody();
        let identifiers = Identifiers {
            gateway: node::create_identity(&settings.binary, folder, "gateway", &files.gateway(&nobody))?,
            relay: node::create_identity(&settings.binary, folder, "relay", &files.relay(&nobody))?,
            collector: node::create_identity(
                &settings.binary,
                folder,
                "collector",
                &files.collector(&nobody),
            )?,
        };
        let relay = node::start(
            &settings.binary,
            folder,
            "relay",
            &files.relay(&identifiers),
            files.relay,
        )?;
        let collector = node::start(
            &settings.binary,
            folder,
            "collector",
            &files.collector(&identifiers),
            files.collector_metrics,
        )?;
        let gateway = node::start(
            &settings.binary,
            folder,
            "gateway",
            &files.gateway(&identifiers),
            files.devices,
        )?;
        let processes = vec![gateway, relay, collector];
        let storm = settings.rules.map(|_| Storm::start(&processes));
        Ok(Self {
            devices: files.devices,
            collector_metrics: files.collector_metrics,
            processes,
            consumer,
            storm,
            collector: Restart {
                settings: settings.clone(),
                folder: folder.to_owned(),
                text: files.collector(&identifiers),
            },
        })
    }

    /// Stops the collector.
    pub(crate) fn stop_collector(&mut self) -> Result<(), Failure> {
        self.processes.pop().map_or(Ok(()), Running::stop)
    }

    /// Returns how many readings arrived at the timed sink that carried the time at which they left.
    pub(crate) fn delivered_stamped(&self) -> u64 {
        self.consumer.as_ref().map_or(0, Consumer::delivered_stamped)
    }

    /// Returns the latencies up to the timed sink until now, and begins anew.
    pub(crate) fn take_latencies(&self) -> Option<Latencies> {
        self.consumer.as_ref().map(Consumer::take_latencies)
    }

    /// Starts the collector again.
    pub(crate) fn start_collector(&mut self) -> Result<(), Failure> {
        let Restart {
            settings,
            folder,
            text,
        } = &self.collector;
        self.processes.push(node::start(
            &settings.binary,
            folder,
            "collector",
            text,
            self.collector_metrics,
        )?);
        Ok(())
    }
}

impl System for Chain {
    fn devices(&self) -> SocketAddr {
        self.devices
    }

    fn processes(&mut self) -> &mut [Running] {
        &mut self.processes
    }

    fn delivered(&self) -> Result<u64, Failure> {
        match &self.consumer {
            Some(consumer) => Ok(consumer.delivered()),
            None => counter(self.collector_metrics, "fieldgate_delivered_readings_total"),
        }
    }

    fn finish(self: Box<Self>) -> Result<Option<Latencies>, Failure> {
        // Nobody is signalled who has ended.
        drop(self.storm);
        for process in self.processes {
            process.stop()?;
        }
        self.consumer.map(Consumer::finish).transpose()
    }
}

/// Has every node read its policy again, which asks it about every channel, until it is dropped.
struct Storm {
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Storm {
    fn start(processes: &[Running]) -> Self {
        let pids: Vec<Pid> = processes
            .iter()
            .filter_map(|process| i32::try_from(process.id()).ok().and_then(Pid::from_raw))
            .collect();
        let (stop, stopped) = mpsc::channel();
        let thread = thread::spawn(move || {
            while stopped.recv_timeout(STORM_INTERVAL) == Err(RecvTimeoutError::Timeout) {
                for pid in &pids {
                    // One that ended is found out by who measures.
                    let _ = kill_process(*pid, Signal::HUP);
                }
            }
        });
        Self {
            stop: Some(stop),
            thread: Some(thread),
        }
    }
}

impl Drop for Storm {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // It only sends signals, and cannot fail.
            let _ = thread.join();
        }
    }
}

/// Returns a policy of so many rules, all of which have to be looked at for a peer that is named.
fn policy(rules: usize) -> String {
    let mut text = String::from(
        "@id(\"named-peers\")\npermit (principal, action, resource) when { principal.named && context.granted };\n",
    );
    for rule in 1..rules {
        let _ = writeln!(
            text,
            "@id(\"site-{rule}\")\npermit (principal, action, resource) when {{ principal.hasTag(\"site\") && \
             principal.getTag(\"site\") == \"site-{rule}\" }};"
        );
    }
    text
}

/// Reads one counter from a Prometheus page; 0 while it has not counted anything.
fn counter(address: SocketAddr, name: &str) -> Result<u64, Failure> {
    let what = || format!("reading http://{address}/metrics");
    let page = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&address, SCRAPE_MAX)?;
        stream.set_read_timeout(Some(SCRAPE_MAX))?;
        stream.write_all(b"GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
        let mut page = String::new();
        stream.read_to_string(&mut page)?;
        Ok(page)
    };
    let page = page().map_err(Failure::io(what()))?;
    sum(&page, name).ok_or_else(|| Failure::Format {
        what: what(),
        problem: format!("{name} is no number"),
    })
}

/// Sums a counter over all its labels.
fn sum(page: &str, name: &str) -> Option<u64> {
    let mut sum = 0;
    for line in page.lines() {
        let Some(rest) = line.strip_prefix(name) else {
            continue;
        };
        if !rest.starts_with([' ', '{']) {
            continue;
        }
        let value = rest.rsplit_once(' ').map_or(rest, |(_, value)| value);
        // A counter may be written as a float.
        let value = value.strip_suffix(".0").unwrap_or(value);
        sum += value.parse::<u64>().ok()?;
    }
    Some(sum)
}

/// What devices publish alarms to, below their own name.
pub(crate) const ALARM_TOPIC: &str = "alarm";
/// Time between two readings of the policy.
const STORM_INTERVAL: Duration = Duration::from_millis(100);
/// How long a node may take to show its metrics.
const SCRAPE_MAX: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::sum;

    #[test]
    fn a_counter_is_summed_over_its_labels_and_told_from_longer_names() {
        let page = "# TYPE a_total counter\na_total{gateway=\"x y\"} 3\na_total 4.0\na_total_more 9\nb 1\n";
        assert_eq!(sum(page, "a_total"), Some(7));
        assert_eq!(sum(page, "none"), Some(0));
        assert_eq!(sum("a_total x", "a_total"), None);
    }
}
