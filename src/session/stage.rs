//! Where the dialogue is, and which command may come there (milter-protocol, "States").
//!
//! libmilter ignores a command out of order and leaves the MTA waiting; we say so and the connection is closed. A new message may begin at any
//! time: MAIL within a message is an implicit abort, and so is the first step that an MTA sends when the steps before it were declined.
#![forbid(unsafe_code)]

use std::fmt;

use crate::milter::negotiate::{Agreement, Step};

/// Where the dialogue is: the last command that moved it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Nothing but a negotiation may come.
    Start,
    /// Negotiated, or a new SMTP client announced: connect follows.
    Client,
    /// Connected, between messages.
    Idle,
    /// MAIL came.
    Mail,
    /// RCPT came.
    Rcpt,
    /// DATA came.
    Data,
    /// A header came.
    Header,
    /// The headers ended.
    Eoh,
    /// A body chunk came.
    Body,
    /// The message ended; its final reply is due.
    Eom,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Stage::Start => "before the negotiation",
            Stage::Client => "before connect",
            Stage::Idle => "between messages",
            Stage::Mail => "after MAIL",
            Stage::Rcpt => "after RCPT",
            Stage::Data => "after DATA",
            Stage::Header => "after a header",
            Stage::Eoh => "after the headers",
            Stage::Body => "after a body chunk",
            Stage::Eom => "after end of message",
        })
    }
}

/// What a message's command means where it comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// It goes on with the message.
    Next,
    /// It begins a message; one in progress is aborted.
    Begin,
    /// It cannot come here.
    Never,
}

/// May connect come?
pub(super) fn connect_may_come(now: Stage) -> bool {
    now == Stage::Client
}

/// May HELO come? It may repeat, and within a message it is an implicit abort.
pub(super) fn helo_may_come(now: Stage, agreed: Agreement) -> bool {
    now > Stage::Client || (now == Stage::Client && agreed.left_out(Step::Connect))
}

/// What does a message's command mean that leads to `to` (from [`Stage::Mail`] on)?
pub(super) fn order(now: Stage, to: Stage, agreed: Agreement) -> Order {
    let repeats = matches!(to, Stage::Rcpt | Stage::Header | Stage::Body);
    let follows = now >= Stage::Mail && (to > now || (to == now && repeats));
    // Each recipient is a packet unless declined: content without one belongs to no message.
    let has_recipients = now != Stage::Mail || to == Stage::Rcpt || agreed.left_out(Step::Rcpt);
    if follows && has_recipients {
        Order::Next
    } else if helo_may_come(now, agreed) && may_begin(to, agreed) {
        Order::Begin
    } else {
        Order::Never
    }
}

/// Is this the first step that the MTA sends of a message?
fn may_begin(to: Stage, agreed: Agreement) -> bool {
    let no_mail = agreed.left_out(Step::Mail);
    let no_recipients = no_mail && agreed.left_out(Step::Rcpt);
    // Version 4 brought DATA.
    let no_data = no_recipients && (agreed.left_out(Step::Data) || agreed.version < 4);
    match to {
        Stage::Start | Stage::Client | Stage::Idle => false,
        Stage::Mail => true,
        Stage::Rcpt => no_mail,
        Stage::Data => no_recipients,
        Stage::Header | Stage::Eoh | Stage::Body | Stage::Eom => no_data,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL_SENT: Agreement = Agreement {
        version: 6,
        actions: 0,
        steps: 0,
    };

    #[test]
    fn the_dialogue_in_order_is_taken_and_content_without_a_message_is_not() {
        let walk = [
            Stage::Mail,
            Stage::Rcpt,
            Stage::Rcpt,
            Stage::Data,
            Stage::Header,
            Stage::Header,
            Stage::Eoh,
            Stage::Body,
            Stage::Body,
            Stage::Eom,
        ];
        let mut now = Stage::Idle;
        for to in walk {
            let expected = if to == Stage::Mail {
                Order::Begin
            } else {
                Order::Next
            };
            assert_eq!(order(now, to, ALL_SENT), expected, "{to}");
            now = to;
        }
        for to in walk.into_iter().skip(1) {
            assert_eq!(order(Stage::Idle, to, ALL_SENT), Order::Never, "{to}");
        }
        assert_eq!(order(Stage::Mail, Stage::Data, ALL_SENT), Order::Never);
        assert_eq!(order(Stage::Eoh, Stage::Eoh, ALL_SENT), Order::Never);
        assert_eq!(order(Stage::Body, Stage::Header, ALL_SENT), Order::Never);
        assert_eq!(
            order(Stage::Client, Stage::Mail, ALL_SENT),
            Order::Never,
            "connect was not declined"
        );
    }

    #[test]
    fn the_first_step_that_was_not_declined_begins_a_message() {
        let without = |steps| Agreement { steps, ..ALL_SENT };
        assert_eq!(
            order(Stage::Client, Stage::Rcpt, without(0x07)),
            Order::Begin
        );
        assert_eq!(
            order(Stage::Body, Stage::Rcpt, without(0x07)),
            Order::Begin,
            "implicit abort"
        );
        assert_eq!(
            order(Stage::Client, Stage::Header, without(0x0f)),
            Order::Never,
            "DATA comes first"
        );
        assert_eq!(
            order(Stage::Client, Stage::Eom, without(0x20f)),
            Order::Begin
        );
        let third = Agreement {
            version: 3,
            ..without(0x0f)
        };
        assert_eq!(order(Stage::Client, Stage::Eom, third), Order::Begin);
    }
}
