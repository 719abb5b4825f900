//! Ranges of values as the Nagios plugin guidelines write them: `[@]start:end`. Pure; the text comes from a command line.
//!
//! A range names the good values: an alert is due outside of it, or inside when it begins with `@`. Both ends belong to it.
#![forbid(unsafe_code)]

use std::fmt;
use std::str::FromStr;

/// A range of values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Range {
    /// `@`: the values inside are the bad ones.
    inside: bool,
    /// `~` is minus infinity.
    start: f64,
    /// Left out: infinity.
    end: f64,
}

/// Why a text is no range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RangeError {
    /// There is nothing.
    Empty,
    /// This part is no number.
    Number(String),
    /// It starts above its end.
    Backwards(String),
}

impl fmt::Display for RangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RangeError::Empty => f.write_str("the range is empty")?,
            RangeError::Number(text) => write!(f, "{text:?} is no number")?,
            RangeError::Backwards(text) => write!(f, "{text} starts above its end")?,
        }
        f.write_str("; a range is [@]start:end, as 10 (alert outside 0 to 10), 10: (below 10), ~:10 (above 10), @10:20 (inside)")
    }
}

impl std::error::Error for RangeError {}

impl Range {
    /// Whether this value calls for an alert. What is no number always does.
    pub fn alerts(&self, value: f64) -> bool {
        let within = self.start <= value && value <= self.end;
        within == self.inside || value.is_nan()
    }
}

impl FromStr for Range {
    type Err = RangeError;

    fn from_str(text: &str) -> Result<Range, RangeError> {
        let (inside, rest) = match text.strip_prefix('@') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (start, end) = match rest.split_once(':') {
            Some(both) => both,
            None if rest.is_empty() => return Err(RangeError::Empty),
            None => ("", rest),
        };
        let range = Range {
            inside,
            start: match start {
                "~" => f64::NEG_INFINITY,
                "" => 0.0,
                number => finite(number)?,
            },
            end: match end {
                "" => f64::INFINITY,
                number => finite(number)?,
            },
        };
        if range.start > range.end {
            return Err(RangeError::Backwards(text.to_owned()));
        }
        Ok(range)
    }
}

/// A decimal number. What else Rust takes for one (`inf`, `nan`) has no meaning here.
fn finite(text: &str) -> Result<f64, RangeError> {
    let decimal = |c: char| c.is_ascii_digit() || matches!(c, '.' | '-' | '+' | 'e' | 'E');
    text.parse()
        .ok()
        .filter(|number: &f64| number.is_finite() && text.chars().all(decimal))
        .ok_or_else(|| RangeError::Number(text.to_owned()))
}

impl fmt::Display for Range {
    /// The shortest text that means the same: what performance data repeats.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.inside {
            f.write_str("@")?;
        }
        let bounded = self.end.is_finite();
        if self.start == f64::NEG_INFINITY {
            f.write_str("~:")?;
        } else if self.start != 0.0 || !bounded {
            write!(f, "{}:", self.start)?;
        }
        if bounded {
            write!(f, "{}", self.end)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn ranges_alert_as_the_guidelines_table_says() {
        // Text, its shortest form, values that alert, values that do not.
        let table: &[(&str, &str, &[f64], &[f64])] = &[
            ("10", "10", &[-0.1, 10.1, f64::NAN], &[0.0, 5.0, 10.0]),
            ("10:", "10:", &[9.9, -1.0], &[10.0, 1e12]),
            ("~:10", "~:10", &[10.1], &[10.0, -1e12]),
            ("10:20", "10:20", &[9.9, 20.1], &[10.0, 20.0]),
            (
                "@10:20",
                "@10:20",
                &[10.0, 15.0, 20.0, f64::NAN],
                &[9.9, 20.1],
            ),
            ("@10", "@10", &[0.0, 10.0], &[-0.1, 10.1]),
            ("@~:10", "@~:10", &[-1e12, 10.0], &[10.1]),
            (":10", "10", &[-1.0, 11.0], &[0.0, 10.0]),
            ("0:10", "10", &[-1.0, 11.0], &[0.0, 10.0]),
            (":", "0:", &[-1.0], &[0.0, 1e12]),
            ("~:", "~:", &[f64::NAN], &[-1e12, 1e12]),
            ("-5:-1", "-5:-1", &[-5.1, 0.0], &[-5.0, -1.0]),
            ("0", "0", &[0.1, -0.1], &[0.0, -0.0]),
            ("0.5:1.25", "0.5:1.25", &[0.4, 1.3], &[0.5, 1.25]),
            ("1e3", "1000", &[1001.0], &[1000.0]),
            ("7:7", "7:7", &[6.9, 7.1], &[7.0]),
        ];
        for (text, shortest, bad, good) in table {
            let range: Range = text.parse().unwrap();
            assert_eq!(range.to_string(), *shortest, "{text}");
            assert_eq!(range.to_string().parse(), Ok(range), "{text}");
            for value in *bad {
                assert!(range.alerts(*value), "{text} at {value}");
            }
            for value in *good {
                assert!(!range.alerts(*value), "{text} at {value}");
            }
        }
    }

    #[test]
    fn what_is_no_range_is_told_with_the_part_that_is_wrong() {
        let table = [
            ("", "is empty"),
            ("@", "is empty"),
            ("~", "\"~\" is no number"),
            ("10:~", "\"~\" is no number"),
            ("1:2:3", "\"2:3\" is no number"),
            ("20:10", "20:10 starts above its end"),
            ("-1", "-1 starts above its end"),
            ("inf", "\"inf\" is no number"),
            ("nan:", "\"nan\" is no number"),
            ("1e999", "\"1e999\" is no number"),
            ("@@1", "\"@1\" is no number"),
            ("10%", "\"10%\" is no number"),
            (" 1", "\" 1\" is no number"),
            ("busy", "\"busy\" is no number"),
        ];
        for (text, part) in table {
            let error = text.parse::<Range>().unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
            assert!(error.contains("[@]start:end"), "{text}: {error}");
        }
    }
}
