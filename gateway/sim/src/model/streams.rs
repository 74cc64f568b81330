//! What must hold for streams: what comes out is what was said, a clean end means that all came, and nothing ends for no reason.

use std::collections::{BTreeMap, BTreeSet};

use fieldgate_proto::portal::{ResetReason, SessionSettings};

use super::{Check, MARKER, Model, ensure};
use crate::{report::StreamReport, streams::OUTLET};

/// Which stream of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Tag(u64);

impl Tag {
    /// Returns what is said of whoever connected; it must not be read on the way either.
    pub(crate) fn text(self) -> String {
        format!("{}{}", String::from_utf8_lossy(MARKER), self.0)
    }

    fn of(text: &str) -> Option<Self> {
        let number = text.as_bytes().strip_prefix(MARKER)?;
        str::from_utf8(number).ok()?.parse().ok().map(Self)
    }
}

/// Which end of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Inlet,
    Outlet,
}

impl Place {
    const fn index(self) -> usize {
        match self {
            Self::Inlet => 0,
            Self::Outlet => 1,
        }
    }

    const fn other(self) -> Self {
        match self {
            Self::Inlet => Self::Outlet,
            Self::Outlet => Self::Inlet,
        }
    }
}

/// The inlet's host and the outlet's.
pub(crate) type Pair = (usize, usize);

/// What has a bound in a session.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StreamBounds {
    /// Streams that the session knows.
    pub(crate) streams: usize,
    /// Streams that somebody at its side knows.
    pub(crate) ends: usize,
    /// Bytes of one stream that came and have not gone out.
    pub(crate) unread_max: usize,
    /// Those of all.
    pub(crate) unread: usize,
    /// Bytes kept until the other side has taken them.
    pub(crate) kept: usize,
}

/// All streams of a run.
#[derive(Debug, Default)]
pub(crate) struct StreamsModel {
    streams: BTreeMap<Tag, Stream>,
    /// Between whom streams are wanted after healing.
    pub(crate) pairs: BTreeSet<Pair>,
    /// Those pairs of which one that began after healing has ended well.
    proven: BTreeSet<Pair>,
    /// When a side of a session gave it up, or stopped, last; in nanoseconds of the simulation.
    breaks: BTreeMap<Pair, u64>,
    stops: BTreeMap<usize, u64>,
    /// Sessions that had as many streams as may be.
    full: BTreeSet<Pair>,
    is_healed: bool,
    report: StreamReport,
}

/// One stream. Of two of anything the first belongs to the inlet's end.
#[derive(Debug)]
struct Stream {
    pair: Pair,
    is_requested: bool,
    is_accepted: bool,
    began_healed: bool,
    said: [u64; 2],
    came: [u64; 2],
    has_finished: [bool; 2],
    ended: [Option<Ending>; 2],
}

/// How an end was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Well,
    /// It broke off.
    BrokeOff(ResetReason),
    /// It was told that the stream is over.
    Told,
    /// Its host stopped.
    Stopped,
}

impl Stream {
    /// Returns whether nobody waits for anything any more.
    const fn is_over(&self) -> bool {
        let [inlet, outlet] = &self.ended;
        inlet.is_some() && (outlet.is_some() || !self.is_requested)
    }
}

impl Model {
    pub(crate) const fn is_healed(&self) -> bool {
        self.streams.is_healed
    }

    /// Everything works from now on.
    pub(crate) const fn healed(&mut self) {
        self.streams.is_healed = true;
    }

    /// A host stopped: its ends of streams are gone.
    pub(crate) fn streams_stopped(&mut self, host: usize, at: u64) {
        self.streams.stops.insert(host, at);
        for stream in self.streams.streams.values_mut() {
            for (end, of) in stream.ended.iter_mut().zip([stream.pair.0, stream.pair.1]) {
                if of == host {
                    end.get_or_insert(Ending::Stopped);
                }
            }
        }
    }

