//! What a fleet of a million gateways asks of a cluster of relays: the figures of `gateway/docs/scale.md`.
//!
//! Plain arithmetic and a simulation in steps of one second with a fixed seed; it prints the same on every machine.

use crate::failure::Failure;

/// What stays the same in every plan.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Options {
    /// Gateways of the whole fleet
    #[arg(long, default_value_t = 1_000_000)]
    gateways: u32,
    /// Links that one relay holds (`links_max` of `[relay]`, 65,536 at the most)
    #[arg(long, default_value_t = 50_000)]
    links_per_relay: u32,
    /// Parts of the fleet that share nothing: each has relays and a store of its own
    #[arg(long, default_value_t = 8)]
    cells: u32,
    /// Share of a cell's gateways that a regional outage cuts off at once, in percent
    #[arg(long, default_value_t = 50)]
    outage_percent: u32,
    /// Handshakes that one relay accepts in a second; measure it with `cargo xtask bench channel`
    #[arg(long, default_value_t = 2_000)]
    handshakes_per_second: u32,
    /// Entries that the store takes in a second, over all relays of a cell
    #[arg(long, default_value_t = 5_000)]
    writes_per_second: u32,
    /// Kilobytes that one link with its channel takes in a relay, with what the kernel keeps for it
    #[arg(long, default_value_t = 24)]
    link_kib: u32,
}

/// Prints the figures.
///
/// # Errors
/// None: the signature is that of every recipe.
#[expect(clippy::unnecessary_wraps, reason = "every recipe can fail")]
pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    for line in report(options) {
        println!("{line}");
    }
    Ok(())
}

fn report(options: &Options) -> Vec<String> {
    let plan = Plan::new(options);
    let mut lines = vec![
        format!("gateways                  {}", options.gateways),
        format!("cells                     {}", plan.cells),
        format!("gateways of a cell        {}", plan.gateways),
        format!("relays of a cell          {} (one of them to spare)", plan.relays),
        format!("relays in all             {}", plan.relays * plan.cells),
        format!("links between relays      {} per relay", 2 * (plan.relays - 1)),
        format!(
            "memory for links          {} MiB per relay when full",
            plan.links_per_relay / 1024 * options.link_kib
        ),
        format!(
            "memory for names          {} MiB per relay, if every gateway holds one",
            (u64::from(plan.gateways) * NAME_BYTES) >> 20
        ),
        format!(
            "store at rest             {} writes/s per cell (leases of {LEASE_SECS} s), {} MiB of entries",
            (plan.relays * 3).div_ceil(LEASE_SECS),
            (u64::from(plan.gateways) * ENTRY_BYTES) >> 20
        ),
        format!(
            "a lease per name instead  {} writes/s per cell",
            plan.gateways * 3 / LEASE_SECS
        ),
        String::new(),
        format!(
            "outage: {} % of a cell, {} gateways, come back at once",
            options.outage_percent, plan.cut_off
        ),
    ];
    for (what, relays) in [
        ("all relays are there", plan.relays),
        ("one relay is lost", plan.relays - 1),
    ] {
        let wave = simulate(options, &plan, relays);
        lines.push(format!("{what}:"));
        lines.push(format!("  dials in the worst second   {}", wave.dials_max));
        lines.push(format!(
            "  half of them are attached   after {} s",
            wave.half_secs
        ));
        lines.push(format!("  the last one is attached    after {} s", wave.all_secs));
        lines.push(format!(
            "  names waiting for the store {} at the most",
            wave.unsettled_max
        ));
        lines.push(format!(
            "  the store has every name    after {} s",
            wave.settled_secs
        ));
    }
    lines
}

/// How a fleet is cut up.
#[derive(Clone, Copy, Debug)]
struct Plan {
    cells: u32,
    gateways: u32,
    relays: u32,
    links_per_relay: u32,
    cut_off: u32,
}

impl Plan {
    fn new(options: &Options) -> Self {
        let cells = options.cells.max(1);
        let gateways = options.gateways.div_ceil(cells).max(1);
        let links_per_relay = options.links_per_relay.max(1);
        Self {
            cells,
            gateways,
            // One more than is needed, so that one may be lost.
            relays: gateways.div_ceil(links_per_relay) + 1,
            links_per_relay,
            cut_off: u32::try_from(u64::from(gateways) * u64::from(options.outage_percent.min(100)) / 100)
                .unwrap_or(u32::MAX),
        }
    }
}

/// What a simulated return looked like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Wave {
    dials_max: u32,
    half_secs: u64,
    all_secs: u64,
    unsettled_max: u32,
    settled_secs: u64,
}

