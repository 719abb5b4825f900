//! What a client asks, read by `httparse`; and what of it is refused before anything is looked up.
#![forbid(unsafe_code)]

use std::str;

/// Most bytes of a request's head.
pub(super) const MOST_BYTES: usize = 16 << 10;
/// Most headers; browsers send about 20.
const MOST_HEADERS: usize = 64;

/// How.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    Get,
    Head,
    Other,
}

/// A whole request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ask {
    pub(super) method: Method,
    /// Without query, and without the host of a request to a proxy.
    pub(super) path: String,
    /// Every `Accept` header, as one list.
    pub(super) accept: String,
}

/// What the bytes so far are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Read {
    /// Not yet all of it.
    Part,
    Whole(Ask),
    /// Nothing that can be answered otherwise.
    Refused(Refusal),
}

/// Why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// No HTTP.
    Bad,
    /// More than [`MOST_BYTES`] or [`MOST_HEADERS`].
    TooLarge,
    /// Not HTTP/1.
    Version,
}

/// Whether what came after the first `before` bytes can make another answer than [`Read::Part`]: a request ends with a line. Who sends byte
/// after byte would otherwise have each of them read thousands of times. The first bytes are read at once: what is no HTTP may have no lines.
pub(super) fn is_worth_reading(bytes: &[u8], before: usize) -> bool {
    let new = bytes.get(before..).unwrap_or_default();
    before == 0 || bytes.len() >= MOST_BYTES || new.contains(&b'\n')
}

pub(super) fn read(bytes: &[u8]) -> Read {
    let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(bytes) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) if bytes.len() >= MOST_BYTES => {
            return Read::Refused(Refusal::TooLarge);
        }
        Ok(httparse::Status::Partial) => return Read::Part,
        Err(httparse::Error::TooManyHeaders) => return Read::Refused(Refusal::TooLarge),
        Err(httparse::Error::Version) => return Read::Refused(Refusal::Version),
        Err(_) => return Read::Refused(Refusal::Bad),
    }
    let (Some(method), Some(target)) = (request.method, request.path) else {
        return Read::Refused(Refusal::Bad);
    };
    let accept: Vec<&str> = request
        .headers
        .iter()
        .filter(|header| header.name.eq_ignore_ascii_case("accept"))
        .filter_map(|header| str::from_utf8(header.value).ok())
        .collect();
    Read::Whole(Ask {
        method: match method {
            "GET" => Method::Get,
            "HEAD" => Method::Head,
            _ => Method::Other,
        },
        path: path(target).to_owned(),
        accept: accept.join(","),
    })
}

/// `http://host/path?query` and `/path?query` are `/path` (RFC 9112, section 3.2.2).
fn path(target: &str) -> &str {
    let target = match target.split_once("://") {
        Some((_, rest)) if !target.starts_with('/') => match rest.find('/') {
            Some(slash) => &rest[slash..],
            None => "/",
        },
        _ => target,
    };
    target.split(['?', '#']).next().unwrap_or(target)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(text: &str) -> Option<Ask> {
        match read(text.as_bytes()) {
            Read::Whole(ask) => Some(ask),
            Read::Part | Read::Refused(_) => None,
        }
    }

    #[test]
    fn a_request_is_method_path_and_what_is_accepted() {
        let text = "GET /metrics?x=1 HTTP/1.1\r\nHost: a\r\naccept: text/plain\r\nAccept: */*;q=0.1\r\n\r\n";
        let ask = Ask {
            method: Method::Get,
            path: "/metrics".to_owned(),
            accept: "text/plain,*/*;q=0.1".to_owned(),
        };
        assert_eq!(whole(text), Some(ask));
        for end in 0..text.len() {
            assert_eq!(read(&text.as_bytes()[..end]), Read::Part, "{end}");
        }
        for (line, path) in [
            ("HEAD / HTTP/1.0", "/"),
            ("GET http://mx:9366/healthz?a HTTP/1.1", "/healthz"),
            ("GET http://mx HTTP/1.1", "/"),
            ("GET /a://b HTTP/1.1", "/a://b"),
            ("OPTIONS * HTTP/1.1", "*"),
        ] {
            let ask = whole(&format!("{line}\r\n\r\n"));
            assert_eq!(ask.map(|ask| ask.path).as_deref(), Some(path), "{line}");
        }
    }

    #[test]
    fn a_request_that_comes_byte_by_byte_is_read_once_a_line_and_to_its_end() {
        let text = format!(
            "GET /{} HTTP/1.1\r\na: {}\r\n\r\n",
            "x".repeat(5000),
            "y".repeat(5000)
        );
        let bytes = text.as_bytes();
        let looks: Vec<usize> = (1..=bytes.len())
            .filter(|end| is_worth_reading(&bytes[..*end], end - 1))
            .collect();
        assert_eq!(looks.len(), 4, "{looks:?}");
        assert_eq!(looks.last(), Some(&bytes.len()));
        assert!(whole(&text).is_some());
        let endless = vec![b'x'; MOST_BYTES];
        assert!(is_worth_reading(&endless, MOST_BYTES - 1));
        assert!(!is_worth_reading(&endless[1..], MOST_BYTES - 2));
    }

    #[test]
    fn what_is_no_http_or_too_much_of_it_is_refused() {
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(65));
        let long = format!("GET /{} ", "x".repeat(MOST_BYTES));
        let most = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(64));
        assert!(whole(&most).is_some());
        for (text, refusal) in [
            ("\x16\x03\x01\x02\x00", Refusal::Bad),
            ("GET / HTTP/2.0\r\n\r\n", Refusal::Version),
            ("GET\r\n\r\n", Refusal::Bad),
            (&many, Refusal::TooLarge),
            (&long, Refusal::TooLarge),
        ] {
            assert_eq!(read(text.as_bytes()), Read::Refused(refusal), "{text:.20}");
        }
    }
}
