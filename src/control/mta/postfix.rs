//! What Postfix's configuration says of milters, from the text that postconf(1) prints. Pure.
#![forbid(unsafe_code)]

use std::path::PathBuf;

use crate::config::{MilterName, Port};

use super::endpoint::Endpoint;

/// Parameters of main.cf that matter here, for `postconf -x`.
pub(super) const PARAMETERS: [&str; 3] =
    ["smtpd_milters", "milter_default_action", "queue_directory"];

/// A list of milters as it stands, and where they lead.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct List {
    text: String,
    endpoints: Vec<Endpoint>,
}

/// Postfix as it is configured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Postfix {
    list: List,
    default_action: String,
    queue_directory: Option<PathBuf>,
    /// Services of master.cf with a list of their own, such as `submission/inet`.
    services: Vec<(String, List)>,
}

impl Postfix {
    /// From the output of `postconf -x PARAMETERS` and of `postconf -Px`.
    pub(super) fn parse(main: &str, master: &str) -> Postfix {
        let mut postfix = Postfix::default();
        for (name, value) in settings(main) {
            match name {
                "smtpd_milters" => postfix.list = List::parse(value),
                "milter_default_action" => value.clone_into(&mut postfix.default_action),
                "queue_directory" => postfix.queue_directory = Some(PathBuf::from(value)),
                _ => {}
            }
        }
        for (name, value) in settings(master) {
            if let Some(service) = name.strip_suffix("/smtpd_milters") {
                postfix
                    .services
                    .push((service.to_owned(), List::parse(value)));
            }
        }
        postfix
    }

    /// What an operator should know of a milter: whether Postfix asks it, and how to make it.
    pub(super) fn notes(&self, name: &MilterName, port: &Port) -> Vec<String> {
        let leads = |list: &List| {
            let root = self.queue_directory.as_deref();
            list.endpoints.iter().any(|it| it.leads_to(port, root))
        };
        let services = |asking: bool| {
            let those = self
                .services
                .iter()
                .filter(|(_, list)| leads(list) == asking);
            let names: Vec<&str> = those.map(|(service, _)| service.as_str()).collect();
            names.join(", ")
        };
        let (asking, silent) = (services(true), services(false));
        let mut notes = Vec::new();
        match (leads(&self.list), asking.is_empty()) {
            (true, _) if silent.is_empty() => notes.push(format!("{name}: Postfix asks it")),
            (true, _) => notes.push(format!(
                "{name}: Postfix asks it, but not in {silent}, which has smtpd_milters of its own in master.cf"
            )),
            (false, false) => notes.push(format!("{name}: Postfix asks it in {asking} (master.cf)")),
            (false, true) => {
                notes.push(self.not_asked(name, port));
                return notes;
            }
        }
        if self.default_action == "accept" {
            notes.push(format!(
                "{name}: while it is down, Postfix lets mail pass unfiltered (milter_default_action = accept); to have it deferred: postconf -e milter_default_action=tempfail"
            ));
        }
        notes
    }

    fn not_asked(&self, name: &MilterName, port: &Port) -> String {
        let wanted = port.for_postfix();
        let (now, all) = match self.list.text.as_str() {
            "" => ("is empty".to_owned(), wanted),
            text => (format!("= {text}"), format!("{text}, {wanted}")),
        };
        let swapped = self.list.endpoints.iter().any(|endpoint| {
            matches!(endpoint, Endpoint::Strange(text) if Endpoint::of_sendmail(text).leads_to(port, None))
        });
        if swapped {
            let wanted = port.for_postfix();
            return format!(
                "{name}: Postfix does not ask it: smtpd_milters {now} has it in Sendmail's form; Postfix's is {wanted}"
            );
        }
        format!(
            "{name}: Postfix does not ask it (smtpd_milters {now}); to have it do so: postconf -e 'smtpd_milters = {all}' && postfix reload"
        )
    }
}

fn settings(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.lines().filter_map(|line| {
        let (name, value) = line.split_once('=')?;
        Some((name.trim(), value.trim()))
    })
}

impl List {
    /// Elements stand between commas and spaces; one in braces begins with the endpoint and goes on with settings of its own.
    fn parse(text: &str) -> List {
        let mut endpoints = Vec::new();
        let mut rest = text;
        let is_gap = |c: char| c == ',' || c.is_whitespace();
        loop {
            rest = rest.trim_start_matches(is_gap);
            if rest.is_empty() {
                break;
            }
            let (element, after) = match rest.strip_prefix('{') {
                Some(inside) => inside.split_once('}').unwrap_or((inside, "")),
                None => rest.split_at(rest.find(is_gap).unwrap_or(rest.len())),
            };
            let endpoint = element.split(is_gap).find(|word| !word.is_empty());
            endpoints.extend(endpoint.map(Endpoint::of_postfix));
            rest = after;
        }
        List {
            text: text.to_owned(),
            endpoints,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn notes(main: &str, master: &str) -> String {
        let port = "inet:3366@127.0.0.1".parse().unwrap();
        let postfix = Postfix::parse(main, master);
        postfix.notes(&"policy".parse().unwrap(), &port).join("\n")
    }

    #[test]
    fn a_list_is_read_with_commas_spaces_and_braces() {
        let list = List::parse(
            "inet:a:1, { inet:127.0.0.1:3366, connect_timeout = 10s, default_action=accept } unix:/x,inet:b:2",
        );
        let endpoints = ["inet:a:1", "inet:127.0.0.1:3366", "unix:/x", "inet:b:2"];
        assert_eq!(list.endpoints, endpoints.map(Endpoint::of_postfix));
        assert_eq!(List::parse(" , ").endpoints, []);
        assert_eq!(List::parse("{ inet:a:1").endpoints.len(), 1);
    }

    #[test]
    fn an_operator_is_told_whether_postfix_asks_and_what_to_write() {
        for (main, master, expected) in [
            (
                "smtpd_milters = inet:localhost:3366",
                "",
                "policy: Postfix asks it",
            ),
            (
                "smtpd_milters =",
                "",
                "policy: Postfix does not ask it (smtpd_milters is empty); to have it do so: postconf -e 'smtpd_milters = inet:127.0.0.1:3366' && postfix reload",
            ),
            (
                "smtpd_milters = inet:localhost:8891",
                "",
                "postconf -e 'smtpd_milters = inet:localhost:8891, inet:127.0.0.1:3366'",
            ),
            (
                "smtpd_milters = inet:3366@127.0.0.1",
                "",
                "in Sendmail's form; Postfix's is inet:127.0.0.1:3366",
            ),
            (
                "smtpd_milters = inet:127.0.0.1:3366\nmilter_default_action = accept",
                "",
                "policy: while it is down, Postfix lets mail pass unfiltered",
            ),
            (
                "smtpd_milters = ",
                "submission/inet/smtpd_milters = inet:127.0.0.1:3366\nsmtp/inet/smtpd_sasl_auth_enable = no",
                "policy: Postfix asks it in submission/inet (master.cf)",
            ),
            (
                "smtpd_milters = inet:127.0.0.1:3366",
                "smtp/inet/smtpd_milters = ",
                "policy: Postfix asks it, but not in smtp/inet, which",
            ),
        ] {
            let notes = notes(main, master);
            assert!(notes.contains(expected), "{main}\n{master}\n{notes}");
        }
        assert!(!notes("smtpd_milters = inet:localhost:3366", "").contains("unfiltered"));
    }
}
