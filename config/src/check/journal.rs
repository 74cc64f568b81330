//! `[journal]`.

use std::path::Path;

use crate::raw;
use crate::reader::{Context, Field, Header, RawTable};
use crate::settings::{self, JournalKey, WhenFull};
use crate::spec::size_text;

pub(super) fn journal(
    field: Field<raw::Journal>,
    is_needed: bool,
    state_dir: &Path,
    context: &mut Context<'_>,
) -> Option<settings::Journal> {
    let raw = match field.value {
        Some(raw) => raw,
        None if field.span.is_some() || !is_needed => return None,
        None => raw::Journal::defaults("journal", context),
    };
    if let (Some(segment), Some(max)) = (raw.segment_bytes.value, raw.bytes_max.value)
        && segment.saturating_mul(SEGMENTS_MIN) > max
    {
        // Whichever of the two stands in the file is the one to point at.
        let field = if raw.segment_bytes.is_given() {
            &raw.segment_bytes
        } else {
            &raw.bytes_max
        };
        let (segment, max) = (size_text(segment), size_text(max));
        let message = format!(
            "three segments of {segment} (`journal.segment_bytes`) are more than {max} (`journal.bytes_max`)"
        );
        let draft = field.error(message).at(
            raw.bytes_max
                .span
                .clone()
                .filter(|_| raw.segment_bytes.is_given()),
            "and this",
        );
        context.push(draft.help("enlarge `bytes_max`, or choose a smaller `segment_bytes`"));
    }
    if raw
        .segment_bytes
        .value
        .is_some_and(|segment| !segment.is_multiple_of(SEGMENT_UNIT))
    {
        let draft = raw
            .segment_bytes
            .error("`journal.segment_bytes` is not a multiple of 4 KiB");
        context.push(draft.help("choose whole MiB, such as \"8 MiB\""));
    }
    if let (Some(tail), Some(max)) = (raw.tail_bytes_max.value, raw.bytes_max.value)
        && tail > max
    {
        let field = if raw.tail_bytes_max.is_given() {
            &raw.tail_bytes_max
        } else {
            &raw.bytes_max
        };
        let draft =
            field.error("`journal.tail_bytes_max` is more than `journal.bytes_max`, the whole journal");
        context.push(draft.help("choose a smaller `tail_bytes_max`"));
    }
    if raw.durable.value == Some(false) {
        let draft = raw.durable.warning(
            "`journal.durable` is false: a power cut loses readings that devices were told are safe",
        );
        context.push(draft.help("take it out, except for comparisons"));
    }
    let classes = classes(raw.class.value.as_deref().unwrap_or_default(), context);
    let lanes = raw
        .bytes_max
        .value
        .zip(raw.segment_bytes.value)
        .and_then(|(bytes_max, segment_bytes)| lanes(&raw, bytes_max, segment_bytes, context));
    if raw.key.is_given() && raw.encrypt.value == Some(false) {
        let draft = raw
            .encrypt
            .error("`journal.encrypt` is false, but there is a `journal.key`")
            .at(raw.key.span.clone(), "this");
        context.push(draft.help("take one of them out"));
    }
    if !is_needed || (raw.key.is_given() && raw.key.value.is_none()) {
        return None;
    }
    let key = match (raw.key.value, raw.encrypt.value) {
        (Some(secret), _) => Some(JournalKey::Secret(secret)),
        (None, Some(true)) => Some(JournalKey::Identity),
        (None, Some(false) | None) => None,
    };
    Some(settings::Journal {
        dir: raw.dir.value.unwrap_or_else(|| state_dir.join("journal")),
        bytes_max: raw.bytes_max.value?,
        lanes: lanes?,
        classes: classes?,
        key,
        commit_delay: raw.commit_delay_ms.value?,
        tail_bytes_max: raw.tail_bytes_max.value?,
        durable: raw.durable.value?,
    })
}

/// Returns the rules, `None` if one of them is not what it should be.
fn classes(raws: &[raw::JournalClass], context: &mut Context<'_>) -> Option<Vec<settings::ClassRule>> {
    let mut for_all: Option<&Header> = None;
    for raw in raws {
        let header = raw.header();
        if let Some(earlier) = for_all {
            let draft = header.warning("this rule is never reached: one before it fits every reading");
            let draft = draft.at(earlier.span.clone(), "the one that fits every reading");
            context.push(draft.help("put the rule that names nothing behind all others"));
        }
        let is_for_all = !raw.device.is_given()
            && !raw.topic.is_given()
            && !raw.content_type.is_given()
            && !raw.json.is_given();
        for_all = for_all.or_else(|| is_for_all.then_some(header));
    }
    raws.iter().map(class).collect()
}

fn class(raw: &raw::JournalClass) -> Option<settings::ClassRule> {
    Some(settings::ClassRule {
        class: raw.class.value?,
        device: unless_refused(&raw.device)?,
        topic: unless_refused(&raw.topic)?,
        content_type: unless_refused(&raw.content_type)?,
        json: match &raw.json.value {
            Some(json) => Some(json_test(json)?),
            None if raw.json.is_given() => return None,
            None => None,
        },
    })
}

/// Returns what a key says, `None` in it if it is absent, and nothing if it was refused.
fn unless_refused<V: Clone>(field: &Field<V>) -> Option<Option<V>> {
    (!field.is_given() || field.value.is_some()).then(|| field.value.clone())
}

