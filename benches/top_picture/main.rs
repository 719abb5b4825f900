//! Makes `examples/top.svg`: a milter, clients with all kinds of mail, a child that is killed, and one real screen of `pmx-milter top` over it.
//!
//!     cargo bench --bench top_picture [-- SECONDS]
#![allow(clippy::unwrap_used)]

#[path = "../../tests/support/mod.rs"]
mod support;
mod svg;

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use support::milter::{Milter, pids};
use support::mta::{Message, Mta};
use support::process;

/// How long the load runs before the picture is taken, unless told otherwise.
const SECONDS: u64 = 90;
/// Clients at once.
const CLIENTS: u64 = 6;
/// Messages of a connection.
const MESSAGES: u64 = 5;
const COLUMNS: u16 = 100;
const ROWS: u16 = 30;

/// Every verdict, and some that take their time: the sender says which.
const POLICY: &str = r#"
local policy = {}
policy.collect = { "sender", "recipients" }
function policy.mail(ctx, sender)
  if sender:find("^dns") then milter.sleep(0.02) end
  if sender:find("^stuck") then milter.sleep(9) end
end
function policy.rcpt(ctx, recipient) end
function policy.eom(ctx)
  local sender = ctx.sender
  if sender:find("^spam") then return ctx:reply("550", "5.7.1", "spam") end
  if sender:find("^grey") then return ctx:reply("451", "4.7.1", "later") end
  if sender:find("^bulk") then return milter.DISCARD end
  if sender:find("^virus") then ctx:quarantine("virus") end
  if sender:find("^scan") then milter.sleep(0.3) end
  ctx:add_header("X-Filter", "ok")
end
return policy
"#;

/// Senders, some more often than others.
const SENDERS: [&str; 16] = [
    "anna", "dns", "scan", "spam", "bert", "dns", "carl", "grey", "dora", "scan", "spam", "emil",
    "bulk", "fritz", "dns", "virus",
];

fn main() {
    let seconds = std::env::args().skip(1).find_map(|text| text.parse().ok());
    let milter = Milter::started(
        POLICY,
        "max_pooled_procs = 8\nmin_pooled_procs = 4\ncallback_timeout = \"9500ms\"",
    );
    let time = Duration::from_secs(seconds.unwrap_or(SECONDS));
    let enough = AtomicBool::new(false);
    let numbers = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                while !enough.load(Ordering::Relaxed) {
                    // One that the killed child served is cut: an MTA goes on with the next.
                    let _ = client(&milter, &numbers);
                }
            });
        }
        std::thread::sleep(time / 2);
        let victim = *pids(&milter.json()).last().unwrap();
        process::signal(victim, Signal::SIGKILL);
        std::thread::sleep(time / 2);
        let mut stuck = milter.session();
        let late = scope.spawn(move || stuck.message(&message("stuck", 0)));
        let svg = picture(&milter);
        enough.store(true, Ordering::Relaxed);
        let _ = late.join().unwrap();
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/top.svg");
        std::fs::write(&file, svg).unwrap();
        println!("{}", file.display());
    });
}

/// One connection.
fn client(milter: &Milter, numbers: &AtomicU64) -> std::io::Result<()> {
    let mut session = Mta::ready(&milter.address(), Duration::from_secs(20))?;
    for _ in 0..MESSAGES {
        let number = numbers.fetch_add(1, Ordering::Relaxed);
        // Waves, so that the line of bars has something to tell.
        let busy = (number / 500).is_multiple_of(2);
        std::thread::sleep(Duration::from_millis(if busy { 20 } else { 60 }));
        let sender = SENDERS[usize::try_from(number * 7 % 16).unwrap()];
        session.message(&message(sender, number))?;
    }
    session.quit()
}

fn message(sender: &str, number: u64) -> Message {
    let mut message = Message::from(&format!("{sender}@example.net"))
        .only_to("reader@example.org")
        .with_body(&b"Hello, this is a line of a message.\r\n".repeat(200));
    message.queue_id = format!("4Z{:08X}", number.wrapping_mul(2_654_435_761) % (1 << 32));
    message
}

/// A screen on which the deadline of the slow one runs out.
fn picture(milter: &Milter) -> String {
    let mut top = milter.pmx_in_terminal(&["top", "policy"], COLUMNS, ROWS);
    let end = Instant::now() + Duration::from_secs(20);
    while !(top.screen.has("running out") || Instant::now() > end) {
        top.read();
        std::thread::sleep(Duration::from_millis(20));
    }
    // What belongs to this picture and is still on its way.
    std::thread::sleep(Duration::from_millis(100));
    top.read();
    let svg = svg::of(top.screen.cells());
    top.keys("q");
    assert_eq!(top.ended(), 0);
    svg
}
