//! What Sendmail's configuration says of milters, from the text of sendmail.cf and sendmail.mc. Pure.
#![forbid(unsafe_code)]

use crate::config::{MilterName, Port};

use super::endpoint::Endpoint;

/// A filter that sendmail.cf defines: an `X` line.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Filter {
    name: String,
    endpoint: Endpoint,
    /// `F=`: `T` and `R` keep mail from passing while the filter is down.
    flag: Option<char>,
}

/// Sendmail as it is configured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sendmail {
    filters: Vec<Filter>,
    /// Those that are asked, in this order.
    asked: Vec<String>,
    /// Where the filters of sendmail.mc lead.
    in_mc: Vec<Endpoint>,
}

impl Sendmail {
    /// From both files; sendmail.cf is the one that counts.
    pub(super) fn parse(cf: &str, mc: &str) -> Sendmail {
        let mut sendmail = Sendmail::default();
        for line in cf.lines() {
            if let Some(definition) = line.strip_prefix('X') {
                sendmail.filters.extend(filter(definition));
            } else if let Some(option) = line.strip_prefix("O ")
                && let Some((name, value)) = option.split_once('=')
                && name.trim().eq_ignore_ascii_case("InputMailFilters")
            {
                let names = value.split(',').map(str::trim).filter(|it| !it.is_empty());
                sendmail.asked = names.map(str::to_owned).collect();
            }
        }
        for line in mc
            .lines()
            .filter(|line| !line.trim_start().starts_with("dnl"))
        {
            if let Some((_, arguments)) = line.split_once("MAIL_FILTER(") {
                sendmail.in_mc.extend(socket(arguments));
            }
        }
        sendmail
    }

    /// What an operator should know of a milter: whether Sendmail asks it, and how to make it.
    pub(super) fn notes(&self, name: &MilterName, port: &Port) -> Vec<String> {
        let defined = self
            .filters
            .iter()
            .filter(|it| it.endpoint.leads_to(port, None));
        let Some(filter) = defined.max_by_key(|filter| self.asked.contains(&filter.name)) else {
            let in_mc = self.in_mc.iter().any(|it| it.leads_to(port, None));
            return vec![if in_mc {
                format!(
                    "{name}: Sendmail does not ask it: sendmail.mc names it and sendmail.cf does not; to have it do so: make -C /etc/mail, and restart Sendmail"
                )
            } else {
                format!(
                    "{name}: Sendmail does not ask it; to have it do so add to /etc/mail/sendmail.mc, then make -C /etc/mail and restart Sendmail:\n    INPUT_MAIL_FILTER(`{name}', `S={}, F=T')dnl",
                    port.for_sendmail()
                )
            }];
        };
        if !self.asked.contains(&filter.name) {
            return vec![format!(
                "{name}: Sendmail does not ask it: sendmail.cf defines it as {} and InputMailFilters does not have it; in sendmail.mc write INPUT_MAIL_FILTER instead of MAIL_FILTER",
                filter.name
            )];
        }
        let mut notes = vec![format!("{name}: Sendmail asks it")];
        if !matches!(filter.flag, Some('T' | 'R' | '4')) {
            notes.push(format!(
                "{name}: while it is down, Sendmail lets mail pass unfiltered; write F=T in its line of sendmail.mc"
            ));
        }
        notes
    }
}

/// `policy, S=inet:3366@127.0.0.1, F=T, T=S:4m;R:4m`
fn filter(definition: &str) -> Option<Filter> {
    let name = definition.split(',').next()?.trim();
    let flag = definition
        .split(',')
        .find_map(|part| part.trim().strip_prefix("F="))
        .and_then(|value| value.trim().chars().next());
    Some(Filter {
        name: name.to_owned(),
        endpoint: socket(definition)?,
        flag,
    })
}

/// What stands behind `S=`.
fn socket(text: &str) -> Option<Endpoint> {
    let (_, rest) = text.split_once("S=")?;
    let end = rest.find([',', '\'', ')']).unwrap_or(rest.len());
    Some(Endpoint::of_sendmail(rest[..end].trim()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_operator_is_told_whether_sendmail_asks_and_what_to_write() {
        let defined = "Xmine, S=inet:3366@localhost, F=T, T=S:4m;R:4m;E:10m\n";
        for (cf, mc, expected) in [
            (
                &format!("{defined}O InputMailFilters=other, mine\n") as &str,
                "",
                "policy: Sendmail asks it",
            ),
            (
                defined,
                "",
                "defines it as mine and InputMailFilters does not have it",
            ),
            (
                "Xmine, S=inet:3366@127.0.0.1\nO InputMailFilters=mine\n",
                "",
                "lets mail pass unfiltered; write F=T",
            ),
            (
                "",
                "INPUT_MAIL_FILTER(`p', `S=inet:3366@127.0.0.1, F=T')dnl",
                "make -C /etc/mail",
            ),
            (
                "#O InputMailFilters\n",
                "dnl INPUT_MAIL_FILTER(`p', `S=inet:3366@127.0.0.1')",
                "INPUT_MAIL_FILTER(`policy', `S=inet:3366@127.0.0.1, F=T')dnl",
            ),
        ] {
            let sendmail = Sendmail::parse(cf, mc);
            let port = "inet:3366@127.0.0.1".parse().unwrap();
            let notes = sendmail.notes(&"policy".parse().unwrap(), &port).join("\n");
            assert!(notes.contains(expected), "{cf}\n{mc}\n{notes}");
        }
    }
}
