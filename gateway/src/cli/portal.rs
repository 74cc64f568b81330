//! Words and options of `fieldgate portal inlet` and `outlet`.

use clap::{Args, Subcommand};

use super::NodeArgs;

#[derive(Debug, Subcommand)]
pub(crate) enum InletCommand {
    /// Add an inlet at once: where others connect, and what that leads to. Everything that is wrong is said, with exit code 1
    Add(InletAddArgs),
    /// Take an inlet away that was added by command. Nobody gets in any more; its streams go on
    Remove(InletRemoveArgs),
}

#[derive(Debug, Subcommand)]
pub(crate) enum OutletCommand {
    /// Add an outlet at once: what inlets of other nodes may lead to. Everything that is wrong is said, with exit code 1
    Add(OutletAddArgs),
    /// Take an outlet away that was added by command, and end its streams
    Remove(OutletRemoveArgs),
}

#[derive(Debug, Args)]
pub(crate) struct InletAddArgs {
    /// What it is called
    pub(crate) name: String,
    /// Where it listens: host:port, udp:host:port or unix:/path
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) listen: String,
    /// The node it leads to: an identifier
    #[arg(long, value_name = "fg1…")]
    pub(crate) node: String,
    /// The outlet there
    #[arg(long, value_name = "NAME")]
    pub(crate) outlet: String,
    /// The name that the node holds at the relays
    #[arg(long, value_name = "NAME", requires = "relay")]
    pub(crate) via: Option<String>,
    /// A relay on the way, which the node's file names, too; may be repeated
    #[arg(long, value_name = "ADDRESS,fg1…", requires = "via")]
    pub(crate) relay: Vec<String>,
    /// Where the node itself takes links, without a relay
    #[arg(long, value_name = "ADDRESS", conflicts_with = "via")]
    pub(crate) direct: Option<String>,
    #[command(flatten)]
    pub(crate) more: AddArgs,
}

#[derive(Debug, Args)]
pub(crate) struct OutletAddArgs {
    /// What it is called
    pub(crate) name: String,
    /// What it leads to: host:port, udp:host:port, unix:/path or serial:/dev/…
    #[arg(long, value_name = "ADDRESS", required_unless_present = "targets")]
    pub(crate) address: Option<String>,
    /// What inlets may ask for instead: host:port, with * for any; may be repeated
    #[arg(long = "target", value_name = "PATTERN", conflicts_with = "address")]
    pub(crate) targets: Vec<String>,
    /// Whose inlets may lead here: an identifier; may be repeated. A policy may permit others
    #[arg(long, value_name = "fg1…")]
    pub(crate) allow: Vec<String>,
    #[command(flatten)]
    pub(crate) more: AddArgs,
}

/// What adding has in common.
#[derive(Debug, Args)]
pub(crate) struct AddArgs {
    /// Another key, as in a file: 'streams_max = 4'; may be repeated
    #[arg(long, value_name = "KEY = VALUE")]
    pub(crate) set: Vec<String>,
    /// Have it after a restart, too
    #[arg(long)]
    pub(crate) keep: bool,
    #[command(flatten)]
    pub(crate) node_args: NodeArgs,
}

#[derive(Debug, Args)]
pub(crate) struct InletRemoveArgs {
    /// What it is called
    pub(crate) name: String,
    /// End its streams, too
    #[arg(long)]
    pub(crate) now: bool,
    #[command(flatten)]
    pub(crate) node_args: NodeArgs,
}

#[derive(Debug, Args)]
pub(crate) struct OutletRemoveArgs {
    /// What it is called
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) node_args: NodeArgs,
}
