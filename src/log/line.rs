//! One event as one line, in the form of each sink. Pure: the clock is an argument.
#![forbid(unsafe_code)]

use std::fmt::Write;

use ::log::Level;

use crate::sys::calendar::Civil;

/// Longer texts are cut: syslogd takes 8 KiB (RFC 5424 section 6.1 asks for 2 KiB at least).
const MOST_BYTES: usize = 8000;
/// Facility mail (syslog(3)), as the MTAs use it.
const FACILITY_MAIL: u8 = 2;
/// Who we are in journal and syslog.
const IDENTIFIER: &str = "pmx-milter";

/// syslog's severities, those that we use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Severity {
    Error,
    Warning,
    Info,
    Debug,
}

impl From<Level> for Severity {
    fn from(level: Level) -> Severity {
        match level {
            Level::Error => Severity::Error,
            Level::Warn => Severity::Warning,
            Level::Info => Severity::Info,
            Level::Debug | Level::Trace => Severity::Debug,
        }
    }
}

impl Severity {
    /// syslog(3)
    fn number(self) -> u8 {
        match self {
            Severity::Error => 3,
            Severity::Warning => 4,
            Severity::Info => 6,
            Severity::Debug => 7,
        }
    }

    /// As Postfix: what is normal has no word.
    fn word(self) -> &'static str {
        match self {
            Severity::Error => "error: ",
            Severity::Warning => "warning: ",
            Severity::Info => "",
            Severity::Debug => "debug: ",
        }
    }
}

/// An event, already on one line.
#[derive(Debug)]
pub(super) struct Line {
    severity: Severity,
    text: String,
    queue_id: Option<String>,
}

/// Who writes, and when.
pub(super) struct Stamp<'a> {
    pub(super) milter: &'a str,
    pub(super) pid: u32,
    pub(super) time: Civil,
}

impl Line {
    pub(super) fn new(severity: Severity, text: &str, queue_id: Option<&str>) -> Line {
        Line {
            severity,
            text: one_line(text),
            queue_id: queue_id.map(one_line),
        }
    }

    /// systemd's native protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL): a field a line, which no value here can break.
    pub(super) fn for_journal(&self, stamp: &Stamp<'_>) -> String {
        let mut fields = format!(
            "PRIORITY={}\nSYSLOG_FACILITY={FACILITY_MAIL}\nSYSLOG_IDENTIFIER={IDENTIFIER}\nPMX_MILTER={}\n",
            self.severity.number(),
            stamp.milter
        );
        if let Some(id) = &self.queue_id {
            append(&mut fields, format_args!("QUEUE_ID={id}\n"));
        }
        append(
            &mut fields,
            format_args!("MESSAGE={}: {}\n", stamp.milter, self.text),
        );
        fields
    }

    /// RFC 3164 as syslog(3) and Postfix write it: no host name, the instance after a slash.
    pub(super) fn for_syslog(&self, stamp: &Stamp<'_>) -> String {
        const MONTHS: [&str; 12] = [
            "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
        ];
        let time = stamp.time;
        let month = MONTHS
            .get(usize::from(time.month.saturating_sub(1)))
            .unwrap_or(&"Jan");
        format!(
            "<{}>{month} {:2} {:02}:{:02}:{:02} {IDENTIFIER}/{}[{}]: {}{}",
            FACILITY_MAIL * 8 + self.severity.number(),
            time.day,
            time.hour,
            time.minute,
            time.second,
            stamp.milter,
            stamp.pid,
            self.severity.word(),
            self.text
        )
    }

    /// Standard error that is the journal's: it stamps the time itself, and reads the priority (sd-daemon(3)).
    pub(super) fn for_journal_stream(&self, stamp: &Stamp<'_>) -> String {
        format!(
            "<{}>{}: {}\n",
            self.severity.number(),
            stamp.milter,
            self.text
        )
    }

    /// A file, or a standard error that people read.
    pub(super) fn for_file(&self, stamp: &Stamp<'_>) -> String {
        format!(
            "{} {}[{}]: {}{}\n",
            rfc3339(stamp.time),
            stamp.milter,
            stamp.pid,
            self.severity.word(),
            self.text
        )
    }
}

fn append(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    text.write_fmt(arguments)
        .expect("a String takes every text");
}

/// `2026-11-25T04:00:00Z`, `2026-11-25T05:00:00+01:00`
fn rfc3339(time: Civil) -> String {
    let mut text = format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}",
        time.year, time.month, time.day, time.hour, time.minute, time.second
    );
    let minutes = time.offset_seconds.abs() / 60;
    if minutes == 0 {
        text.push('Z');
    } else {
        let sign = if time.offset_seconds < 0 { '-' } else { '+' };
        append(
            &mut text,
            format_args!("{sign}{:02}:{:02}", minutes / 60, minutes % 60),
        );
    }
    text
}

/// One line, whatever a stranger put into it: the lines of a traceback are joined, control characters and those that change the
/// direction of what follows are shown as escapes.
pub(super) fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    let mut parts = text.lines().map(str::trim).filter(|part| !part.is_empty());
    if let Some(first) = parts.next() {
        escape(&mut line, first);
    }
    for part in parts {
        line.push_str(" | ");
        escape(&mut line, part);
    }
    if line.len() > MOST_BYTES {
        line.truncate(line.floor_char_boundary(MOST_BYTES));
        line.push_str("...");
    }
    line
}

fn escape(line: &mut String, part: &str) {
    for character in part.chars() {
        if line.len() > MOST_BYTES {
            return;
        }
        match character {
            '\t' => line.push(' '),
            '\u{2028}' | '\u{2029}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}' => {
                line.extend(character.escape_default());
            }
            control if control.is_control() => line.extend(control.escape_default()),
            plain => line.push(plain),
        }
    }
}
