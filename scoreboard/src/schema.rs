//! The board's description of itself: every field with area, word, type, kind, unit and help, as JSON in the file. A program written today
//! shows with it the fields of tomorrow.
//!
//! The rows stand in `fields`; offsets are the compiler's, and a test sees to it that no word of a record lacks a row. `FORMAT.md` is made from the
//! same rows.
#![forbid(unsafe_code)]

use std::fmt::Write;

use crate::fields;
use crate::histogram::PHASE_WORDS;
use crate::history::{EVENT_WORDS, SECOND_WORDS};
use crate::layout::{
    CHILD_SECOND, DEATHS, DEATHS_OFFSET, GLOBAL, GLOBAL_OFFSET, HEADER_WORDS, LINE, MAJOR, MINOR,
};
use crate::records::{DEATH_WORDS, GLOBAL_WORDS, SLOT_WORDS};

/// Which record a field belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Area {
    /// The static header.
    Header,
    /// The master's record of the milter.
    Global,
    /// The master's record of a slot.
    Master,
    /// The child's record of a slot.
    Child,
    /// An entry of the death ring.
    Death,
    /// An entry of the ring of seconds.
    Second,
    /// An entry of the ring of events.
    Event,
    /// The histograms of the phases, of a master's record or a child's page.
    Histograms,
}

impl Area {
    /// All of them, in the order of the file.
    pub const ALL: &'static [Area] = &[
        Area::Header,
        Area::Global,
        Area::Death,
        Area::Master,
        Area::Child,
        Area::Second,
        Area::Event,
        Area::Histograms,
    ];

    /// The name in the schema.
    pub fn name(self) -> &'static str {
        match self {
            Area::Header => "header",
            Area::Global => "global",
            Area::Master => "master",
            Area::Child => "child",
            Area::Death => "death",
            Area::Second => "second",
            Area::Event => "event",
            Area::Histograms => "histograms",
        }
    }

    /// Words of the record.
    pub fn words(self) -> usize {
        match self {
            Area::Header => HEADER_WORDS,
            Area::Global => GLOBAL_WORDS,
            Area::Master | Area::Child => SLOT_WORDS,
            Area::Death => DEATH_WORDS,
            Area::Second => SECOND_WORDS,
            Area::Event => EVENT_WORDS,
            Area::Histograms => PHASE_WORDS,
        }
    }
}

/// How a word behaves.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// Only grows, within an instance of the board.
    Counter,
    /// Goes up and down.
    Gauge,
    /// A number with a meaning of its own: an id, a stamp, a limit.
    Plain,
    /// One of the numbers that stand here with their names; others may come.
    Enum(fn() -> Vec<(u64, &'static str)>),
    /// Bits.
    Flags,
    /// A length word, then bytes; cut to what fits. Not trusted: it may hold anything.
    Text,
}

impl Kind {
    /// The name in the schema.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Plain => "plain",
            Kind::Enum(_) => "enum",
            Kind::Flags => "flags",
            Kind::Text => "text",
        }
    }
}

/// One field of a record.
#[derive(Clone, Debug)]
pub struct Field {
    /// The record.
    pub area: Area,
    /// Its name; a dot separates a group from its member.
    pub name: String,
    /// Index of its first word in the record.
    pub word: usize,
    /// How many words it has.
    pub words: usize,
    /// How it behaves.
    pub kind: Kind,
    /// Its unit; empty for none.
    pub unit: &'static str,
    /// Names of its words, when it has several that count different things.
    pub labels: Vec<String>,
    /// What it means.
    pub help: &'static str,
}

impl Field {
    /// `u64`, `u64[6]` or `text[256]` (most bytes).
    pub fn type_name(&self) -> String {
        match (self.kind, self.words) {
            (Kind::Text, words) => format!("text[{}]", words.saturating_sub(1) * 8),
            (_, 1) => "u64".to_owned(),
            (_, words) => format!("u64[{words}]"),
        }
    }
}

/// Every field of every record.
pub fn fields() -> Vec<Field> {
    Area::ALL
        .iter()
        .flat_map(|area| fields::of(*area))
        .collect()
}

