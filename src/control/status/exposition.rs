//! Status for Prometheus, in its two text forms. They differ: OpenMetrics 1.0 has units, infos, state sets, `_created` and an end mark, and
//! its TYPE line names the family; the classic form (0.0.4), which node_exporter's textfile collector takes, has none of these, and its TYPE
//! line names the sample.
//!
//! Families stand one after the other, each with all milters: they never interleave.
#![forbid(unsafe_code)]

mod families;
mod family;
mod slots;

use std::fmt::{self, Write};

use family::{Facts, Family, Histogram, Kind, Point, Source, Value};

use super::view::Views;

/// Which of the two forms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Syntax {
    /// `application/openmetrics-text; version=1.0.0`
    OpenMetrics,
    /// `text/plain; version=0.0.4`
    Prometheus,
}

/// Whether each slot has series of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PerSlot {
    /// Only sums.
    No,
    /// Families `pmx_slot_…` as well.
    Yes,
}

/// Names of all families, in their order.
pub fn family_names() -> impl Iterator<Item = String> {
    all(PerSlot::Yes).map(|family| match family.kind {
        Kind::Info => format!("{}_info", family.name),
        Kind::Counter | Kind::Gauge | Kind::Histogram | Kind::StateSet => family.name.to_owned(),
    })
}

/// Every milter.
pub(in crate::control) fn render(views: &Views, syntax: Syntax, per_slot: PerSlot) -> String {
    let milters: Vec<Facts<'_>> = views.milters.iter().map(Facts::of).collect();
    let mut out = String::new();
    for family in all(per_slot) {
        // Writing to a String cannot fail.
        let _ = write_family(&mut out, syntax, family, &milters);
    }
    if syntax == Syntax::OpenMetrics {
        out.push_str("# EOF\n");
    }
    out
}

fn all(per_slot: PerSlot) -> impl Iterator<Item = &'static Family> {
    let slots = match per_slot {
        PerSlot::No => &[],
        PerSlot::Yes => slots::FAMILIES,
    };
    families::FAMILIES.iter().chain(slots)
}

/// A sample's name, its labels and when its counter began.
struct Series<'a> {
    syntax: Syntax,
    name: &'a str,
    labels: Vec<(&'a str, &'a str)>,
    created_ns: Option<u64>,
}

fn write_family(
    out: &mut String,
    syntax: Syntax,
    family: &Family,
    milters: &[Facts<'_>],
) -> fmt::Result {
    let mut samples = String::new();
    match family.source {
        Source::Program(points) => {
            for point in points() {
                write_point(&mut samples, syntax, family, None, &point)?;
            }
        }
        Source::Milter(points) => {
            for milter in milters {
                for point in points(milter) {
                    write_point(&mut samples, syntax, family, Some(milter), &point)?;
                }
            }
        }
        Source::Board(points) => {
            for milter in milters {
                for point in milter.board.as_ref().map(points).into_iter().flatten() {
                    write_point(&mut samples, syntax, family, Some(milter), &point)?;
                }
            }
        }
    }
    // A family that nobody has would be a promise without a value.
    if samples.is_empty() {
        return Ok(());
    }
    let (name, kind) = described(syntax, family);
    writeln!(out, "# TYPE {name} {kind}")?;
    if syntax == Syntax::OpenMetrics
        && let Some(unit) = family.unit()
    {
        writeln!(out, "# UNIT {name} {unit}")?;
    }
    writeln!(out, "# HELP {name} {}", family.help)?;
    out.push_str(&samples);
    Ok(())
}

/// Name and type in the TYPE line.
fn described(syntax: Syntax, family: &Family) -> (String, &'static str) {
    let name = family.name;
    match (syntax, family.kind) {
        (_, Kind::Gauge) => (name.to_owned(), "gauge"),
        (_, Kind::Histogram) => (name.to_owned(), "histogram"),
        (Syntax::OpenMetrics, Kind::Counter) => (name.to_owned(), "counter"),
        (Syntax::OpenMetrics, Kind::Info) => (name.to_owned(), "info"),
        (Syntax::OpenMetrics, Kind::StateSet) => (name.to_owned(), "stateset"),
        (Syntax::Prometheus, Kind::Counter) => (format!("{name}_total"), "counter"),
        (Syntax::Prometheus, Kind::Info) => (format!("{name}_info"), "gauge"),
        (Syntax::Prometheus, Kind::StateSet) => (name.to_owned(), "gauge"),
    }
}

fn write_point(
    out: &mut String,
    syntax: Syntax,
    family: &Family,
    milter: Option<&Facts<'_>>,
    point: &Point,
) -> fmt::Result {
    let name = milter.map(|milter| milter.view.name.to_string());
    let mut labels: Vec<(&str, &str)> = name.iter().map(|name| ("milter", &**name)).collect();
    for (label, value) in &point.labels {
        let label = match (family.kind, syntax) {
            // The label of a state set is named like its family.
            (Kind::StateSet, Syntax::OpenMetrics) => family.name,
            _ => label,
        };
        labels.push((label, value));
    }
    let series = Series {
        syntax,
        name: family.name,
        labels,
        created_ns: milter.and_then(Facts::created_ns),
    };
    match family.kind {
        Kind::Gauge | Kind::StateSet => series.write(out, "", None, &point.value),
        Kind::Info => series.write(out, "_info", None, &point.value),
        Kind::Counter => {
            series.write(out, "_total", None, &point.value)?;
            series.write_created(out)
        }
        Kind::Histogram => match &point.value {
            Value::Histogram(histogram) => series.write_histogram(out, histogram),
            Value::Count(_) | Value::Nanoseconds(_) => Ok(()),
        },
    }
}

impl Series<'_> {
    fn write(
        &self,
        out: &mut String,
        ending: &str,
        le: Option<&str>,
        value: &Value,
    ) -> fmt::Result {
        write!(out, "{}{ending}", self.name)?;
        let labels = self.labels.iter().copied().chain(le.map(|le| ("le", le)));
        let mut open = "{";
        for (label, value) in labels {
            write!(out, "{open}{label}=\"{}\"", escaped(value))?;
            open = ",";
        }
        if open == "," {
            out.push('}');
        }
        match value {
            Value::Count(count) => writeln!(out, " {count}"),
            Value::Nanoseconds(ns) => writeln!(out, " {}", seconds(*ns)),
            // Written sample by sample.
            Value::Histogram(_) => Ok(()),
        }
    }

    fn write_created(&self, out: &mut String) -> fmt::Result {
        match (self.syntax, self.created_ns) {
            (Syntax::OpenMetrics, Some(at)) => {
                self.write(out, "_created", None, &Value::Nanoseconds(at))
            }
            _ => Ok(()),
        }
    }

    fn write_histogram(&self, out: &mut String, histogram: &Histogram) -> fmt::Result {
        let mut count = 0_u64;
        let bounds = histogram.bounds_ns.iter().map(|bound| canonical(*bound));
        // The last bucket has no bound: it is in +Inf only.
        for (bound, bucket) in bounds.zip(&histogram.buckets) {
            count = count.saturating_add(*bucket);
            self.write(out, "_bucket", Some(&bound), &Value::Count(count))?;
        }
        let rest = histogram.buckets.iter().skip(histogram.bounds_ns.len());
        let count = Value::Count(rest.fold(count, |sum, bucket| sum.saturating_add(*bucket)));
        self.write(out, "_bucket", Some("+Inf"), &count)?;
        self.write(out, "_count", None, &count)?;
        self.write(out, "_sum", None, &Value::Nanoseconds(histogram.sum_ns))?;
        self.write_created(out)
    }
}

