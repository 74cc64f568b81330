//! HTTP GET, and the Prometheus text format read strictly.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
};

use super::wait::PATIENCE;

/// Gets `path` and returns status code and body.
///
/// # Panics
/// If nothing answers there in HTTP.
pub(crate) fn get(from: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(from).expect("metrics are served");
    stream.set_read_timeout(Some(PATIENCE)).expect("it is a socket");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {from}\r\n\r\n").expect("the request is taken");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("the answer is text");
    let (head, body) = text.split_once("\r\n\r\n").expect("the answer has a head");
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    (code.expect("the answer has a status"), body.to_owned())
}

/// Samples by name and labels, as they are written.
#[derive(Debug)]
pub(crate) struct Samples(BTreeMap<String, f64>);

impl Samples {
    /// Reads an exposition.
    ///
    /// # Panics
    /// If a line is none, a sample has no HELP and TYPE before it, or one stands twice.
    pub(crate) fn parse(text: &str) -> Self {
        let mut helped = BTreeSet::new();
        let mut typed = BTreeSet::new();
        let mut samples = BTreeMap::new();
        for line in text.lines().filter(|line| !line.is_empty()) {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').expect("HELP has a text");
                assert!(!help.is_empty() && helped.insert(name), "{line}");
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').expect("TYPE has a kind");
                assert!(
                    ["counter", "gauge"].contains(&kind) && typed.insert(name),
                    "{line}"
                );
                assert_eq!(
                    kind == "counter",
                    name.ends_with("_total") || name.ends_with("_sequence"),
                    "{line}"
                );
            } else {
                let (key, value) = line.rsplit_once(' ').expect("a sample has a value");
                let name = key.split('{').next().unwrap_or_default();
                assert!(helped.contains(name) && typed.contains(name), "{line}");
                let value = value.parse().expect("a value is a number");
                assert!(samples.insert(key.to_owned(), value).is_none(), "twice: {line}");
            }
        }
        assert!(!samples.is_empty(), "no samples: {text}");
        Self(samples)
    }

    /// Returns the sum over all labels.
    ///
    /// # Panics
    /// If there is no such sample.
    pub(crate) fn sum(&self, name: &str) -> f64 {
        self.find(name).unwrap_or_else(|| panic!("no {name} in {self:?}"))
    }

    /// Returns the sum over all labels, if there is such a sample: what a busy shard has not told is missing.
    pub(crate) fn find(&self, name: &str) -> Option<f64> {
        let mut found = self
            .0
            .iter()
            .filter(|(key, _)| key.split('{').next() == Some(name))
            .map(|(_, value)| *value)
            .peekable();
        found.peek()?;
        Some(found.sum())
    }
}
