//! Words and options of `fieldgate command`.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Subcommand};

use super::DEFAULT_CONFIG;

#[derive(Debug, Subcommand)]
pub(crate) enum DeviceOrder {
    /// Send a command to a device behind a gateway. Prints its id; with --wait the answer or how it ended, with exit code 1
    /// unless the device had it and took it
    Send(CommandSendArgs),
    /// List the commands that are under way, and those of the last day
    List {
        #[command(flatten)]
        node: CollectorArgs,
    },
    /// Show a command, with what the device has answered
    Show {
        /// The command's id
        id: String,
        #[command(flatten)]
        node: CollectorArgs,
    },
    /// Take a command back, if the device was not handed it yet
    Cancel {
        /// The command's id
        id: String,
        #[command(flatten)]
        node: CollectorArgs,
    },
}

/// Which collector, and how to print.
#[derive(Debug, Args)]
pub(crate) struct CollectorArgs {
    /// The collector's file, which names the control socket
    #[arg(long, value_name = "FILE", default_value = DEFAULT_CONFIG, conflicts_with = "socket")]
    pub(crate) config: PathBuf,
    /// The collector's control socket
    #[arg(long, value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,
    /// Print as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct CommandSendArgs {
    /// Name or identifier of the gateway
    #[arg(long, value_name = "NAME")]
    pub(crate) gateway: String,
    /// Name of the device at its gateway
    #[arg(long, value_name = "NAME")]
    pub(crate) device: String,
    /// Which part of the device: what its command topic has in the place of {resource}
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) resource: String,
    /// The payload
    #[arg(long, value_name = "TEXT", conflicts_with = "file")]
    pub(crate) payload: Option<String>,
    /// The file that holds the payload
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Media type of the payload, like application/json
    #[arg(long, value_name = "TYPE", default_value = "")]
    pub(crate) content_type: String,
    /// How long the device may be handed it, like 30s, 5min or 2h
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = humantime::parse_duration)]
    pub(crate) deadline: Duration,
    /// Hand it over once or never, whatever crashes; without this it is repeated until the device acknowledges it
    #[arg(long)]
    pub(crate) at_most_once: bool,
    /// Ask the device for an answer (MQTT 5.0); without this its acknowledgement is the end
    #[arg(long)]
    pub(crate) answer: bool,
    /// Wait until the command has come to its end
    #[arg(long)]
    pub(crate) wait: bool,
    #[command(flatten)]
    pub(crate) node: CollectorArgs,
}
