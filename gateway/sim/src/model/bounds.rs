//! Bounds: what may grow, and how far.

use fieldgate_proto::{
    journal::Journal,
    node::{ConnectionKey, Node, Wire as _},
    time::Instant,
};

use super::{Check, ensure};
use crate::host::Buffers;

/// Checks everything about a node that has a bound.
pub(crate) fn check_node(
    name: &str,
    node: &Node,
    buffers: &Buffers,
    (hosts, is_attacked): (usize, bool),
) -> Check {
    // What somebody adds who is on the wire behind the node is nothing that it could bound.
    if !is_attacked {
        invariant_queues_of_links_are_bounded(name, buffers)?;
    }
    invariant_channels_are_bounded(name, node, hosts)?;
    invariant_connections_are_known_to_both(name, node, buffers)
}

/// A slow or blocked link holds at most what uplinks and relay put there before they wait, and answers.
pub(crate) fn invariant_queues_of_links_are_bounded(name: &str, buffers: &Buffers) -> Check {
    buffers.keys().try_for_each(|key: ConnectionKey| {
        let queued = buffers.queued_bytes(key);
        ensure(queued <= LINK_BYTES_MAX, "queues of links are bounded", || {
            format!("{queued} bytes wait on a link of {name}")
        })
    })
}

/// Channels that were replaced go away.
pub(crate) fn invariant_channels_are_bounded(name: &str, node: &Node, hosts: usize) -> Check {
    let stats = node.channel_stats();
    let max = (hosts * CHANNELS_PER_HOST_MAX) as u64;
    ensure(stats.open <= max, "channels are bounded", || {
        format!("{name} has {} channels open, {max} are plenty", stats.open)
    })?;
    ensure(
        stats.half_open <= HALF_OPEN_MAX && stats.connecting <= HALF_OPEN_MAX,
        "handshakes are bounded",
        || {
            format!(
                "{name} has {} and {} under way",
                stats.half_open, stats.connecting
            )
        },
    )
}

/// A node keeps nothing for connections that are gone, and asks for none that it forgot.
pub(crate) fn invariant_connections_are_known_to_both(name: &str, node: &Node, buffers: &Buffers) -> Check {
    let known = node.connections().filter(|link| link.below.is_none()).count();
    let there = buffers.keys().count();
    ensure(
        known <= there,
        "a node keeps nothing for connections that are gone",
        || format!("{name} knows {known}, {there} are there"),
    )
}

/// A journal never takes more of its disk than it was given.
pub(crate) fn check_journal(name: &str, journal: &Journal, on_disk: u64) -> Check {
    let (bytes, max) = journal.bytes();
    ensure(bytes <= max, "a journal stays within its bytes", || {
        format!("{name} has {bytes} of {max}")
    })?;
    // Freed segments wait for their deletion; a cut creation may have left one more.
    ensure(
        on_disk <= max + max / 2,
        "a disk holds no more than its journal may",
        || format!("{name} has {on_disk} of {max} on disk"),
    )?;
    ensure(
        journal.released() <= journal.committed(),
        "a journal releases only what it has",
        || format!("{} of {}", journal.released(), journal.committed()),
    )
}

/// After a turn the next deadline lies ahead: otherwise a node keeps a processor busy with nothing.
pub(crate) fn invariant_deadlines_lie_ahead(
    (host, what): (&str, &str),
    now: Instant,
    deadline: Option<Instant>,
) -> Check {
    ensure(
        deadline.is_none_or(|deadline| deadline > now),
        "deadlines lie ahead",
        || format!("the {what} of {host} wants to be called at once again, at {now}"),
    )
}

/// 320 KiB of a relay, more than of an uplink or of streams, and a frame; and answers.
const LINK_BYTES_MAX: usize = (320 + 68 + 64) << 10;
/// Channels of one host with another at the same time, those included that the other has not noticed the end of.
const CHANNELS_PER_HOST_MAX: usize = 64;
/// Handshakes under way in a network of seven nodes.
const HALF_OPEN_MAX: u64 = 200;
