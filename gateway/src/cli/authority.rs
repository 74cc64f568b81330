//! The words of an authority's operators, and of nodes that enrol.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::DEFAULT_CONFIG;

/// Which running node is meant, and how the answer is printed.
#[derive(Debug, Args)]
pub(crate) struct NodeArgs {
    /// The node's file, which names the control socket
    #[arg(long, value_name = "FILE", default_value = DEFAULT_CONFIG, conflicts_with = "socket")]
    pub(crate) config: PathBuf,
    /// The control socket
    #[arg(long, value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,
    /// Print as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct EnrollArgs {
    /// File with the ticket, or - for standard input; asked for on the terminal if left out. The ticket itself is taken
    /// too, but other users of this machine see it there while the command runs, and the shell may keep it
    #[arg(value_name = "TICKET|FILE", conflicts_with = "response")]
    pub(crate) ticket: Option<String>,
    /// How the node wants to be called, unless the ticket says it [default: its name in the file]
    #[arg(long, value_name = "NAME", conflicts_with = "response")]
    pub(crate) name: Option<String>,
    /// Without network: write a request to this file, for `fieldgate authority answer`
    #[arg(long, value_name = "FILE", conflicts_with = "response")]
    pub(crate) request: Option<PathBuf>,
    /// Without network: take the authority's response from this file
    #[arg(long, value_name = "FILE")]
    pub(crate) response: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
}

/// What a credential is to say.
#[derive(Debug, Args)]
pub(crate) struct GrantArgs {
    /// Attribute for policies; may be repeated
    #[arg(long = "attribute", value_name = "KEY=VALUE")]
    pub(crate) attributes: Vec<String>,
    /// Name, or beginning of names and *, that the member may hold at relays; may be repeated
    #[arg(long, value_name = "PATTERN")]
    pub(crate) hold: Vec<String>,
    /// Name, or beginning of names and *, that the member may reach through relays; may be repeated
    #[arg(long, value_name = "PATTERN")]
    pub(crate) reach: Vec<String>,
    /// The member may issue tickets that grant no more than it has itself
    #[arg(long)]
    pub(crate) enroller: bool,
    /// The member may do everything at the authority
    #[arg(long)]
    pub(crate) administrator: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TicketCommand {
    /// Make a ticket; it is shown only now, and whoever has it can enrol
    Issue(TicketIssueArgs),
    /// Show what tickets there are, and who has used how many
    List {
        #[command(flatten)]
        node: NodeArgs,
    },
    /// Let nobody use a ticket any more
    Revoke {
        /// Identifier of the ticket, from `fieldgate ticket list`
        id: String,
        #[command(flatten)]
        node: NodeArgs,
    },
}

#[derive(Debug, Args)]
pub(crate) struct TicketIssueArgs {
    /// Name of the member, 1 to 63 of a-z 0-9 -; without it the node says how it wants to be called
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// How many nodes may enrol with it
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) uses: u32,
    /// How long it is good for
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = humantime::parse_duration)]
    pub(crate) expires: std::time::Duration,
    #[command(flatten)]
    pub(crate) grant: GrantArgs,
    /// Write the ticket to this new file, readable by its owner only, instead of the terminal
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// Show the ticket as QR code too
    #[arg(long, conflicts_with = "json")]
    pub(crate) qr: bool,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum MemberCommand {
    /// Show the members
    List {
        /// Show who was revoked instead
        #[arg(long)]
        revoked: bool,
        #[command(flatten)]
        node: NodeArgs,
    },
    /// Show one member
    Show {
        /// Identifier or name
        #[arg(value_name = "IDENTIFIER|NAME")]
        member: String,
        #[command(flatten)]
        node: NodeArgs,
    },
    /// Make a member of an identity that is known already, without a ticket
    Add {
        /// What `fieldgate identity show` prints on the node
        identifier: String,
        /// Name of the member, 1 to 63 of a-z 0-9 -
        #[arg(long, value_name = "NAME")]
        name: String,
        #[command(flatten)]
        grant: GrantArgs,
        #[command(flatten)]
        node: NodeArgs,
    },
    /// End a membership for good: channels are closed as soon as the nodes hear of it
    Revoke {
        /// Identifier or name
        #[arg(value_name = "IDENTIFIER|NAME")]
        member: String,
        /// Why, for the log
        #[arg(long, value_name = "TEXT")]
        reason: String,
        #[command(flatten)]
        node: NodeArgs,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum AuthorityCommand {
    /// Show what the authority is doing
    Status {
        #[command(flatten)]
        node: NodeArgs,
    },
    /// Show the log of decisions
    Log(AuthorityLogArgs),
    /// Decide about a node's request of enrolment that came as a file
    Answer {
        /// The file that `fieldgate enroll --request` wrote
        #[arg(value_name = "REQUEST_FILE")]
        request: PathBuf,
        /// Write the response to this new file, for `fieldgate enroll --response`
        #[arg(long, value_name = "RESPONSE_FILE")]
        out: PathBuf,
        #[command(flatten)]
        node: NodeArgs,
    },
}

#[derive(Debug, Args)]
pub(crate) struct AuthorityLogArgs {
    /// First entry to show
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) from: u64,
    /// How many entries to show at the most
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<u64>,
    /// Check that every entry follows the one before, from the first to the last; show none
    #[arg(long, conflicts_with_all = ["from", "limit"])]
    pub(crate) verify: bool,
    /// With --verify: check too that the log still holds what this signed head says, saved earlier
    #[arg(long, value_name = "FILE", requires = "verify")]
    pub(crate) against: Option<PathBuf>,
    /// Save the head of the log, signed by the authority, to this new file; keep it elsewhere
    #[arg(long, value_name = "FILE")]
    pub(crate) save_head: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
}