    /// Returns whether somebody wants a stream now: always, and after healing until one has ended well.
    pub(crate) fn wants_stream(&self, pair: Pair) -> bool {
        let model = &self.streams;
        let mut streams = model.streams.values();
        !model.is_healed
            || !model.proven.contains(&pair)
                && !streams.any(|stream| stream.pair == pair && stream.began_healed && !stream.is_over())
    }

    pub(crate) fn next_tag(&self) -> Tag {
        Tag(self.streams.streams.len() as u64)
    }

    /// Somebody connected to an inlet.
    pub(crate) fn connected(&mut self, tag: Tag, pair: Pair, opened: bool, full: bool) {
        let check = ensure(
            opened != full,
            "a stream is opened unless there are as many as may be",
            || format!("{pair:?}: opened {opened}, full {full}"),
        );
        self.note(check);
        if !opened {
            return;
        }
        let stream = Stream {
            pair,
            is_requested: false,
            is_accepted: false,
            began_healed: self.streams.is_healed,
            said: [0; 2],
            came: [0; 2],
            has_finished: [false; 2],
            ended: [None; 2],
        };
        self.streams.streams.insert(tag, stream);
        self.streams.report.opened += 1;
    }

    /// A stream was asked for at an outlet. Returns which, if it may be.
    pub(crate) fn requested(
        &mut self,
        (peer, host): (Option<usize>, usize),
        outlet: &str,
        origin: &str,
    ) -> Option<Tag> {
        let tag = Tag::of(origin);
        let stream = tag.and_then(|tag| self.streams.streams.get_mut(&tag));
        let is_right = stream.is_some_and(|stream| {
            let is_first = !std::mem::replace(&mut stream.is_requested, true);
            is_first && outlet == OUTLET && Some(stream.pair.0) == peer && stream.pair.1 == host
        });
        self.note(ensure(
            is_right,
            "an outlet is asked once for what an inlet wants",
            || format!("{origin} to {outlet} from {peer:?}"),
        ));
        tag.filter(|_| is_right)
    }

    /// An outlet is connected.
    pub(crate) fn accepts(&mut self, tag: Tag) {
        self.stream(tag, |stream| {
            stream.is_accepted = true;
            Ok(())
        });
    }

    /// An inlet is told so.
    pub(crate) fn opened(&mut self, tag: Tag) {
        self.stream(tag, |stream| {
            ensure(
                stream.is_accepted,
                "what an inlet is told was connected is",
                || format!("{stream:?}"),
            )
        });
    }

    /// Returns what an end says next.
    pub(crate) fn words(&self, tag: Tag, place: Place, count: u64) -> Vec<u8> {
        let stream = self.streams.streams.get(&tag);
        let from = stream.map_or(0, |stream| stream.said[place.index()]);
        (from..from + count).map(|at| word(tag, place, at)).collect()
    }

    /// An end's session took so much of it.
    pub(crate) fn says(&mut self, tag: Tag, place: Place, bytes: usize) {
        self.stream(tag, |stream| {
            stream.said[place.index()] += bytes as u64;
            Ok(())
        });
    }

    /// An end has nothing more to say.
    pub(crate) fn has_finished(&mut self, tag: Tag, place: Place) {
        self.stream(tag, |stream| {
            stream.has_finished[place.index()] = true;
            Ok(())
        });
    }

    /// An end breaks off.
    pub(crate) fn resets(&mut self, tag: Tag, place: Place, reason: ResetReason) {
        self.stream(tag, |stream| {
            stream.ended[place.index()] = Some(Ending::BrokeOff(reason));
            Ok(())
        });
    }

    /// Bytes came out of a stream at a host.
    pub(crate) fn came(&mut self, host: usize, end: Option<(Tag, Place)>, bytes: &[u8]) {
        let Some((tag, place)) = end else {
            let broken = ensure(false, "bytes come out of streams that are open", || {
                format!("{} bytes at host {host}", bytes.len())
            });
            return self.note(broken);
        };
        self.streams.report.bytes += bytes.len() as u64;
        self.stream(tag, |stream| {
            invariant_what_comes_out_was_said(stream, (tag, place), bytes)
        });
    }

