//! `[relay.cluster]` and `[authority.cluster]`.

use std::time::Duration;

use super::sink::SinkTls;
use super::{RelayAddress, SECRET};
use crate::address::HostPort;
use crate::reader::{Field, Header, Item, RawTable, Reader};
use crate::settings::SecretSource;
use crate::shape::{Boolean, List, Shape, count_u32, inlines, seconds, section};
use crate::spec::Presence::{Default, Optional, Required};
use crate::spec::{Key, Spec, When};
use crate::text::{HOST_PORT, STREAM, USERNAME};

tables! {
    /// Relays that reach each other's members. Which relay holds which name stands in a key-value bucket of NATS JetStream; what
    /// members send each other goes straight from relay to relay. Whoever writes the bucket can misroute, and nothing else.
    RelayCluster at_most_one("username", "token", "credentials") {
        /// The relays of the cluster; this one may be among them, so that all have the same list.
        relays: Vec<RelayAddress> = inlines::<RelayAddress>(64), Required;
        /// The NATS servers, any of which will do.
        servers: Vec<Item<HostPort>> = List { item: HOST_PORT, min: 1, max: 16 }, Required;
        /// TLS to the servers. Without it what passes is not encrypted.
        tls: SinkTls = section::<SinkTls>(), Optional("off");
        /// User name at the servers.
        username: String = USERNAME, Optional("no login");
        /// Password at the servers.
        password: SecretSource = SECRET, Optional("no password"), if When::With(&["username"]);
        /// Token at the servers.
        token: SecretSource = SECRET, Optional("none");
        /// What a `.creds` file of NATS holds: user JWT and NKEY seed.
        credentials: SecretSource = SECRET, Optional("none");
        /// The bucket, which nothing else may write to. It is created if it is not there.
        bucket: String = STREAM, Default("\"fieldgate-relays\"");
        /// Servers that hold a bucket that is created here; three need a NATS cluster of three.
        replicas: u32 = count_u32(1, 5), Default("3");
        /// How long the others take this relay for alive after it was heard of last; it renews at a third of it.
        lease_secs: Duration = seconds(5, 600), Default("15");
        /// How much longer what is known of the others counts while no NATS server is reached.
        grace_secs: Duration = seconds(0, 86_400), Default("300");
        /// Names that are known of one other relay.
        names_per_relay_max: u32 = count_u32(1, 4_194_304), Default("65536");
        /// Names that are known of all other relays, and names that this one tells them.
        names_max: u32 = count_u32(1, 4_194_304), Default("262144");
    }

    /// Several processes of this authority, with the same identity and the same members in their files. What each decides stands in a
    /// stream of NATS JetStream before it counts, and none decides anything that it cannot write there. It is encrypted and authenticated.
    AuthorityCluster at_most_one("username", "token", "credentials") {
        /// The NATS servers, any of which will do.
        servers: Vec<Item<HostPort>> = List { item: HOST_PORT, min: 1, max: 16 }, Required;
        /// TLS to the servers. What passes is encrypted without it, too; the password is not.
        tls: SinkTls = section::<SinkTls>(), Optional("off");
        /// User name at the servers.
        username: String = USERNAME, Optional("no login");
        /// Password at the servers.
        password: SecretSource = SECRET, Optional("no password"), if When::With(&["username"]);
        /// Token at the servers.
        token: SecretSource = SECRET, Optional("none");
        /// What a `.creds` file of NATS holds: user JWT and NKEY seed.
        credentials: SecretSource = SECRET, Optional("none");
        /// What the processes share and nobody else has: random text of at least 32 characters. Whoever has it and reaches the servers
        /// decides who belongs to the fleet.
        key: SecretSource = SECRET, Required;
        /// The stream, which nothing else may write to. It is created if it is not there.
        stream: String = STREAM, Default("\"fieldgate-authority\"");
        /// Servers that hold a stream that is created here; three need a NATS cluster of three.
        replicas: u32 = count_u32(1, 5), Default("3");
        /// Entries that a stream that is created here keeps. A process that was away for longer needs a copy of another's store.
        entries_max: u32 = count_u32(1_000, 1_000_000_000), Default("1000000");
        /// Whether this process begins a stream that is empty, on what its own store holds; `true` at one of them.
        found: bool = Boolean, Default("false");
    }
}
