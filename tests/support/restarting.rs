//! What the tests of restarts share: two policies that can be told apart, and where a restart is.

use std::fs;

use super::milter::Milter;
use super::mta::{Answer, Message};
use super::{SOON, process, wait_until};

pub fn policy(word: &str) -> String {
    format!(
        "local policy = {{}}\nfunction policy.mail(ctx, sender, args) end\nfunction policy.eom(ctx) ctx:add_header(\"X-Filter\", \"{word}\") end\nreturn policy\n"
    )
}

/// The same, but it takes its time to be loaded.
pub fn slow(word: &str) -> String {
    format!(
        "local stop = os.time() + 2\nwhile os.time() < stop do end\n{}",
        policy(word)
    )
}

pub fn message() -> Message {
    Message::from("a@b.example")
}

pub fn either(answer: &Answer) -> bool {
    answer.is_taken()
        && answer.edits.len() == 1
        && (answer.adds_header("X-Filter", "one") || answer.adds_header("X-Filter", "two"))
}

/// A message of a new session, which must be filtered by the policy with this word.
#[track_caller]
pub fn filtered_by(milter: &Milter, word: &str) {
    let answer = milter.session().message(&message()).unwrap();
    assert!(answer.adds_header("X-Filter", word), "{answer:?}");
}

/// The child of this name.
pub fn child_named(pid: i32, name: &str) -> Option<i32> {
    let comm = |child: &i32| fs::read_to_string(format!("/proc/{child}/comm")).unwrap_or_default();
    let mut children = process::children(pid).into_iter();
    children.find(|child| comm(child).trim() == name)
}

/// The process that reads the policy in a trial.
pub fn checker(milter: &Milter) -> Option<i32> {
    child_named(child_named(milter.master(), "pmx-trial")?, "pmx-checker")
}

/// Waits until a trial reads the policy: all else has been looked at then.
#[track_caller]
pub fn wait_for_checker(milter: &Milter) -> i32 {
    wait_until(SOON, "the trial's checker", || checker(milter))
}
