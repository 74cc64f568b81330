//! The command line: words, options and their help texts.

mod authority;
mod command;
mod portal;

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};

pub(crate) use authority::{
    AuthorityCommand, AuthorityLogArgs, EnrollArgs, GrantArgs, MemberCommand, NodeArgs, TicketCommand,
    TicketIssueArgs,
};

pub(crate) use command::{CollectorArgs, CommandSendArgs, DeviceOrder};
pub(crate) use portal::{AddArgs, InletAddArgs, InletCommand, OutletAddArgs, OutletCommand};

/// Where a node's file is looked for when none is named.
pub(crate) const DEFAULT_CONFIG: &str = "/etc/fieldgate/fieldgate.toml";

/// Takes readings from field devices, keeps them durably, and carries them end to end in secure channels.
///
/// Try it at once: `fieldgate demo`, then publish with mosquitto_pub as it tells you.
#[derive(Debug, Parser)]
#[command(name = "fieldgate", version, propagate_version = true, max_term_width = 110)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run gateway, relay and collector in one process on loopback, with software keys
    Demo(DemoArgs),
    /// Run the node that the file describes
    Run(ConfigArgs),
    /// Say everything that is wrong with a file; start nothing
    Check(CheckArgs),
    /// Show the configuration's schema or reference
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Create or show this node's identity
    #[command(subcommand)]
    Identity(IdentityCommand),
    /// Make credentials for field devices
    #[command(subcommand)]
    Device(DeviceCommand),
    /// Look into the journal of a gateway
    #[command(subcommand)]
    Journal(JournalCommand),
    /// Make this node a member of an authority
    Enroll(EnrollArgs),
    /// Issue, list and revoke tickets, with which nodes enrol
    #[command(subcommand)]
    Ticket(TicketCommand),
    /// List, add and revoke members of the authority
    #[command(subcommand)]
    Member(MemberCommand),
    /// Read and verify the authority's log, answer requests that come as files
    #[command(subcommand)]
    Authority(AuthorityCommand),
    /// Check policies, and ask them who may do what
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Send commands to devices behind gateways; list, show and cancel them
    #[command(subcommand, name = "command")]
    Order(DeviceOrder),
    /// Look at portals and change them: streams through channels, from inlets to outlets of other nodes
    #[command(subcommand)]
    Portal(PortalCommand),
    /// Have members leave a relay before it stops
    #[command(subcommand)]
    Relay(RelayCommand),
    /// Take the proof of where a reading came from out of a collector's ledger
    Proof(ProofArgs),
    /// Check such a proof; needs the file and nothing else
    Verify(VerifyArgs),
    /// Show what a running node is doing
    Status(StatusArgs),
    /// Look at everything a node needs, and say what to do about what is wrong
    Doctor(DoctorArgs),
    /// Look at PKCS#11 modules and TPMs
    #[command(subcommand)]
    Hsm(HsmCommand),
    /// Print a completion script for a shell
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Be the process that has the identity key; nodes start it by themselves
    #[command(hide = true)]
    TokenWorker,
}

#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Address for MQTT clients, loopback only [default: 127.0.0.1:1883, or a free port if that is taken]
    #[arg(long, value_name = "ADDR")]
    pub(crate) mqtt: Option<SocketAddr>,
    /// Directory for journal and keys; a temporary one, removed at the end, if not given
    #[arg(long, value_name = "PATH")]
    pub(crate) dir: Option<PathBuf>,
    /// Simulate N devices that publish once a second
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=1000))]
    pub(crate) simulate: u16,
    /// Print one JSON object per line: first `ready`, then each reading
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ConfigArgs {
    /// The node's file
    #[arg(long, value_name = "FILE", default_value = DEFAULT_CONFIG)]
    pub(crate) config: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// The file to check
    #[arg(default_value = DEFAULT_CONFIG)]
    pub(crate) file: PathBuf,
    /// Print the problems as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Print the JSON schema of the file
    Schema,
    /// Print every key with type, default and bounds, as Markdown
    Reference,
}