fn json_test(raw: &raw::JsonTest) -> Option<settings::JsonTest> {
    let at_least = raw.at_least.value.map(settings::JsonCondition::AtLeast);
    let at_most = raw.at_most.value.map(settings::JsonCondition::AtMost);
    let equals = raw.equals.value.clone().map(settings::JsonCondition::Equals);
    Some(settings::JsonTest {
        path: raw.path.value.clone()?,
        condition: at_least.or(at_most).or(equals)?,
    })
}

/// Shares the disk space out among the lanes and checks what each says of itself.
fn lanes(
    raw: &raw::Journal,
    bytes_max: u64,
    segment_bytes: u64,
    context: &mut Context<'_>,
) -> Option<[settings::JournalLane; 3]> {
    let (alarm, normal, bulk) = (
        raw.alarm.value.as_ref()?,
        raw.normal.value.as_ref()?,
        raw.bulk.value.as_ref()?,
    );
    let tables = [alarm, normal, bulk];
    let given = tables.map(|table| table.bytes_max.value);
    let sum = given.into_iter().flatten().fold(0, u64::saturating_add);
    let missing = given.iter().filter(|bytes| bytes.is_none()).count() as u64;
    if sum.saturating_add(missing * LANE_BYTES_MIN) > bytes_max {
        let message = format!(
            "the lanes of the journal need {}, more than {} (`journal.bytes_max`)",
            size_text(sum.saturating_add(missing * LANE_BYTES_MIN)),
            size_text(bytes_max)
        );
        let last = tables.into_iter().rev().find(|table| table.bytes_max.is_given());
        let draft = match last {
            Some(table) => table.bytes_max.error(message),
            None => raw.bytes_max.error(message),
        };
        context.push(draft.help("enlarge `journal.bytes_max`, or give the lanes less"));
        return None;
    }
    let bytes = shares(given, bytes_max - sum);
    let [a, b, c] = [0, 1, 2].map(|index: usize| {
        let (table, bytes) = (tables[index], bytes[index]);
        lane(
            table,
            bytes,
            LARGEST[index].min(segment_bytes),
            index == BULK,
            context,
        )
    });
    Some([a?, b?, c?])
}

/// Returns what each lane has: what it asks for, or its part of the `rest`, but never less than is of use.
fn shares(given: [Option<u64>; 3], rest: u64) -> [u64; 3] {
    let mut weights: u64 = WEIGHTS
        .iter()
        .zip(given)
        .filter(|(_, given)| given.is_none())
        .map(|(weight, _)| weight)
        .sum();
    let mut missing = given.iter().filter(|bytes| bytes.is_none()).count() as u64;
    let mut rest = rest;
    let mut bytes = given.map(Option::unwrap_or_default);
    // Ordinary readings come last: they have what is left.
    for index in [0, BULK, NORMAL] {
        if given[index].is_some() {
            continue;
        }
        missing -= 1;
        let share = u128::from(rest) * u128::from(WEIGHTS[index]) / u128::from(weights.max(1));
        let share = u64::try_from(share).unwrap_or(u64::MAX);
        bytes[index] = share.clamp(LANE_BYTES_MIN, rest - missing * LANE_BYTES_MIN);
        rest -= bytes[index];
        weights -= WEIGHTS[index];
    }
    bytes
}

fn lane(
    raw: &raw::JournalLane,
    bytes_max: u64,
    largest: u64,
    is_bulk: bool,
    context: &mut Context<'_>,
) -> Option<settings::JournalLane> {
    let quarter = bytes_max / 4 / SEGMENT_UNIT * SEGMENT_UNIT;
    let segment_bytes = match raw.segment_bytes.value {
        Some(segment) => segment,
        None if raw.segment_bytes.is_given() => return None,
        None => largest.min(quarter).max(LANE_BYTES_MIN / SEGMENTS_MIN),
    };
    if raw.segment_bytes.is_given() && !segment_bytes.is_multiple_of(SEGMENT_UNIT) {
        let message = format!("`{}` is not a multiple of 4 KiB", raw.segment_bytes.path);
        let draft = raw.segment_bytes.error(message);
        context.push(draft.help("choose whole MiB, such as \"2 MiB\""));
    }
    if segment_bytes.saturating_mul(SEGMENTS_MIN) > bytes_max {
        let message = format!(
            "three segments of {} (`{}`) are more than {}, what the lane has",
            size_text(segment_bytes),
            raw.segment_bytes.path,
            size_text(bytes_max)
        );
        let draft = raw.segment_bytes.error(message);
        context.push(draft.help("give the lane more `bytes_max`, or smaller segments"));
    }
    let when_full = match raw.when_full.value {
        Some(when_full) => when_full,
        None if raw.when_full.is_given() => return None,
        None if is_bulk => WhenFull::DropOldest,
        None => WhenFull::Refuse,
    };
    Some(settings::JournalLane {
        bytes_max,
        segment_bytes,
        ttl: raw.ttl_secs.value,
        when_full,
    })
}

/// Fewer segments would leave no whole one to free while one is written and one is read.
const SEGMENTS_MIN: u64 = 3;
/// Blocks of storage devices divide it.
const SEGMENT_UNIT: u64 = 4_096;
/// Three of the shortest segments.
const LANE_BYTES_MIN: u64 = 768 << 10;
/// Parts of the disk space, in the order alarm, normal, bulk.
const WEIGHTS: [u64; 3] = [1, 11, 4];
/// Alarms are few, so that long segments would only be dead space.
const LARGEST: [u64; 3] = [2 << 20, u64::MAX, u64::MAX];
const NORMAL: usize = 1;
const BULK: usize = 2;
