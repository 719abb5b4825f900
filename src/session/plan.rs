//! From what a policy uses to what is asked of the MTA: one plan an interpreter, shared by its sessions.
//!
//! A step that the policy does not use is declined. One that is only read, and headers and body even when the policy decides there, is sent without
//! reply: a round trip a header would be most of a message's cost. The leading space of header values is not asked for: then the MTA cuts and
//! adds it itself.
#![forbid(unsafe_code)]

use crate::milter::negotiate::{Need, Step, Wish};
use crate::policy::event::Callback;
use crate::policy::wants::Wants;

/// Macro stage of MAIL: from here on the queue id may be known.
const MAIL: usize = 2;
/// Most macro names of a stage: Sendmail reads no more (`MAXFILTERMACROS`).
const MOST_MACRO_NAMES: usize = 50;
/// Longest macro name that is asked for; a list then fits into a frame.
const MACRO_NAME_BYTES: usize = 100;

/// What a policy wants of its sessions.
#[derive(Clone, Debug)]
pub struct Plan {
    pub(super) wish: Wish,
    pub(super) overload_wish: Wish,
    pub(super) wants: Wants,
    /// Bytes of headers and body that are kept.
    pub(super) message_bytes: usize,
    /// Which data is kept.
    pub(super) keep: Keep,
}

/// Data that is kept: a step's exists if the policy has its callback or names it in `policy.collect`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Keep {
    pub(super) client: bool,
    pub(super) helo: bool,
    pub(super) sender: bool,
    pub(super) recipients: bool,
    pub(super) headers: bool,
    pub(super) body: bool,
}

impl Plan {
    /// Plans for a policy; `message_size_limit` in bytes.
    pub fn new(wants: &Wants, message_size_limit: usize) -> Plan {
        let collect = wants.collect;
        let keep = Keep {
            client: collect.client || wants.has(Callback::Connect),
            helo: collect.helo || wants.has(Callback::Helo),
            sender: collect.sender || wants.has(Callback::Mail),
            recipients: collect.recipients || wants.has(Callback::Rcpt),
            headers: collect.headers || wants.has(Callback::Header),
            body: collect.body || wants.has(Callback::Body),
        };
        let answered = |callback, kept| {
            if wants.has(callback) {
                Need::Answer
            } else {
                read(kept)
            }
        };
        let mut wish = Wish::default();
        let mut need = |step: Step, need| wish.steps[step as usize] = need;
        need(Step::Connect, answered(Callback::Connect, keep.client));
        need(Step::Helo, answered(Callback::Helo, keep.helo));
        need(Step::Mail, answered(Callback::Mail, keep.sender));
        need(Step::Rcpt, answered(Callback::Rcpt, keep.recipients));
        need(Step::Data, answered(Callback::Data, false));
        need(Step::Header, read(keep.headers));
        // The verdict of a header is given here.
        let eoh = wants.has(Callback::Eoh) || wants.has(Callback::Header);
        need(Step::Eoh, if eoh { Need::Answer } else { Need::Skip });
        let answer_body = wants.answer_body && wants.has(Callback::Body);
        need(
            Step::Body,
            if answer_body {
                Need::Answer
            } else {
                read(keep.body)
            },
        );
        need(Step::Unknown, answered(Callback::Unknown, false));
        for (stage, names) in wants.macros.iter().enumerate() {
            wish.macros[stage] = names.as_deref().map(|names| macro_list(names, stage));
        }
        let mut overload_wish = Wish::default();
        overload_wish.steps[Step::Connect as usize] = Need::Answer;
        Plan {
            wish,
            overload_wish,
            wants: wants.clone(),
            message_bytes: message_size_limit,
            keep,
        }
    }
}

fn read(kept: bool) -> Need {
    if kept { Need::Read } else { Need::Skip }
}

/// A list as the protocol has it: one letter bare, longer names in braces; the queue id is always asked for.
fn macro_list(names: &str, stage: usize) -> String {
    let mut list = String::new();
    let queue_id = (stage >= MAIL).then_some("i");
    let mut seen: Vec<&str> = Vec::new();
    let names = queue_id.into_iter().chain(names.split_whitespace());
    for name in names {
        let bare = name.trim_start_matches('{').trim_end_matches('}');
        if bare.is_empty() || bare.len() > MACRO_NAME_BYTES || seen.contains(&bare) {
            continue;
        }
        if seen.len() == MOST_MACRO_NAMES {
            break;
        }
        seen.push(bare);
        if !list.is_empty() {
            list.push(' ');
        }
        if bare.len() == 1 {
            list.push_str(bare);
        } else {
            list.push('{');
            list.push_str(bare);
            list.push('}');
        }
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::wants::Collect;

    fn steps(callbacks: &[Callback], collect: Collect, answer_body: bool) -> [Need; 9] {
        let callbacks = callbacks
            .iter()
            .fold(0, |bits, callback| bits | callback.bit());
        Plan::new(
            &Wants {
                callbacks,
                collect,
                answer_body,
                ..Wants::default()
            },
            1,
        )
        .wish
        .steps
    }

    #[test]
    fn a_policy_with_only_eom_declines_every_step() {
        assert_eq!(
            steps(&[Callback::Eom], Collect::default(), false),
            [Need::Skip; 9]
        );
    }

    #[test]
    fn headers_and_body_are_read_and_the_end_of_headers_is_answered() {
        let all = steps(&Callback::ALL, Collect::default(), false);
        assert_eq!(all[Step::Header as usize], Need::Read);
        assert_eq!(all[Step::Body as usize], Need::Read);
        let header = steps(&[Callback::Header], Collect::default(), false);
        assert_eq!(header[Step::Eoh as usize], Need::Answer);
        let body = steps(&[Callback::Body], Collect::default(), true);
        assert_eq!(body[Step::Body as usize], Need::Answer);
        assert_eq!(body[Step::Eoh as usize], Need::Skip);
    }

    #[test]
    fn collected_data_is_read_only() {
        let collect = Collect {
            sender: true,
            headers: true,
            ..Collect::default()
        };
        let steps = steps(&[Callback::Eom], collect, false);
        assert_eq!(steps[Step::Mail as usize], Need::Read);
        assert_eq!(steps[Step::Header as usize], Need::Read);
        assert_eq!(steps[Step::Eoh as usize], Need::Skip);
        assert_eq!(steps[Step::Rcpt as usize], Need::Skip);
    }

    #[test]
    fn macro_names_get_their_braces_and_the_queue_id_joins_them() {
        assert_eq!(
            macro_list("auth_authen {mail_addr} i", MAIL),
            "i {auth_authen} {mail_addr}"
        );
        assert_eq!(macro_list(" j {client_addr}  j ", 0), "j {client_addr}");
    }
}
