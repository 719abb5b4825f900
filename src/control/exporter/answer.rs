//! From what is asked to the bytes that go back.
#![forbid(unsafe_code)]

use std::time::{SystemTime, UNIX_EPOCH};

use crate::control::status::view::{View, Views};
use crate::control::status::{PerSlot, Syntax, exposition};
use crate::sys::calendar;

use super::accept;
use super::ask::{Ask, Method, Refusal};
use super::health::{self, Probe};
use super::look::Needs;

const TEXT: &str = "text/plain; charset=utf-8";
const CLASSIC: &str = "text/plain; version=0.0.4; charset=utf-8";
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What is where; the text of `/` and of every path that is not.
const PATHS: &str = "\
/metrics        numbers of every milter: OpenMetrics or Prometheus text, by the Accept header
/healthz        200 when every milter has a master that gives signs of life
/readyz         200 when every milter takes connections
/healthz/NAME   the same of one milter
/readyz/NAME
";

/// An answer before it is bytes.
struct Answer {
    status: &'static str,
    kind: &'static str,
    /// More header lines, each with its end.
    headers: &'static str,
    body: String,
}

impl Answer {
    fn text(status: &'static str, body: impl Into<String>) -> Answer {
        Answer {
            status,
            kind: TEXT,
            headers: "",
            body: body.into(),
        }
    }

    fn bytes(self, method: Method) -> Vec<u8> {
        let Answer {
            status,
            kind,
            headers,
            body,
        } = self;
        let mut text = format!(
            "HTTP/1.1 {status}\r\nDate: {}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nCache-Control: no-store\r\nConnection: close\r\n{headers}\r\n",
            date(now()),
            body.len(),
        );
        if method != Method::Head {
            text.push_str(&body);
        }
        text.into_bytes()
    }
}

/// The answer to a request; boards are looked at only when it is about them.
pub(super) fn respond(
    ask: &Ask,
    per_slot: PerSlot,
    look: impl FnOnce(Needs<'_>) -> Views,
) -> Vec<u8> {
    let answer = if ask.method == Method::Other {
        Answer {
            headers: "Allow: GET, HEAD\r\n",
            ..Answer::text(
                "405 Method Not Allowed",
                "only GET and HEAD: nothing can be changed here\n",
            )
        }
    } else {
        match Page::at(&ask.path) {
            Some(Page::Paths) => Answer::text("200 OK", PATHS),
            Some(Page::Metrics) => {
                metrics(accept::syntax(&ask.accept), per_slot, &look(Needs::Counts))
            }
            Some(Page::Probe(what, name)) => probe(what, name, &look(Needs::States(name))),
            None => Answer::text(
                "404 Not Found",
                format!("there is nothing here, but:\n{PATHS}"),
            ),
        }
    };
    answer.bytes(ask.method)
}

/// What a path names.
#[derive(Debug, PartialEq, Eq)]
enum Page<'a> {
    Paths,
    Metrics,
    /// Of one milter, or of all.
    Probe(Probe, Option<&'a str>),
}

impl Page<'_> {
    fn at(path: &str) -> Option<Page<'_>> {
        let path = path.strip_prefix('/')?;
        let (first, name) = match path.split_once('/') {
            Some((first, name)) => (first, Some(name)),
            None => (path, None),
        };
        match (first, name) {
            ("", None) => Some(Page::Paths),
            ("metrics", None) => Some(Page::Metrics),
            ("healthz", name) => Some(Page::Probe(Probe::Health, name)),
            ("readyz", name) => Some(Page::Probe(Probe::Ready, name)),
            _ => None,
        }
    }
}

fn metrics(syntax: Syntax, per_slot: PerSlot, views: &Views) -> Answer {
    Answer {
        kind: match syntax {
            Syntax::OpenMetrics => OPENMETRICS,
            Syntax::Prometheus => CLASSIC,
        },
        headers: "Vary: Accept\r\n",
        ..Answer::text("200 OK", exposition::render(views, syntax, per_slot))
    }
}

fn probe(what: Probe, name: Option<&str>, views: &Views) -> Answer {
    let milters: Vec<&View> = views.milters.iter().collect();
    if name.is_some() && milters.is_empty() {
        return Answer::text(
            "404 Not Found",
            "no milter of this name is enabled or running\n",
        );
    }
    match health::probe(what, &milters) {
        (true, text) => Answer::text("200 OK", text),
        (false, text) => Answer::text("503 Service Unavailable", text),
    }
}

/// The answer to what is no request.
pub(super) fn refuse(refusal: Refusal) -> Vec<u8> {
    let answer = match refusal {
        Refusal::Bad => Answer::text("400 Bad Request", "this is no HTTP request\n"),
        Refusal::TooLarge => Answer::text(
            "431 Request Header Fields Too Large",
            "a request of 16 KiB, or with more than 64 headers, is not read here\n",
        ),
        Refusal::Version => Answer::text(
            "505 HTTP Version Not Supported",
            "HTTP/1.0 and HTTP/1.1 are spoken here\n",
        ),
    };
    answer.bytes(Method::Get)
}

/// The answer to a request that did not come to its end.
pub(super) fn too_slow() -> Vec<u8> {
    Answer::text("408 Request Timeout", "the request took too long\n").bytes(Method::Get)
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(0))
}

/// `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110, section 5.6.7).
fn date(seconds: i64) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let civil = calendar::utc(seconds);
    // 1970 began on a Thursday.
    let weekday = usize::try_from(seconds.div_euclid(86_400).rem_euclid(7)).unwrap_or(0);
    format!(
        "{}, {:02} {} {:04} {:02}:{:02}:{:02} GMT",
        DAYS[weekday],
        civil.day,
        MONTHS[usize::from(civil.month.clamp(1, 12)) - 1],
        civil.year,
        civil.hour,
        civil.minute,
        civil.second
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_pages_and_everything_else_is_nothing() {
        for (path, page) in [
            ("/", Some(Page::Paths)),
            ("/metrics", Some(Page::Metrics)),
            ("/healthz", Some(Page::Probe(Probe::Health, None))),
            ("/readyz/a.b", Some(Page::Probe(Probe::Ready, Some("a.b")))),
            ("/metrics/", None),
            ("/Metrics", None),
            ("*", None),
            ("", None),
            ("//metrics", None),
        ] {
            assert_eq!(Page::at(path), page, "{path}");
        }
    }

    #[test]
    fn dates_are_those_of_http() {
        for (seconds, text) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (1_709_164_800, "Thu, 29 Feb 2024 00:00:00 GMT"),
        ] {
            assert_eq!(date(seconds), text);
        }
    }
}