/// A label's value between its quotes.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

/// All digits of a number of nanoseconds, as seconds; without a point when it is whole.
fn seconds(ns: u64) -> String {
    let text = format!("{}.{:09}", ns / 1_000_000_000, ns % 1_000_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A bound as OpenMetrics wants label numbers: as Go prints them, and with a point where nothing else shows that it is no integer.
fn canonical(ns: u64) -> String {
    let seconds = ns as f64 / 1e9;
    if seconds != 0.0 && seconds < 1e-4 {
        let text = format!("{seconds:e}");
        return match text.split_once("e-") {
            Some((digits, exponent)) => format!("{digits}e-{exponent:0>2}"),
            None => text,
        };
    }
    format!("{seconds:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_printed_as_go_and_python_print_them() {
        for (ns, text) in [
            (0, "0"),
            (1, "0.000000001"),
            (1_500_000_000, "1.5"),
            (10_000_000_000, "10"),
            (1_700_000_000_123_456_789, "1700000000.123456789"),
        ] {
            assert_eq!(seconds(ns), text);
        }
        for (ns, text) in [
            (16_000, "1.6e-05"),
            (64_000, "6.4e-05"),
            (128_000, "0.000128"),
            (1_000_000_000, "1.0"),
            (2_097_152_000, "2.097152"),
            (68_719_476_736_000, "68719.476736"),
        ] {
            assert_eq!(canonical(ns), text);
        }
    }

    #[test]
    fn buckets_are_cumulative_and_what_is_beyond_every_bound_is_in_the_last_one() {
        let series = Series {
            syntax: Syntax::OpenMetrics,
            name: "x_seconds",
            labels: vec![("milter", "m")],
            created_ns: Some(7_000_000_000),
        };
        let histogram = Histogram {
            buckets: vec![1, 0, 3],
            bounds_ns: vec![64_000, 128_000],
            sum_ns: 2_500_000_000,
        };
        let mut out = String::new();
        assert!(series.write_histogram(&mut out, &histogram).is_ok());
        assert_eq!(
            out,
            "x_seconds_bucket{milter=\"m\",le=\"6.4e-05\"} 1\n\
             x_seconds_bucket{milter=\"m\",le=\"0.000128\"} 1\n\
             x_seconds_bucket{milter=\"m\",le=\"+Inf\"} 4\n\
             x_seconds_count{milter=\"m\"} 4\n\
             x_seconds_sum{milter=\"m\"} 2.5\n\
             x_seconds_created{milter=\"m\"} 7\n"
        );
    }

    #[test]
    fn names_and_help_follow_the_rules() {
        let mut seen = Vec::new();
        for family in all(PerSlot::Yes) {
            let name = family.name;
            assert!(!seen.contains(&name), "{name} stands twice");
            seen.push(name);
            assert!(name.starts_with("pmx_"), "{name}");
            assert!(
                name.chars().all(|c| c.is_ascii_lowercase() || c == '_'),
                "{name}"
            );
            for ending in ["_total", "_created", "_bucket", "_count", "_sum", "_info"] {
                assert!(!name.ends_with(ending), "{name}");
            }
            assert!(family.help.ends_with('.'), "{name}: {}", family.help);
            assert!(!family.help.contains(['\\', '"', '\n']), "{name}");
        }
        assert_eq!(escaped("a\"b\\c\nd"), "a\\\"b\\\\c\\nd");
    }
}
