//! Values as an operator writes them: durations, sizes, modes. Each is read and written here, so that `dump` gives what reading takes.
#![forbid(unsafe_code)]

use std::borrow::Cow;
use std::time::Duration;

use toml::de::DeValue;

/// A scalar of the file, before it is known what it should be.
#[derive(Clone, Debug)]
pub(super) enum Raw<'a> {
    /// A string.
    Text(Cow<'a, str>),
    /// An integer, and whether it was written as octal (`0o660`).
    Number { value: i128, octal: bool },
    /// `true` or `false`.
    Flag(bool),
    /// Nothing that a key takes: the TOML type's name.
    Other(&'static str),
}

impl<'a> Raw<'a> {
    pub(super) fn of(value: &'a DeValue<'a>) -> Raw<'a> {
        match value {
            DeValue::String(text) => Raw::Text(Cow::Borrowed(text)),
            DeValue::Boolean(flag) => Raw::Flag(*flag),
            DeValue::Integer(number) => {
                match i128::from_str_radix(number.as_str(), number.radix()) {
                    Ok(value) => Raw::Number {
                        value,
                        octal: number.radix() == 8,
                    },
                    Err(_) => Raw::Other("a number with too many digits"),
                }
            }
            DeValue::Float(_) => Raw::Other("a number with a fraction"),
            DeValue::Datetime(_) => Raw::Other("a date"),
            DeValue::Array(_) => Raw::Other("a list"),
            DeValue::Table(_) => Raw::Other("a table"),
        }
    }

    /// A default of the table of keys.
    pub(super) fn of_default(text: &'static str) -> Raw<'static> {
        match text {
            "true" => Raw::Flag(true),
            "false" => Raw::Flag(false),
            _ => match text.parse() {
                // 0660 is a mode, not a number.
                Ok(value) if text == "0" || !text.starts_with('0') => Raw::Number {
                    value,
                    octal: false,
                },
                _ => Raw::Text(Cow::Borrowed(text)),
            },
        }
    }

    /// What was found, for an error.
    pub(super) fn found(&self) -> String {
        match self {
            Raw::Text(text) => format!("{:?}", shortened(text)),
            Raw::Number { value, .. } => value.to_string(),
            Raw::Flag(flag) => flag.to_string(),
            Raw::Other(kind) => (*kind).to_owned(),
        }
    }
}

/// Enough of a text to recognise it.
pub(super) fn shortened(text: &str) -> Cow<'_, str> {
    const MOST: usize = 80;
    if text.chars().count() <= MOST {
        Cow::Borrowed(text)
    } else {
        Cow::Owned(text.chars().take(MOST).chain("...".chars()).collect())
    }
}

/// Digits, then letters: the two parts of a duration or size.
fn number_and_unit(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let digits = text
        .find(|character: char| !character.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    Some((number.parse().ok()?, unit.trim_start()))
}

/// `100ms`, `30s`, `5m`, `1h`, `1d`. A number without unit is none, so that nobody has to guess.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = number_and_unit(text)?;
    let milliseconds = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60 * 1000,
        "h" => 3600 * 1000,
        "d" => 24 * 3600 * 1000,
        _ => return None,
    };
    number.checked_mul(milliseconds).map(Duration::from_millis)
}

/// The shortest text that [`duration`] reads as this (whole milliseconds).
pub(super) fn duration_text(time: Duration) -> String {
    let milliseconds = time.as_millis();
    for (size, unit) in [
        (24 * 3600 * 1000, "d"),
        (3600 * 1000, "h"),
        (60 * 1000, "m"),
        (1000, "s"),
    ] {
        if milliseconds >= size && milliseconds.is_multiple_of(size) {
            return format!("{}{unit}", milliseconds / size);
        }
    }
    format!("{milliseconds}ms")
}

/// `64K`, `10M`, `1G` (powers of 1024; `KiB` and `KB` mean the same) or plain bytes.
pub(super) fn size(text: &str) -> Option<u64> {
    let (number, unit) = number_and_unit(text)?;
    let bytes = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        "t" | "tb" | "tib" => 1_u64 << 40,
        _ => return None,
    };
    number.checked_mul(bytes)
}

/// The shortest text that [`size`] reads as this.
pub(super) fn size_text(bytes: u64) -> String {
    for (shift, unit) in [(40, "T"), (30, "G"), (20, "M"), (10, "K")] {
        if bytes != 0 && bytes.is_multiple_of(1 << shift) {
            return format!("{}{unit}", bytes >> shift);
        }
    }
    bytes.to_string()
}

/// `0660` or `660`: octal digits, no more than 0777.
pub(super) fn mode(text: &str) -> Option<u32> {
    let octal =
        (1..=4).contains(&text.len()) && text.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
    let mode = octal.then(|| u32::from_str_radix(text, 8).ok()).flatten()?;
    (mode <= 0o777).then_some(mode)
}

/// A TOML string.
pub(super) fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => {
                quoted.push('\\');
                quoted.push(character);
            }
            control if control.is_control() => {
                quoted.push_str(&format!("\\u{:04X}", control as u32));
            }
            plain => quoted.push(plain),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_unit_and_are_written_back_as_the_shortest_text() {
        for (text, milliseconds) in [
            ("100ms", 100),
            ("30s", 30_000),
            ("5m", 300_000),
            ("1h", 3_600_000),
            ("2d", 172_800_000),
            ("7210s", 7_210_000),
        ] {
            let time = duration(text);
            assert_eq!(time, Some(Duration::from_millis(milliseconds)), "{text}");
            assert_eq!(duration_text(Duration::from_millis(milliseconds)), text);
        }
        for text in [
            "",
            "5",
            "m",
            "-5s",
            "1.5s",
            "5 parsecs",
            "99999999999999999999s",
            "18446744073709551615d",
            "５s",
        ] {
            assert_eq!(duration(text), None, "{text}");
        }
    }

    #[test]
    fn sizes_are_powers_of_1024_and_are_written_back() {
        for (text, bytes) in [
            ("64K", 65_536),
            ("10M", 10 << 20),
            ("1G", 1 << 30),
            ("1025", 1025),
            ("2T", 2 << 40),
        ] {
            assert_eq!(size(text), Some(bytes), "{text}");
            assert_eq!(size_text(bytes), text);
        }
        assert_eq!(size("64KiB"), size("64k"));
        assert_eq!(size_text(0), "0");
        for text in ["", "K", "-1", "1.5G", "1X", "18446744073709551615K"] {
            assert_eq!(size(text), None, "{text}");
        }
    }

    #[test]
    fn modes_are_octal() {
        assert_eq!(mode("0660"), Some(0o660));
        assert_eq!(mode("640"), Some(0o640));
        for text in ["", "0888", "1777", "rw-r--r--", "+644", "00644"] {
            assert_eq!(mode(text), None, "{text}");
        }
    }
}