#[derive(Debug, Subcommand)]
pub(crate) enum IdentityCommand {
    /// Make the identity key where the file says (token or sealed file) and the identity around it
    Create {
        #[command(flatten)]
        config: ConfigArgs,
        /// Kind of key; P-256 works on every token
        #[arg(long, value_enum, default_value_t = Algorithm::P256)]
        algorithm: Algorithm,
        /// Print as JSON
        #[arg(long)]
        json: bool,
    },
    /// Show the identifier that other nodes put in their files
    Show {
        #[command(flatten)]
        config: ConfigArgs,
        /// Print the identifier as a QR code as well
        #[arg(long, conflicts_with = "json")]
        qr: bool,
        /// Print as JSON
        #[arg(long)]
        json: bool,
    },
    /// Give the identity a new key, signed by the old one; the identifier stays, and channels of a running node go on
    Rotate {
        #[command(flatten)]
        config: ConfigArgs,
        /// Kind of the new key; that of the old one if not given
        #[arg(long, value_enum)]
        algorithm: Option<Algorithm>,
        /// Remove the keys that are not used any more from the token
        #[arg(long)]
        destroy_old: bool,
        /// Print as JSON
        #[arg(long)]
        json: bool,
    },
}

/// Kinds of identity keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Algorithm {
    /// ECDSA on P-256
    P256,
    /// Ed25519, where the token has it
    Ed25519,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DeviceCommand {
    /// Make a password for a device: shown once, with the lines for the file
    Password {
        /// Name of the device
        name: String,
        /// Take the password from standard input instead of making one
        #[arg(long)]
        stdin: bool,
        /// Make a hash for SCRAM-SHA-256, with which a device of MQTT 5.0 proves that it knows the password without sending it
        #[arg(long)]
        scram: bool,
        /// Print as JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum JournalCommand {
    /// Show lanes, bytes, ages, what was discarded, when it will be full, how the disk wears
    Status(JournalArgs),
    /// Read everything and report every damage; exit code 1 if there is any
    Verify(JournalArgs),
    /// Print readings
    Dump {
        #[command(flatten)]
        journal: JournalArgs,
        #[command(flatten)]
        filter: JournalFilter,
    },
    /// Write readings and what was discarded to a new file, as JSON lines with ids, a count and a hash at its end
    Export {
        #[command(flatten)]
        journal: JournalArgs,
        #[command(flatten)]
        filter: JournalFilter,
        /// The file to write; it must not exist
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}

#[derive(Debug, Args)]
pub(crate) struct JournalFilter {
    /// Readings of this class only: alarm, normal or bulk
    #[arg(long, value_name = "CLASS", value_parser = ["alarm", "normal", "bulk"])]
    pub(crate) class: Option<String>,
    /// Readings of this device only
    #[arg(long, value_name = "NAME")]
    pub(crate) device: Option<String>,
    /// First sequence
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) from: u64,
    /// Last sequence
    #[arg(long, value_name = "N", default_value_t = u64::MAX, hide_default_value = true)]
    pub(crate) to: u64,
    /// How many readings at the most
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct JournalArgs {
    /// The node's file, which names the journal's directory
    #[arg(long, value_name = "FILE", default_value = DEFAULT_CONFIG, conflicts_with = "dir")]
    pub(crate) config: PathBuf,
    /// The journal's directory
    #[arg(long, value_name = "PATH")]
    pub(crate) dir: Option<PathBuf>,
    /// Print as JSON, one object per line
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// Say everything that is wrong with a policy
    Check {
        /// The policy, rules in Cedar's language
        file: PathBuf,
        /// Print the problems as JSON
        #[arg(long)]
        json: bool,
    },
    /// Print the policy of a node whose file names no other
    Show,
    /// Print what rules can speak about: types, attributes, actions
    Schema,
    /// Say whether somebody may do something, and which rule decides
    Explain(PolicyExplainArgs),
}

#[derive(Debug, Args)]
pub(crate) struct PolicyExplainArgs {
    /// The policy to ask; the built-in one if not given
    #[arg(long, value_name = "FILE")]
    pub(crate) policy: Option<PathBuf>,
    /// Who wants it: an identifier
    #[arg(long, value_name = "fg1…")]
    pub(crate) principal: String,
    /// What it wants to do, like connect, publish, openPortal
    #[arg(long)]
    pub(crate) action: String,
    /// What it wants to do it to, like 'Service::"uplink"' or 'RelayName::"plant"'
    #[arg(long)]
    pub(crate) resource: String,
    /// The gateway of a Device or the kind of a Portal
    #[arg(long = "resource-attribute", value_name = "KEY=VALUE")]
    pub(crate) resource_attributes: Vec<String>,
    /// What the principal is called
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// The node's own file names it
    #[arg(long)]
    pub(crate) named: bool,
    /// It holds a credential of the trusted authority
    #[arg(long)]
    pub(crate) member: bool,
    /// Its credential lets it hand out tickets
    #[arg(long)]
    pub(crate) enroller: bool,
    /// Its credential makes it an administrator
    #[arg(long)]
    pub(crate) administrator: bool,
    /// Where its key lives: token, file, memory, unknown
    #[arg(long, default_value = "unknown")]
    pub(crate) key: String,
    /// An attribute of its credential; may be repeated
    #[arg(long = "attribute", value_name = "KEY=VALUE")]
    pub(crate) attributes: Vec<String>,
    /// A circumstance that is other than usual, like liveProof=true or timeQuality=floor; may be repeated. The usual ones are in the
    /// answer
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) context: Vec<String>,
    /// Print as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
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

#[derive(Debug, Subcommand)]
pub(crate) enum PortalCommand {
    /// Show a running node's inlets and outlets, where they come from, and the nodes that their streams come from and go to
    List(StatusArgs),
    /// Add or remove an inlet of a running node
    #[command(subcommand)]
    Inlet(InletCommand),
    /// Add or remove an outlet of a running node
    #[command(subcommand)]
    Outlet(OutletCommand),
}

#[derive(Debug, Subcommand)]
pub(crate) enum RelayCommand {
    /// Have members leave: they take their other relay and go on there; exit code 1 if some are left, which are named
    Drain(DrainArgs),
    /// Let members stay, and come again
    Undrain(StatusArgs),
}

#[derive(Debug, Args)]
pub(crate) struct DrainArgs {
    /// How long to wait for them, in seconds. It ends before as soon as nobody is left, or nobody who could leave
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub(crate) wait: u32,
    /// Have the node end afterwards, whoever is left
    #[arg(long)]
    pub(crate) stop: bool,
    #[command(flatten)]
    pub(crate) node: StatusArgs,
}

#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// The node's file
    #[arg(long, value_name = "FILE", default_value = DEFAULT_CONFIG)]
    pub(crate) config: PathBuf,
    /// Print as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ProofArgs {
    /// The reading: GATEWAY/JOURNAL/SEQUENCE, the id that sinks write
    #[arg(value_name = "ID")]
    pub(crate) id: String,
    /// The collector's file, which names the ledger
    #[arg(long, value_name = "FILE", default_value = DEFAULT_CONFIG, conflicts_with = "ledger")]
    pub(crate) config: PathBuf,
    /// The ledger's directory
    #[arg(long, value_name = "PATH")]
    pub(crate) ledger: Option<PathBuf>,
    /// Where the proof goes; - is standard output [default: reading-SEQUENCE.proof]
    #[arg(long, short, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// Say what was written as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// The proof; - is standard input
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// The gateway it must come from; exit code 1 if it is another
    #[arg(long, value_name = "fg1…")]
    pub(crate) gateway: Option<String>,
    /// Print as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum HsmCommand {
    /// Show what a module has to offer, as a table to paste into a report; without --trial no PIN is used
    Probe(ProbeArgs),
    /// Show a TPM's protection against guessing, which power cuts count towards
    Tpm(TpmArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ProbeArgs {
    /// The module: a shared library
    #[arg(long, value_name = "PATH", conflicts_with = "config")]
    pub(crate) module: Option<PathBuf>,
    /// A node's file, which names module, token and PIN
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// The token to try out
    #[arg(long, value_name = "URI", requires = "module", requires = "pin_from")]
    pub(crate) token: Option<String>,
    /// Where its user PIN is: credential:NAME, file:PATH or env:NAME
    #[arg(long, value_name = "PLACE", requires = "token")]
    pub(crate) pin_from: Option<String>,
    /// Log in once and try everything out with objects that are destroyed again
    #[arg(long)]
    pub(crate) trial: bool,
    /// Show serial numbers
    #[arg(long)]
    pub(crate) serials: bool,
    /// Print as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct TpmArgs {
    /// The TPM's resource manager
    #[arg(long, value_name = "PATH", default_value = "/dev/tpmrm0")]
    pub(crate) device: PathBuf,
    /// Give room for 31 failures, of which one is forgiven every ten minutes
    #[arg(long)]
    pub(crate) set_limits: bool,
    /// Where the lockout authorisation is, if one is set: credential:NAME, file:PATH or env:NAME
    #[arg(long, value_name = "PLACE", requires = "set_limits")]
    pub(crate) lockout_from: Option<String>,
    /// Print as JSON
    #[arg(long)]
    pub(crate) json: bool,
}