    /// An end is told that the other has nothing more to say.
    pub(crate) fn finished(&mut self, tag: Tag, place: Place) {
        self.stream(tag, |stream| {
            invariant_everything_comes_before_the_end(stream, place)
        });
    }

    /// An end is told that the stream has ended well.
    pub(crate) fn over(&mut self, tag: Tag, place: Place) {
        self.stream(tag, |stream| {
            stream.ended[place.index()] = Some(Ending::Well);
            let both = stream.has_finished == [true; 2];
            ensure(both, "a stream is over when both ends have finished", || {
                format!("{stream:?}")
            })?;
            invariant_everything_comes_before_the_end(stream, place)
        });
        let stream = self.streams.streams.get(&tag);
        if let Some(stream) = stream.filter(|stream| stream.ended == [Some(Ending::Well); 2]) {
            self.streams.report.ended_well += 1;
            if stream.began_healed {
                self.streams.proven.insert(stream.pair);
            }
        }
    }

    /// A side gave up a session that had no channel for too long.
    pub(crate) fn session_given_up(&mut self, pair: Pair, at: u64) {
        self.streams.breaks.insert(pair, at);
        self.streams.report.given_up += 1;
    }

    /// An end is told that the stream was broken off. `is_told` says whether the other side can have heard of the stream, `began` when
    /// its session did.
    pub(crate) fn was_reset(
        &mut self,
        (tag, place): (Tag, Place),
        reason: ResetReason,
        (is_told, began): (bool, u64),
    ) {
        let model = &mut self.streams;
        let Some(stream) = model.streams.get_mut(&tag) else {
            return;
        };
        let pair = stream.pair;
        let stops = [pair.0, pair.1].map(|host| model.stops.get(&host));
        let breaks = stops.into_iter().flatten().chain(model.breaks.get(&pair));
        let last_break = breaks.max().copied();
        let explained = match reason {
            // One that nobody has heard of is no part of what was lost.
            ResetReason::Lost => is_told && last_break.is_some_and(|at| at >= began),
            ResetReason::Limit => place == Place::Inlet && !stream.is_requested && model.full.contains(&pair),
            ResetReason::Broken
            | ResetReason::NotAllowed
            | ResetReason::Unreachable
            | ResetReason::Idle
            | ResetReason::Closed => stream.ended[place.other().index()] == Some(Ending::BrokeOff(reason)),
        };
        stream.ended[place.index()] = Some(Ending::Told);
        let check = ensure(explained, "a stream breaks off for a reason", || {
            format!("{place:?}, {reason:?}, session of {began} ns: {stream:?}")
        });
        *model.report.broken_off.entry(reason.name()).or_default() += 1;
        self.note(check);
    }

    /// The outlet's side of a session has as many streams as may be.
    pub(crate) fn is_full(&mut self, pair: Pair) {
        self.streams.full.insert(pair);
    }

    /// Checks what has a bound.
    pub(crate) fn check_session(&mut self, host: usize, bounds: StreamBounds, settings: &SessionSettings) {
        self.note(invariant_sessions_stay_within_their_bounds(
            host, bounds, settings,
        ));
    }

    /// Returns whether every stream is over, and all that shall work do.
    pub(crate) fn streams_are_settled(&self) -> bool {
        let model = &self.streams;
        model.proven.is_superset(&model.pairs) && model.streams.values().all(Stream::is_over)
    }

    /// Says which streams are not over, and which pairs have not carried one since healing.
    pub(crate) fn describe_streams(&self) -> String {
        let model = &self.streams;
        let waiting = model.streams.iter().filter(|(_, stream)| !stream.is_over());
        let waiting: Vec<_> = waiting.take(5).collect();
        let unproven: Vec<_> = model.pairs.difference(&model.proven).collect();
        format!("streams not over {waiting:?}, not proven {unproven:?}; ")
    }

