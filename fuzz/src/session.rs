//! The session: any bytes, any policy, any outcomes, in any pieces. It never panics, always comes to an end, answers in whole frames,
//! says the same whatever the pieces, and its books balance at every step.

use std::rc::Rc;

use pmx_milter::milter::frame;
use pmx_milter::milter::reply_text::ReplyText;
use pmx_milter::policy::event::Callback;
use pmx_milter::policy::{Collect, Edit, Event, Fault, FaultKind, Outcome, Verdict, Wants};
use pmx_milter::session::{Mode, OverloadReply, Plan, Session, Step, Tally};

/// What the first bytes decide; the rest is what the MTA sends.
struct Script<'a> {
    wants: Wants,
    mode: Mode,
    outcomes: &'a [u8],
    wire: &'a [u8],
}

fn script(data: &[u8]) -> Option<Script<'_>> {
    let (head, rest) = data.split_first_chunk::<5>()?;
    let [callbacks_high, callbacks_low, collect, flags, outcomes] = *head;
    let count = usize::from(outcomes % 64).min(rest.len());
    let (outcomes, wire) = rest.split_at(count);
    let bit = |number: u8| collect & (1 << number) != 0;
    Some(Script {
        wants: Wants {
            callbacks: u16::from_be_bytes([callbacks_high, callbacks_low]) & 0xfff,
            collect: Collect {
                client: bit(0),
                helo: bit(1),
                sender: bit(2),
                recipients: bit(3),
                headers: bit(4),
                body: bit(5),
            },
            answer_body: flags & 1 != 0,
            ..Wants::default()
        },
        mode: match flags >> 1 & 7 {
            5 => Mode::Overload(OverloadReply::Tempfail),
            6 => Mode::Overload(OverloadReply::Accept),
            7 => Mode::Overload(OverloadReply::Reject),
            _ => Mode::Policy,
        },
        outcomes,
        wire,
    })
}

/// What the policy says; never what its stage does not know, for that is made a fault before the session sees it.
fn outcome(byte: u8, callback: Callback) -> Outcome {
    let reply = |code: &[u8]| {
        ReplyText::new(code, None, vec![b"said 100%".to_vec()])
            .map_or(Verdict::Reject, Verdict::Reply)
    };
    let verdict = match byte & 15 {
        0..=7 => Verdict::Continue,
        8 => Verdict::Accept,
        9 => Verdict::Reject,
        10 => Verdict::Tempfail,
        11 => Verdict::Discard,
        12 => Verdict::Skip,
        13 => reply(b"550"),
        14 => reply(b"451"),
        _ => {
            return Err(Fault {
                kind: FaultKind::Error,
                text: "fault".to_owned(),
            });
        }
    };
    Ok(if verdict.allowed_at(callback) {
        verdict
    } else {
        Verdict::Continue
    })
}

/// An edit that the policy asked for at the end of a message, if the MTA offered it.
fn edit(session: &Session, byte: u8) {
    let wanted = match byte >> 4 {
        8..=11 => Edit::AddHeader {
            name: b"X-Filter".to_vec(),
            value: b"ok".to_vec(),
        },
        12 => Edit::ReplaceBody(vec![b'x'; 70_000]),
        13 => Edit::Quarantine(b"why".to_vec()),
        14 => Edit::ChangeHeader {
            nth: 1,
            name: b"Subject".to_vec(),
            value: Vec::new(),
        },
        15 => Edit::DeleteRecipient(b"user@example.org".to_vec()),
        _ => return,
    };
    let mut facts = session.facts().borrow_mut();
    if facts.actions & wanted.action() != 0
        && let Some(message) = facts.message.as_mut()
    {
        message.edits.push(wanted);
    }
}

/// Plays the script with input in pieces of this size; everything that an observer sees.
fn play(script: &Script<'_>, piece: usize) -> (Vec<u8>, Tally, Vec<String>) {
    let plan = Rc::new(Plan::new(&script.wants, 4096));
    let mut session = Session::new(plan, script.mode);
    let (mut out, mut tally, mut events) = (Vec::new(), Tally::default(), Vec::new());
    let mut outcomes = script.outcomes.iter().copied().cycle();
    let (mut given, mut used) = (0, 0);
    // Each command gives a few steps at most.
    let mut left = script.wire.len() * 4 + 64;
    let mut is_closed = false;
    while !is_closed {
        left = left.checked_sub(1).expect("the session comes to an end");
        let (count, step) = session.advance(&script.wire[used..given], &mut out, &mut tally);
        used += count;
        assert!(used <= given);
        match step {
            Step::Input if given == script.wire.len() => break,
            Step::Input => given = given.saturating_add(piece).min(script.wire.len()),
            Step::Call(event) => {
                events.push(format!("{event:?}"));
                let byte = outcomes.next().unwrap_or(0);
                let callback = event.callback();
                if callback == Callback::Eom {
                    edit(&session, byte);
                }
                let given = outcome(byte, callback);
                let _ = session.answer(given, &mut out, &mut tally);
            }
            Step::MessageOver => events.push("message over".to_owned()),
            Step::NewClient => events.push("new client".to_owned()),
            Step::Close(close) => {
                events.push(close.to_string());
                is_closed = true;
            }
        }
        books_balance(&session, &tally);
    }
    let mut last = 4;
    while let Some(event) = session.end(&mut tally) {
        assert!(matches!(event, Event::Abort | Event::Close), "{event:?}");
        events.push(format!("{event:?}"));
        last -= 1;
        assert!(last > 0, "abort and close come once");
    }
    assert!(!session.in_message());
    books_balance(&session, &tally);
    (out, tally, events)
}

fn books_balance(session: &Session, tally: &Tally) {
    let open = u64::from(session.in_message());
    assert_eq!(
        tally.started,
        tally.processed() + tally.aborted + open,
        "{tally:?}"
    );
}

/// The target.
pub fn session(data: &[u8]) {
    let Some(script) = script(data) else { return };
    if script.wire.len() > 200_000 {
        return;
    }
    let whole = play(&script, usize::MAX / 2);
    let mut rest = &whole.0[..];
    while !rest.is_empty() {
        match frame::cut(rest, frame::PAYLOAD_BYTES) {
            Ok(Some((_, used))) => rest = &rest[used..],
            other => panic!("answers are whole frames: {other:?}"),
        }
    }
    for piece in [1, 7] {
        let pieces = play(&script, piece);
        assert_eq!(pieces, whole, "in pieces of {piece}");
    }
}
