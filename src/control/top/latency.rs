//! Latencies: quantiles of the board's histograms, and a bar on a logarithmic scale.
#![forbid(unsafe_code)]

use scoreboard::histogram::{message_bounds_ns, phase_bounds_ns, quantile_ns};
use scoreboard::{Phase, Snapshot};

use super::appearance::Appearance;
use super::words;

/// The left end of a bar.
const SHORTEST_NS: f64 = 16_000.0;
/// The right end of a bar: what Sendmail waits during the content.
const LONGEST_NS: f64 = 300e9;
/// Wider than the last bound that a histogram has.
const BEYOND: &str = "long";

/// The quantiles that are shown.
pub(super) const QUANTILES: [(f64, &str); 3] = [(0.5, "p50"), (0.9, "p90"), (0.99, "p99")];

/// One line of latencies.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Latency {
    pub(super) name: &'static str,
    /// Upper bounds; `None` when there is nothing to tell.
    quantiles: Option<[Option<u64>; 3]>,
}

impl Latency {
    fn of(
        name: &'static str,
        buckets: &[u64],
        bounds: impl Iterator<Item = u64> + Clone,
    ) -> Latency {
        let counted = buckets.iter().any(|count| *count > 0);
        let quantiles =
            QUANTILES.map(|(quantile, _)| quantile_ns(buckets, bounds.clone(), quantile));
        Latency {
            name,
            quantiles: counted.then_some(quantiles),
        }
    }

    /// A text for each quantile.
    pub(super) fn texts(&self) -> [String; 3] {
        match self.quantiles {
            None => [(); 3].map(|()| words::UNKNOWN.to_owned()),
            Some(all) => all.map(|bound| bound.map_or_else(|| BEYOND.to_owned(), words::latency)),
        }
    }

    /// A bar: a part for each quantile.
    pub(super) fn bar(&self, width: usize, appearance: Appearance) -> String {
        let Some(quantiles) = self.quantiles else {
            return String::new();
        };
        let mut bar = String::new();
        let mut from = 0;
        for (bound, part) in quantiles.into_iter().zip(appearance.parts()) {
            let to = bound.map_or(width, |bound| position(bound, width));
            bar.extend(std::iter::repeat_n(part, to.saturating_sub(from)));
            from = from.max(to);
        }
        bar
    }
}

/// Columns of a bar up to this time: at least one.
fn position(ns: u64, width: usize) -> usize {
    let part = (ns as f64 / SHORTEST_NS).max(1.0).ln() / (LONGEST_NS / SHORTEST_NS).ln();
    ((part * width as f64).round() as usize).clamp(1, width.max(1))
}

/// Of messages as a whole, then of each phase.
pub(super) fn latencies(board: &Snapshot) -> Vec<Latency> {
    let mut all = vec![Latency::of(
        "message",
        &board.counters().message_histogram,
        message_bounds_ns().collect::<Vec<_>>().into_iter(),
    )];
    let histograms = board.histograms().unwrap_or_default();
    for phase in Phase::ALL {
        if *phase != Phase::Idle {
            all.push(Latency::of(
                phase.name(),
                histograms.of(*phase),
                phase_bounds_ns().collect::<Vec<_>>().into_iter(),
            ));
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Appearance = Appearance {
        colours: false,
        unicode: false,
    };

    #[test]
    fn quantiles_are_the_bounds_of_the_boards_histogram_and_bars_grow_with_them() {
        let mut buckets = [0; scoreboard::histogram::PHASE_BUCKETS];
        let bounds = || phase_bounds_ns().collect::<Vec<_>>().into_iter();
        let nothing = Latency::of("eom", &buckets, bounds());
        assert_eq!(nothing.texts(), ["-", "-", "-"]);
        assert_eq!(nothing.bar(10, PLAIN), "");
        buckets[1] = 50;
        buckets[3] = 40;
        buckets[15] = 10;
        let some = Latency::of("eom", &buckets, bounds());
        assert_eq!(some.texts(), ["64us", "1.0ms", "long"]);
        assert_eq!(some.bar(10, PLAIN), "#=--------");
    }

    #[test]
    fn a_bar_never_leaves_its_place() {
        for ns in [0, 1, 16_000, 1_000_000, u64::MAX] {
            assert!((1..=8).contains(&position(ns, 8)), "{ns}");
        }
    }
}