/// The schema as JSON, as it stands in the file.
pub fn text() -> String {
    let mut json = String::with_capacity(32 * 1024);
    // Writing to a String cannot fail.
    let _ = write!(
        json,
        concat!(
            "{{\"schema\":1,\"abi\":\"{}.{}\",\"word_bytes\":8,\"areas\":{{\n",
            "\"header\":{{\"offset\":0,\"words\":{}}},\n",
            "\"global\":{{\"version\":{},\"copies\":[{},{}],\"words\":{}}},\n",
            "\"death\":{{\"count\":{},\"offset\":{},\"stride\":{},\"entries\":{},\"words\":{}}},\n",
            "\"master\":{{\"offset\":\"m_off\",\"stride\":\"m_stride\",\"version\":0,\"copies\":[{},\"{}+m_copy_len\"],\"words\":{}}},\n",
            "\"child\":{{\"offset\":\"c_off\",\"stride\":\"c_stride\",\"version\":0,\"copies\":[{},{}],\"words\":{}}},\n",
            "\"second\":{{\"count\":\"seconds_off\",\"offset\":\"seconds_off+{}\",\"stride\":\"seconds_stride\",\"entries\":\"seconds_count\",\"words\":{}}},\n",
            "\"event\":{{\"count\":\"events_off\",\"offset\":\"events_off+{}\",\"stride\":\"events_stride\",\"entries\":\"events_count\",\"words\":{}}},\n",
            "\"histograms\":{{\"master\":[\"m_hist_off\",\"m_hist_off+{}\"],\"child\":\"c_hist_off\",\"words\":{}}}}},\n",
            "\"fields\":[",
        ),
        MAJOR,
        MINOR,
        HEADER_WORDS,
        GLOBAL_OFFSET,
        GLOBAL.copies[0] * 8,
        GLOBAL.copies[1] * 8,
        GLOBAL_WORDS,
        DEATHS_OFFSET,
        DEATHS_OFFSET + LINE,
        DEATH_WORDS * 8,
        DEATHS,
        DEATH_WORDS,
        LINE,
        LINE,
        SLOT_WORDS,
        LINE,
        CHILD_SECOND,
        SLOT_WORDS,
        LINE,
        SECOND_WORDS,
        LINE,
        EVENT_WORDS,
        PHASE_WORDS * 8,
        PHASE_WORDS,
    );
    for (index, field) in fields().iter().enumerate() {
        json.push_str(if index == 0 { "\n" } else { ",\n" });
        write_field(&mut json, field);
    }
    json.push_str("\n]}\n");
    json
}

/// Names and texts of the table hold neither quotes nor backslashes nor control characters: a test looks.
fn write_field(json: &mut String, field: &Field) {
    let _ = write!(
        json,
        "{{\"area\":\"{}\",\"name\":\"{}\",\"word\":{},\"words\":{},\"type\":\"{}\",\"kind\":\"{}\",\"unit\":\"{}\"",
        field.area.name(),
        field.name,
        field.word,
        field.words,
        field.type_name(),
        field.kind.name(),
        field.unit
    );
    if let Kind::Enum(values) = field.kind {
        let values: Vec<String> = values()
            .iter()
            .map(|(number, name)| format!("\"{number}\":\"{name}\""))
            .collect();
        let _ = write!(json, ",\"values\":{{{}}}", values.join(","));
    }
    if !field.labels.is_empty() {
        let labels: Vec<String> = field
            .labels
            .iter()
            .map(|label| format!("\"{label}\""))
            .collect();
        let _ = write!(json, ",\"labels\":[{}]", labels.join(","));
    }
    let _ = write!(json, ",\"help\":\"{}\"}}", field.help);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_word_of_every_record_has_exactly_one_row_or_is_reserved() {
        for area in Area::ALL {
            let mut next = 0;
            for field in fields::of(*area) {
                assert_eq!(field.word, next, "{} {}", area.name(), field.name);
                assert!(field.words > 0);
                next += field.words;
            }
            assert_eq!(next, fields::reserved(*area), "end of {}", area.name());
            assert!(next <= area.words());
        }
    }

    #[test]
    fn labels_name_every_word_and_no_text_needs_an_escape() {
        for field in fields() {
            assert!(
                field.labels.is_empty() || field.labels.len() == field.words,
                "{}",
                field.name
            );
            let texts = [field.name.as_str(), field.unit, field.help];
            let labels = field.labels.iter().map(String::as_str);
            for text in texts.into_iter().chain(labels) {
                assert!(
                    !text.contains(['"', '\\', '|']) && !text.contains(char::is_control),
                    "{text}"
                );
            }
            assert!(!field.help.is_empty(), "{}", field.name);
        }
    }

    #[test]
    fn the_json_is_balanced_and_small() {
        let json = text();
        let count = |c| json.matches(c).count();
        assert_eq!(count('{'), count('}'));
        assert_eq!(count('['), count(']'));
        assert_eq!(count('"') % 2, 0);
        assert!(json.len() < 64 * 1024, "{}", json.len());
    }
}
