//! `message_log`: one key=value line for each message that ended, in the order in which a person reads it.
#![forbid(unsafe_code)]

use std::fmt::Write;
use std::time::Duration;

use crate::policy::Facts;
use crate::session::{Ended, Phase};

/// The line. `redact` hides whatever names somebody; what is not collected is `-`.
pub(super) fn line(facts: &Facts, ended: Ended, took: Duration, redact: bool) -> String {
    let mut line = String::with_capacity(160);
    let shown = |bytes: Option<&[u8]>| bytes.map_or_else(|| "-".to_owned(), value);
    let named = |bytes: Option<&[u8]>| match bytes {
        Some(_) if redact => "redacted".to_owned(),
        other => shown(other),
    };
    let client = facts.client.as_deref();
    let message = facts.message.as_deref();
    let recipients = message
        .and_then(|message| message.recipients.as_ref())
        .map_or_else(|| "-".to_owned(), |list| list.len().to_string());
    let verdict = ended.verdict.map_or("aborted", |verdict| verdict.name());
    // Writing to a String cannot fail.
    let _ = write!(
        line,
        "message queue_id={} client={} address={} helo={} from={} recipients={recipients} edits={} stage={} verdict={verdict} seconds={:.3}",
        shown(facts.queue_id()),
        named(client.map(|client| &*client.host)),
        named(client.and_then(|client| client.address.as_deref())),
        named(facts.helo.as_deref()),
        named(message.and_then(|message| message.sender.as_deref())),
        ended.edits,
        stage(ended.phase),
        took.as_secs_f64(),
    );
    line
}

fn stage(phase: Phase) -> &'static str {
    match phase {
        Phase::Idle => "idle",
        Phase::Connect => "connect",
        Phase::Mail => "mail",
        Phase::Rcpt => "rcpt",
        Phase::Data => "data",
        Phase::Header => "header",
        Phase::Body => "body",
        Phase::Eom => "eom",
    }
}

/// A value: escaped, and in quotes where a space or nothing would break the line's grammar.
fn value(bytes: &[u8]) -> String {
    let escaped = bytes.escape_ascii().to_string();
    if escaped.is_empty()
        || escaped
            .bytes()
            .any(|byte| matches!(byte, b' ' | b'=' | b'"'))
    {
        format!("\"{escaped}\"")
    } else {
        escaped
    }
}
