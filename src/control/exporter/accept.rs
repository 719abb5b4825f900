//! Which of the two text forms a client wants (RFC 9110, section 12.5.1): OpenMetrics when it asks for it and likes nothing else better.
#![forbid(unsafe_code)]

use crate::control::status::Syntax;

/// The form for an `Accept` header; the classic one for people and for what asks for neither.
pub(super) fn syntax(accept: &str) -> Syntax {
    let (mut open, mut classic) = (0.0_f32, 0.0_f32);
    for range in accept.split(',') {
        let mut parts = range.split(';').map(str::trim);
        let media = parts.next().unwrap_or("").to_ascii_lowercase();
        let (mut quality, mut version) = (1.0, None);
        for (name, value) in parts.filter_map(|part| part.split_once('=')) {
            let (name, value) = (name.trim(), value.trim().trim_matches('"'));
            if name.eq_ignore_ascii_case("q") {
                // What is no number is not wanted.
                quality = value.parse().unwrap_or(0.0);
            } else if name.eq_ignore_ascii_case("version") {
                version = Some(value);
            }
        }
        match (media.as_str(), version) {
            ("application/openmetrics-text", None | Some("1.0.0")) => open = open.max(quality),
            ("text/plain", None | Some("0.0.4")) | ("text/*" | "*/*", None) => {
                classic = classic.max(quality);
            }
            _ => {}
        }
    }
    if open > 0.0 && open >= classic {
        Syntax::OpenMetrics
    } else {
        Syntax::Prometheus
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openmetrics_is_given_to_who_prefers_it() {
        for accept in [
            // Prometheus 2 and 3, Grafana's agent, VictoriaMetrics.
            "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,text/plain;version=0.0.4;q=0.2,*/*;q=0.1",
            "application/openmetrics-text",
            "Application/OpenMetrics-Text ; Version=\"1.0.0\" ; Q=0.1",
        ] {
            assert_eq!(syntax(accept), Syntax::OpenMetrics, "{accept}");
        }
        for accept in [
            "",
            "*/*",
            "text/html,application/xhtml+xml,*/*;q=0.8",
            "text/plain;version=0.0.4;q=1,*/*;q=0.1",
            "application/openmetrics-text;version=1.0.0;q=0.2,text/plain;q=0.5",
            "application/openmetrics-text;version=2.0.0",
            "application/openmetrics-text;version=1.0.0;q=0",
            "application/openmetrics-text;q=x",
        ] {
            assert_eq!(syntax(accept), Syntax::Prometheus, "{accept}");
        }
    }
}