    /// Returns what happened to streams.
    pub(crate) fn stream_report(&mut self) -> StreamReport {
        std::mem::take(&mut self.streams.report)
    }

    fn stream(&mut self, tag: Tag, check: impl FnOnce(&mut Stream) -> Check) {
        if let Some(stream) = self.streams.streams.get_mut(&tag) {
            let check = check(stream);
            self.note(check);
        }
    }
}

/// At every moment what came out is a beginning of what was said.
fn invariant_what_comes_out_was_said(stream: &mut Stream, (tag, place): (Tag, Place), bytes: &[u8]) -> Check {
    let (said, came) = (
        stream.said[place.other().index()],
        &mut stream.came[place.index()],
    );
    let from = *came;
    *came += bytes.len() as u64;
    ensure(*came <= said, "what comes out of a stream was said", || {
        format!("{tag:?}: {came} bytes came, {said} were said")
    })?;
    let mut places = (from..).zip(bytes);
    let wrong = places.find(|(at, byte)| **byte != word(tag, place.other(), *at));
    ensure(
        wrong.is_none(),
        "bytes of a stream come in order, each once",
        || {
            format!(
                "{tag:?} at {place:?}: byte {:?} is another",
                wrong.map(|(at, _)| at)
            )
        },
    )
}

/// The end of a direction comes when all of it did.
fn invariant_everything_comes_before_the_end(stream: &Stream, place: Place) -> Check {
    let other = place.other().index();
    let all = stream.came[place.index()] == stream.said[other];
    ensure(
        all && stream.has_finished[other],
        "everything that was said in a stream comes before its end",
        || format!("{place:?}: {stream:?}"),
    )
}

/// Nobody who does not read, and no partition, makes a session keep more than it may.
fn invariant_sessions_stay_within_their_bounds(
    host: usize,
    bounds: StreamBounds,
    settings: &SessionSettings,
) -> Check {
    let said = || format!("host {host}: {bounds:?}");
    ensure(
        bounds.ends == bounds.streams,
        "a session has the streams that its users have",
        said,
    )?;
    ensure(
        bounds.streams <= settings.streams_max,
        "the streams of a session are bounded",
        said,
    )?;
    let window = settings.window.max(settings.window_max);
    let all = (settings.streams_max as u64) * settings.window + settings.growth_max;
    ensure(
        bounds.unread_max as u64 <= window && bounds.unread as u64 <= all,
        "what comes in a stream is bounded by its credit",
        said,
    )?;
    ensure(bounds.kept <= KEPT_MAX, "what a session keeps is bounded", said)
}

