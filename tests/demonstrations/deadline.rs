//! Demonstration 7: who is about to miss the MTA's patience is shown before it ends, and who missed it is counted.

use std::time::{Duration, Instant};

use crate::support::milter::{Milter, count};
use crate::support::mta::Mta;

/// Longer than this MTA waits, which is 2 s; long enough to be seen before and after.
const SLEEPS: &str = r#"
local policy = {}
function policy.rcpt(ctx, recipient)
  if recipient:match("^late") then milter.sleep(4) end
  if recipient:match("^soon") then milter.sleep(0.1) end
end
return policy
"#;
const PATIENCE: Duration = Duration::from_secs(2);

/// RCPT to each of them; how long each answer took.
fn recipients(mta: &mut Mta, names: &[&str]) -> Vec<Duration> {
    mta.command(b'M', b"i\0QID1\0", &[b"<a@b.example>\0"])
        .unwrap();
    let ask = |name: &&str| {
        let recipient = format!("<{name}@example.org>\0");
        let begun = Instant::now();
        let reply = mta.command(b'R', b"", &[recipient.as_bytes()]).unwrap();
        assert!(matches!(reply, Some((b'c', _))), "{reply:?}");
        begun.elapsed()
    };
    names.iter().map(ask).collect()
}

#[test]
fn an_answer_that_will_be_too_late_is_seen_coming_and_those_too_late_are_counted_as_the_client_counts_them()
 {
    let settings = "max_pooled_procs = 1\ncallback_timeout = \"1m\"\nmta_timeouts = \"2s,300s\"\n";
    let milter = Milter::started(SLEEPS, settings);
    let talks = [
        vec!["quick", "late1"],
        vec!["late1", "soon1", "quick"],
        vec!["soon1", "soon2", "quick", "soon3"],
        vec!["quick", "soon1", "late1"],
    ];
    let slept: usize = talks
        .iter()
        .flatten()
        .filter(|name| name.starts_with("late"))
        .count();
    let mut sessions: Vec<Mta> = talks.iter().map(|_| milter.session()).collect();
    let waited: Vec<Duration> = std::thread::scope(|scope| {
        let talking: Vec<_> = sessions
            .iter_mut()
            .zip(&talks)
            .map(|(mta, names)| scope.spawn(move || recipients(mta, names)))
            .collect();
        let long = |what: &str, text: &str| {
            crate::support::wait_until(crate::support::SOON, what, || {
                let long = milter.pmx(&["status", "--long"]).expect(0).out;
                let line = long
                    .lines()
                    .find(|line| line.starts_with("        R rcpt id=QID1 "))?;
                line.contains(text).then(|| line.to_owned())
            })
        };
        println!("{}", long("it is seen coming", " of 2s left)"));
        println!("{}", long("it is late", "(late by "));
        let json = milter.json();
        let left = json["slots"][0]["deadline_seconds"].as_f64();
        assert!(left.is_none_or(|left| left < 2.0), "{json:#}");
        talking
            .into_iter()
            .flat_map(|it| it.join().unwrap())
            .collect()
    });
    let counted = count(&milter.json()["late_answers"]);
    // This client's clock runs a little longer than the board's: it can only take more of them for late.
    let late = waited.iter().filter(|time| **time > PATIENCE).count() as u64;
    println!(
        "{slept} slept longer than the MTA waits; counted {counted}, measured {late} of {}",
        waited.len()
    );
    assert!(
        (slept as u64..=late).contains(&counted),
        "{slept} {counted} {late}"
    );
    for session in sessions {
        session.quit().unwrap();
    }
    milter.stop();
}
