//! Ranges of the Nagios plugin: any text. It is a range or is told what is wrong with it; the guidelines' table, written anew, alerts at the
//! same values; and the shortest text means the same.

use pmx_milter::control::status::range::Range;

/// What the guidelines say of a value, for a text that is a range.
fn alerts(text: &str, value: f64) -> bool {
    let (inside, rest) = match text.strip_prefix('@') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (start, end) = rest.split_once(':').unwrap_or(("0", rest));
    let number = |text: &str| text.parse::<f64>().expect("a range has numbers");
    let below = match start {
        "~" => false,
        "" => value < 0.0,
        start => value < number(start),
    };
    let above = end != "" && value > number(end);
    (below || above) != inside
}

/// The target: the text, and in its last 8 bytes a value.
pub fn range(data: &[u8]) {
    let Some((text, value)) = data.split_last_chunk::<8>() else {
        return;
    };
    let Ok(text) = std::str::from_utf8(text) else {
        return;
    };
    let range: Range = match text.parse() {
        Ok(range) => range,
        Err(error) => {
            let error = format!("{error}");
            return assert!(error.contains("[@]start:end"), "{text:?}: {error}");
        }
    };
    let value = f64::from_le_bytes(*value);
    let shortest = range.to_string();
    assert_eq!(shortest.parse(), Ok(range), "{text:?} became {shortest:?}");
    assert!(range.alerts(f64::NAN), "{text:?}");
    // The value itself, and those at which it could matter.
    let ends = text.split(['@', ':']).filter_map(|end| end.parse().ok());
    for value in ends.chain([value, 0.0, -0.0, f64::MAX, f64::MIN]) {
        if !f64::is_nan(value) {
            assert_eq!(
                range.alerts(value),
                alerts(text, value),
                "{text:?} at {value}"
            );
        }
    }
}
