//! The MTA's side against the filter's, in memory: whatever an MTA offers and however its bytes are cut, a message comes out the same.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use pmx_milter::client::{Address, Applied, At, Client, Letter, Offer, Pace, Reply};
use pmx_milter::control::rehearsal::{Deadlines, Rehearsal};
use pmx_milter::policy::{Interpreter, Limits, Lists, check_here};
use pmx_milter::session::Mode;

const POLICY: &str = r#"
local policy = { collect = { "client", "helo", "headers", "body" } }
function policy.mail(ctx, sender) if sender == "bad@b.example" then return milter.REJECT end end
function policy.rcpt(ctx, recipient) if recipient == "no@b.example" then return ctx:reply("550", "5.1.1", "no") end end
function policy.header(ctx, name) if name == "Spam" then return milter.REJECT end end
function policy.eom(ctx)
  ctx:add_header("X-Seen", ctx.client.host .. " " .. ctx.helo .. " " .. #ctx.headers .. " " .. #ctx.body)
  ctx:change_header("Subject", 1, "[seen] " .. ctx:header("Subject"))
  ctx:delete_recipient("v@b.example")
  ctx:progress()
end
return policy
"#;

const OFFERS: [(u32, u32); 6] = [
    (2, 0x7f),
    (3, 0x17f),
    (4, 0x37f),
    (6, 0x37f),
    (6, 0x77f),
    (6, 0x1f_ffff),
];

fn client() -> Client<Rehearsal> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("policy.lua");
    fs::write(&path, POLICY).unwrap();
    let bundle = Arc::new(check_here(&path, &Limits::default()).unwrap());
    let lists = Lists::new(&bundle);
    let interpreter = Interpreter::new(&bundle, &lists, &Limits::default(), 1).unwrap();
    let minute = Duration::from_secs(60);
    let deadlines = Deadlines {
        callback: minute,
        eom: minute,
    };
    Client::new(Rehearsal::new(
        interpreter,
        1 << 20,
        Mode::Policy,
        deadlines,
        Box::new(|_, _| ()),
    ))
}

fn letter() -> Letter {
    let header = |name: &str, value: &str| (name.as_bytes().to_vec(), value.as_bytes().to_vec());
    Letter {
        sender: b"<a@b.example>".to_vec(),
        sender_args: vec![b"SIZE=100".to_vec()],
        recipients: ["<u@b.example>", "<no@b.example>", "<v@b.example>"]
            .map(|address| address.as_bytes().to_vec())
            .to_vec(),
        headers: vec![header("Subject", "hi"), header("X", "a\n\tb")],
        body: vec![b'x'; 100_000],
        queue_id: b"4Q".to_vec(),
    }
}

fn expected() -> Applied {
    let mut letter = letter();
    letter.headers[0].1 = b"[seen] hi".to_vec();
    letter
        .headers
        .push((b"X-Seen".to_vec(), b"host c.test 2 100000".to_vec()));
    Applied {
        sender: letter.sender,
        recipients: vec![b"<u@b.example>".to_vec()],
        headers: letter.headers,
        body: letter.body,
        quarantine: None,
    }
}

#[test]
fn a_message_comes_out_the_same_whatever_the_mta_offers() {
    for (version, steps) in OFFERS {
        for pace in [Pace::UntilReply, Pace::EachCommand, Pace::EachByte] {
            let mut client = client();
            client.set_pace(pace);
            client
                .negotiate(Offer {
                    version,
                    actions: 0x1ff,
                    steps,
                })
                .unwrap();
            let address = Address::Inet("192.0.2.1:25".parse().unwrap());
            assert_eq!(client.hello(b"host", &address, b"c.test").unwrap(), None);
            for _ in 0..2 {
                let answer = client.message(&letter()).unwrap();
                let what = format!("version {version}, steps {steps:x}, {pace:?}: {answer:?}");
                assert_eq!(
                    (answer.at, &answer.reply, answer.progress),
                    (At::Eom, &Reply::Continue, 1),
                    "{what}"
                );
                assert_eq!(
                    answer.refused,
                    [(1, Reply::Text(b"550 5.1.1 no".to_vec()))],
                    "{what}"
                );
                assert!(
                    answer.is_taken() && answer.apply(&letter()) == expected(),
                    "{what}"
                );
            }
            let mut spam = letter();
            spam.headers.push((b"Spam".to_vec(), b"yes".to_vec()));
            let answer = client.message(&spam).unwrap();
            assert_eq!(answer.reply, Reply::Reject);
            let mut bad = letter();
            bad.sender = b"<bad@b.example>".to_vec();
            let answer = client.message(&bad).unwrap();
            assert_eq!((answer.at, answer.reply), (At::Mail, Reply::Reject));
            client.new_client().unwrap();
            assert_eq!(
                client.hello(b"host", &Address::Unknown, b"c.test").unwrap(),
                None
            );
            let mut refused = letter();
            refused.recipients = vec![b"<no@b.example>".to_vec()];
            let answer = client.message(&refused).unwrap();
            assert_eq!((answer.at, answer.refused.len()), (At::Rcpt, 1));
            client.quit().unwrap();
            let tally = client.stream().tally();
            assert_eq!(
                (tally.started, tally.verdicts, tally.aborted),
                (5, [2, 2, 0, 0, 0, 0], 1)
            );
        }
    }
}
