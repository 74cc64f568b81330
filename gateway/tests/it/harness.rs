//! What the tests are written with: processes, nodes made from the example files, brokers, clients.

pub(crate) mod bridged;
pub(crate) mod broker;
pub(crate) mod client;
pub(crate) mod guarded;
pub(crate) mod network;
pub(crate) mod node;
pub(crate) mod pki;
pub(crate) mod ports;
pub(crate) mod process;
pub(crate) mod scrape;
pub(crate) mod shell;
pub(crate) mod site;
pub(crate) mod token;
pub(crate) mod trusted;
pub(crate) mod wait;