/// Returns the byte at a place of what an end says: half of all of it is the marker that is looked for on wires.
fn word(tag: Tag, place: Place, at: u64) -> u8 {
    let block = MARKER.len() as u64 * 2;
    let within = usize::try_from(at % block).unwrap_or_default();
    if let Some(byte) = MARKER.get(within) {
        return *byte;
    }
    let mut seed = tag.0 << 1 | place.index() as u64;
    seed = (seed ^ (at / block).wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    seed ^= seed >> 31;
    let [first, ..] = seed
        .wrapping_mul(0x94d0_49bb_1331_11eb ^ (at % block))
        .to_be_bytes();
    first
}

/// 16 MiB of packets, and one that was being filled.
const KEPT_MAX: usize = (16 << 20) + (64 << 10);

#[cfg(test)]
mod tests {
    use super::*;

    const PAIR: Pair = (0, 1);

    /// A stream whose inlet has said eight bytes and finished.
    fn model() -> (Model, Tag) {
        let mut model = Model::default();
        let tag = model.next_tag();
        model.connected(tag, PAIR, true, false);
        assert_eq!(model.requested((Some(0), 1), OUTLET, &tag.text()), Some(tag));
        model.accepts(tag);
        model.says(tag, Place::Inlet, 8);
        model.has_finished(tag, Place::Inlet);
        (model, tag)
    }

    fn sentence(mut model: Model) -> &'static str {
        model.take_broken().map_or("", |broken| broken.sentence)
    }

    #[test]
    fn what_was_said_may_come_in_pieces() {
        let (mut model, tag) = model();
        let words = model.words(tag, Place::Inlet, 0);
        assert!(words.is_empty());
        let words: Vec<u8> = (0..8).map(|at| word(tag, Place::Inlet, at)).collect();
        for piece in words.chunks(3) {
            model.came(1, Some((tag, Place::Outlet)), piece);
        }
        model.finished(tag, Place::Outlet);
        assert_eq!(sentence(model), "");
    }

    #[test]
    fn bytes_that_nobody_said_or_that_come_twice_are_noticed() {
        for (bytes, wanted) in [
            (vec![b'~'; 8], "bytes of a stream come in order, each once"),
            (
                (0..9).map(|at| word(Tag(0), Place::Inlet, at)).collect(),
                "what comes out of a stream was said",
            ),
        ] {
            let (mut model, tag) = model();
            model.came(1, Some((tag, Place::Outlet)), &bytes);
            assert_eq!(sentence(model), wanted);
        }
    }

    #[test]
    fn an_end_before_everything_came_is_noticed() {
        let (mut model, tag) = model();
        model.finished(tag, Place::Outlet);
        assert_eq!(
            sentence(model),
            "everything that was said in a stream comes before its end"
        );
        let (mut model, tag) = self::model();
        model.over(tag, Place::Inlet);
        assert_eq!(sentence(model), "a stream is over when both ends have finished");
    }

    #[test]
    fn a_stream_that_is_asked_for_twice_or_by_another_is_noticed() {
        for (peer, host) in [(Some(0), 1), (Some(2), 1), (None, 1), (Some(0), 2)] {
            let (mut model, tag) = model();
            assert_eq!(model.requested((peer, host), OUTLET, &tag.text()), None);
            assert_eq!(sentence(model), "an outlet is asked once for what an inlet wants");
        }
    }

    #[test]
    fn a_stream_that_breaks_off_for_no_reason_is_noticed() {
        let wanted = "a stream breaks off for a reason";
        for (reason, seen, explained) in [
            (ResetReason::Lost, (true, 9), false),
            (ResetReason::Lost, (true, 5), true),
            (ResetReason::Lost, (true, 3), true),
            (ResetReason::Lost, (false, 3), false),
            (ResetReason::Broken, (true, 3), false),
            (ResetReason::Unreachable, (false, 9), true),
            (ResetReason::Limit, (true, 3), false),
        ] {
            let (mut model, tag) = model();
            // Before the last session, and after the beginning of the others.
            model.streams.stops.insert(1, 4);
            model.session_given_up((0, 1), 6);
            model.resets(tag, Place::Outlet, ResetReason::Unreachable);
            model.was_reset((tag, Place::Inlet), reason, seen);
            assert_eq!(
                sentence(model),
                if explained { "" } else { wanted },
                "{reason:?} {seen:?}"
            );
        }
    }

    #[test]
    fn what_grows_beyond_its_bound_is_noticed() {
        let settings = SessionSettings {
            streams_max: 2,
            window: 10,
            window_max: 20,
            growth_max: 5,
            ..SessionSettings::default()
        };
        let good = StreamBounds {
            streams: 2,
            ends: 2,
            unread_max: 20,
            unread: 25,
            kept: 100,
        };
        let check = |bounds| invariant_sessions_stay_within_their_bounds(0, bounds, &settings).is_ok();
        assert!(check(good));
        assert!(!check(StreamBounds { ends: 1, ..good }));
        assert!(!check(StreamBounds {
            streams: 3,
            ends: 3,
            ..good
        }));
        assert!(!check(StreamBounds {
            unread_max: 21,
            ..good
        }));
        assert!(!check(StreamBounds { unread: 26, ..good }));
        assert!(!check(StreamBounds {
            kept: KEPT_MAX + 1,
            ..good
        }));
    }
}