/// Lets everybody who was cut off dial with the back-off of a gateway that has tried for long: between half and all of 5 s, drawn anew
/// each time. A relay accepts so many handshakes in a second and does not get round to the others, who notice after three seconds.
fn simulate(options: &Options, plan: &Plan, relays: u32) -> Wave {
    let mut random = Random(SEED);
    // How many dial in each of the next seconds.
    let mut due = [0_u32; (BACKOFF_MAX_SECS + NOTICE_SECS) as usize];
    for _ in 0..plan.cut_off {
        due[random.below(BACKOFF_MAX_SECS) as usize] += 1;
    }
    let capacity = relays.saturating_mul(options.handshakes_per_second.max(1));
    let mut wave = Wave::default();
    let (mut attached, mut unsettled) = (0_u32, 0_u32);
    for (at, second) in (0..HORIZON_SECS).enumerate() {
        let slot = at % due.len();
        let dialling = std::mem::take(&mut due[slot]);
        wave.dials_max = wave.dials_max.max(dialling);
        let accepted = dialling.min(capacity);
        attached += accepted;
        unsettled += accepted;
        for _ in accepted..dialling {
            let wait = NOTICE_SECS + BACKOFF_MAX_SECS / 2 + random.below(BACKOFF_MAX_SECS.div_ceil(2));
            due[(slot + wait as usize) % due.len()] += 1;
        }
        wave.unsettled_max = wave.unsettled_max.max(unsettled);
        unsettled = unsettled.saturating_sub(options.writes_per_second.max(1));
        if wave.half_secs == 0 && attached >= plan.cut_off.div_ceil(2) {
            wave.half_secs = second + 1;
        }
        if wave.all_secs == 0 && attached == plan.cut_off {
            wave.all_secs = second + 1;
        }
        if attached == plan.cut_off && unsettled == 0 {
            wave.settled_secs = second + 1;
            break;
        }
    }
    wave
}

/// SplitMix64 (Steele, Lea, Flood 2014).
struct Random(u64);

impl Random {
    const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u32) -> u32 {
        u32::try_from(self.next() % u64::from(bound.max(1))).unwrap_or(0)
    }
}

/// Bytes that a name of 20 characters takes in a relay's directory: it stands there twice, with a number of the registration.
const NAME_BYTES: u64 = 256;
/// Bytes of an entry in the store: subject of some 130 characters, value of 21 bytes, header of a message.
const ENTRY_BYTES: u64 = 220;
/// The usual lease.
const LEASE_SECS: u32 = 15;
/// The longest back-off of a gateway.
const BACKOFF_MAX_SECS: u32 = 5;
/// How long a gateway takes to notice that a relay does not get round to it.
const NOTICE_SECS: u32 = 3;
/// Longest time that is simulated.
const HORIZON_SECS: u64 = 24 * 3_600;
const SEED: u64 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> Options {
        Options {
            gateways: 1_000_000,
            links_per_relay: 50_000,
            cells: 8,
            outage_percent: 50,
            handshakes_per_second: 2_000,
            writes_per_second: 5_000,
            link_kib: 24,
        }
    }

    #[test]
    fn a_cell_has_room_for_its_gateways_without_one_of_its_relays() {
        for cells in [1, 3, 8, 20] {
            let plan = Plan::new(&Options { cells, ..options() });
            assert!(u64::from(plan.relays - 1) * u64::from(plan.links_per_relay) >= u64::from(plan.gateways));
            assert!(u64::from(plan.gateways) * u64::from(plan.cells) >= 1_000_000);
        }
    }

    #[test]
    fn everybody_comes_back_and_fewer_relays_take_longer() {
        let plan = Plan::new(&options());
        let slow = Options {
            handshakes_per_second: 100,
            ..options()
        };
        let fast = simulate(&options(), &plan, plan.relays);
        let slow = simulate(&slow, &plan, plan.relays);
        assert!(fast.all_secs > 0 && fast.settled_secs >= fast.all_secs);
        assert!(slow.all_secs > fast.all_secs);
        // No relay takes more than it can.
        assert!(slow.all_secs * u64::from(plan.relays * 100) >= u64::from(plan.cut_off));
    }

    #[test]
    fn the_paper_shows_what_is_computed() {
        let paper = include_str!("../../../gateway/docs/scale.md");
        for line in report(&options()) {
            assert!(
                paper.contains(&line),
                "`cargo xtask scale` says {line:?}, and the paper does not"
            );
        }
    }
}
