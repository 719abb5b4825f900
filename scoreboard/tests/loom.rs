//! Models of the protocols, run by loom over every interleaving and every reordering that the memory model allows:
//! `RUSTFLAGS="--cfg loom" cargo test -p scoreboard --release --test loom`.
//!
//! The latch is the crate's own code on loom's atomics. Each model has mutations, one fence, order or step removed, and *must* fail with each
//! of them: otherwise it would prove nothing.
#![cfg(loom)]
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

use loom::sync::Arc;
use loom::thread;
use scoreboard::histogram;
use scoreboard::latch::{self, Place, Rules, Sound, Source};
use scoreboard::ring::{self, Ring};
use scoreboard::sync::{AtomicU64, Ordering, fence};

const PLACE: Place = Place {
    version: 0,
    copies: [1, 3],
};
/// Words of a latch of two-word records.
const CELLS: usize = 5;

fn cells(count: usize) -> Arc<Vec<AtomicU64>> {
    Arc::new((0..count).map(|_| AtomicU64::new(0)).collect())
}

/// Runs a model with at most three preemptions (two find every bug below; three are still quick).
fn check(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(model);
}

/// Runs a mutated model, which must fail.
fn must_fail(name: &str, model: impl Fn() + Sync + Send + 'static + std::panic::UnwindSafe) {
    let outcome = std::panic::catch_unwind(|| check(model));
    assert!(outcome.is_err(), "the model does not notice: {name}");
}

macro_rules! mutation {
    ($name:ident { $($body:tt)* }) => {
        struct $name;
        impl Rules for $name { $($body)* }
    };
}

mutation! { NoWriterFence { const WRITER_FENCE: bool = false; } }
mutation! { RelaxedVersion { const ADVERTISE: Ordering = Ordering::Relaxed; } }
mutation! { NoOpeningFence { const OPENING_FENCE: bool = false; } }
mutation! { NoClosingFence { const CLOSING_FENCE: bool = false; } }
mutation! { StepsByTwo { const STEP: u64 = 2; } }

/// One try of a reader against three publications; a consistent record is one of them, whole.
fn latch_model<R: Rules>() {
    let shared = cells(CELLS);
    let writer = {
        let shared = shared.clone();
        thread::spawn(move || {
            let mut version = 0;
            for n in 1..=3 {
                latch::publish::<R>(&shared, &PLACE, &mut version, &[n, n]);
            }
        })
    };
    let mut out = [0; 2];
    let Ok(reading) = latch::read::<R, _>(shared.as_slice(), &PLACE, &mut out, 1);
    if reading.consistent {
        assert_eq!(out[0], out[1], "torn");
        assert_eq!(out[0], reading.version, "a record of another version");
    }
    writer.join().unwrap();
}

#[test]
fn a_record_is_never_torn_and_each_fence_is_needed() {
    check(latch_model::<Sound>);
    must_fail("writer without fence", latch_model::<NoWriterFence>);
    must_fail("version stored relaxed", latch_model::<RelaxedVersion>);
    must_fail(
        "reader without opening fence",
        latch_model::<NoOpeningFence>,
    );
    must_fail(
        "reader without closing fence",
        latch_model::<NoClosingFence>,
    );
    must_fail("version that steps by two", latch_model::<StepsByTwo>);
}

#[derive(Clone, Copy, PartialEq)]
enum TakeOver {
    Sound,
    /// The new writer always begins with count 0, whatever the parity that it finds.
    IgnoresParity,
}

/// A writer is killed anywhere in its second publication; another one takes the page over. Readers see whole records throughout.
fn killed_model(kind: TakeOver) {
    let shared = cells(CELLS);
    let old = {
        let shared = shared.clone();
        thread::spawn(move || {
            // As `publish` would, but dead after the first word of the record.
            fence(Ordering::Release);
            shared[3].store(1, Ordering::Relaxed);
            shared[4].store(1, Ordering::Relaxed);
            shared[0].store(1, Ordering::Release);
            fence(Ordering::Release);
            shared[1].store(2, Ordering::Relaxed);
        })
    };
    let reader = {
        let shared = shared.clone();
        thread::spawn(move || {
            let mut out = [0; 2];
            let Ok(reading) = latch::read::<Sound, _>(shared.as_slice(), &PLACE, &mut out, 1);
            assert!(!reading.consistent || out[0] == out[1], "torn {out:?}");
        })
    };
    // waitpid returned: the old writer's stores have happened.
    old.join().unwrap();
    let found = shared[0].load(Ordering::Relaxed);
    let mut version = match kind {
        TakeOver::Sound => latch::take_over(found, 2),
        TakeOver::IgnoresParity => (2 << latch::COUNT_BITS) | 0,
    };
    latch::publish::<Sound>(&shared, &PLACE, &mut version, &[5, 5]);
    reader.join().unwrap();
    let mut out = [0; 2];
    let Ok(reading) = latch::read::<Sound, _>(shared.as_slice(), &PLACE, &mut out, 1);
    assert!(reading.consistent && out == [5, 5] && latch::is_of(reading.version, 2));
}

#[test]
fn a_killed_writer_and_its_successor_leave_whole_records_only_if_parity_is_kept() {
    check(|| killed_model(TakeOver::Sound));
    must_fail("take-over that ignores the parity", || {
        killed_model(TakeOver::IgnoresParity);
    });
}

#[derive(Clone, Copy, PartialEq)]
enum Fold {
    Sound,
    /// The reader adds the child's record whatever its incarnation.
    IgnoresIncarnation,
    /// The master empties the child's record before it has added it to its own.
    EmptiesFirst,
    /// The reader does not look at the master's version again.
    NoSecondLook,
}

/// The master folds a dead child (7 completed) into its record and starts the next one. No reader sees the 7 doubled or missing.
/// Master's record: incarnation, base. Child's: incarnation, completed.
fn fold_model(kind: Fold) {
    const MASTER: Place = PLACE;
    const CHILD: Place = Place {
        version: 5,
        copies: [6, 8],
    };
    let shared = cells(10);
    let (mut master, mut child) = (0, latch::take_over(0, 1));
    latch::publish::<Sound>(&shared, &MASTER, &mut master, &[1, 0]);
    latch::publish::<Sound>(&shared, &CHILD, &mut child, &[1, 7]);
    let folder = {
        let shared = shared.clone();
        thread::spawn(move || {
            let mut next = latch::take_over(child, 2);
            let mut publish_master =
                || latch::publish::<Sound>(&shared, &MASTER, &mut master, &[2, 7]);
            let mut publish_child = || latch::publish::<Sound>(&shared, &CHILD, &mut next, &[2, 0]);
            if kind == Fold::EmptiesFirst {
                publish_child();
                publish_master();
            } else {
                publish_master();
                publish_child();
            }
        })
    };
    let (mut of_master, mut of_child) = ([0; 2], [0; 2]);
    let source = shared.as_slice();
    let Ok(first) = latch::read::<Sound, _>(source, &MASTER, &mut of_master, 1);
    let Ok(second) = latch::read::<Sound, _>(source, &CHILD, &mut of_child, 1);
    let Ok(after) = latch::version(source, &MASTER);
    let paired = kind == Fold::NoSecondLook || after == first.version;
    if first.consistent && second.consistent && paired {
        let counts = kind == Fold::IgnoresIncarnation || of_child[0] == of_master[0];
        let total = of_master[1] + if counts { of_child[1] } else { 0 };
        assert_eq!(total, 7, "lost or counted twice");
    }
    folder.join().unwrap();
}

#[test]
fn a_fold_never_loses_nor_doubles_what_a_dead_child_counted() {
    check(|| fold_model(Fold::Sound));
    must_fail("incarnations ignored", || {
        fold_model(Fold::IgnoresIncarnation)
    });
    must_fail("child emptied first", || fold_model(Fold::EmptiesFirst));
    must_fail("no second look", || fold_model(Fold::NoSecondLook));
}

#[derive(Clone, Copy, PartialEq)]
enum Order {
    ChildFirst,
    MasterFirst,
}

/// Without the bracket: the child's record is read first, so that what it completed is never more than what it was given.
fn causality_model(order: Order) {
    let dispatched = Arc::new(AtomicU64::new(0));
    let completed = Arc::new(AtomicU64::new(0));
    let sent = Arc::new(AtomicU64::new(0));
    let master = {
        let (dispatched, sent) = (dispatched.clone(), sent.clone());
        thread::spawn(move || {
            dispatched.store(1, Ordering::Release);
            // The socket between master and child orders like this.
            sent.store(1, Ordering::Release);
        })
    };
    let child = {
        let completed = completed.clone();
        thread::spawn(move || {
            if sent.load(Ordering::Acquire) == 1 {
                completed.store(1, Ordering::Release);
            }
        })
    };
    let look = |word: &AtomicU64| {
        let value = word.load(Ordering::Relaxed);
        fence(Ordering::Acquire);
        value
    };
    let (given, done) = match order {
        Order::ChildFirst => {
            let done = look(&completed);
            (look(&dispatched), done)
        }
        Order::MasterFirst => {
            let given = look(&dispatched);
            (given, look(&completed))
        }
    };
    assert!(done <= given, "more completed than given");
    master.join().unwrap();
    child.join().unwrap();
}

#[test]
fn the_childs_record_is_read_before_the_masters() {
    check(|| causality_model(Order::ChildFirst));
    must_fail("master first", || causality_model(Order::MasterFirst));
}

#[derive(Clone, Copy, PartialEq)]
enum Wake {
    Sound,
    /// The master looks at the completed words before it drains the sockets.
    ScansFirst,
    /// The child sends its byte before it stores what it completed.
    SendsFirst,
    /// The child has no full fence between storing and sending.
    NoChildFence,
    /// The master has no full fence between draining and scanning.
    NoMasterFence,
}

/// A full master waits for room. The socket holds one byte at most: a send into a full one is refused, which is as good. When all is
/// quiet, either the master has seen the completion or its poll returns.
///
/// A refused send only *looks* at the queue: nothing orders it against the drain. Hence a full fence on both sides.
fn wake_up_model(kind: Wake) {
    let completed = Arc::new(AtomicU64::new(0));
    let pending = Arc::new(AtomicU64::new(1)); // An older byte is still in the queue.
    let child = {
        let (completed, pending) = (completed.clone(), pending.clone());
        thread::spawn(move || {
            let store = || completed.store(1, Ordering::Release);
            let send = || {
                let _ = pending.compare_exchange(0, 1, Ordering::AcqRel, Ordering::Relaxed);
            };
            if kind == Wake::SendsFirst {
                send();
                store();
                return;
            }
            store();
            if kind != Wake::NoChildFence {
                fence(Ordering::SeqCst);
            }
            send();
        })
    };
    let drain = || {
        pending.swap(0, Ordering::AcqRel);
    };
    let scan = || completed.load(Ordering::Acquire);
    let seen = if kind == Wake::ScansFirst {
        let seen = scan();
        fence(Ordering::SeqCst);
        drain();
        seen
    } else {
        drain();
        if kind != Wake::NoMasterFence {
            fence(Ordering::SeqCst);
        }
        scan()
    };
    child.join().unwrap();
    let poll_returns = pending.load(Ordering::Acquire) == 1;
    assert!(seen == 1 || poll_returns, "a lost wake-up");
}

#[test]
fn a_master_that_drains_and_then_scans_loses_no_wake_up() {
    check(|| wake_up_model(Wake::Sound));
    must_fail("scan before drain", || wake_up_model(Wake::ScansFirst));
    must_fail("send before store", || wake_up_model(Wake::SendsFirst));
    must_fail("child without fence", || wake_up_model(Wake::NoChildFence));
    must_fail("master without fence", || {
        wake_up_model(Wake::NoMasterFence)
    });
}

mutation! { NoZero { const RING_ZERO: bool = false; } }
mutation! { NoFenceAfterZero { const RING_FENCE: bool = false; } }

/// A ring of one entry of three words is overwritten twice while a reader collects it: what it takes is one entry, whole.
fn ring_model<R: Rules>() {
    const RING: Ring = Ring {
        offset: 0,
        stride: 24,
        entries: 1,
    };
    let shared = cells(RING.bytes() / 8);
    ring::append::<R>(&shared, &RING, &[1, 1, 1]);
    let writer = {
        let shared = shared.clone();
        thread::spawn(move || {
            for n in 2..=3 {
                ring::append::<R>(&shared, &RING, &[n, n, n]);
            }
        })
    };
    let Ok(found) = ring::collect::<R, [u64; 3], _>(shared.as_slice(), &RING);
    for entry in found {
        assert_eq!(entry, [entry[0]; 3], "torn");
    }
    writer.join().unwrap();
}

#[test]
fn an_entry_of_a_ring_is_never_torn_and_each_fence_is_needed() {
    check(ring_model::<Sound>);
    must_fail("number not zeroed", ring_model::<NoZero>);
    must_fail("no fence after zeroing", ring_model::<NoFenceAfterZero>);
    must_fail("number stored relaxed", ring_model::<RelaxedVersion>);
    must_fail("reader without opening fence", ring_model::<NoOpeningFence>);
    must_fail("reader without closing fence", ring_model::<NoClosingFence>);
}

mutation! { NoHistogramFence { const HISTOGRAM_FENCE: bool = false; } }
mutation! { NoChildFence { const CHILD_FENCE: bool = false; } }

#[derive(Clone, Copy, PartialEq)]
enum Buckets {
    Sound,
    /// The master writes the copy that counts, not the spare one.
    KeepsCopy,
    /// The master empties the child's bucket before its record counts it as an earlier one.
    EmptiesFirst,
    /// The reader adds the child's bucket whatever its incarnation.
    IgnoresIncarnation,
    /// The reader does not look at the versions again.
    NoSecondLook,
}

/// A bucket over two deaths: process 1 observed 7 and is folded, process 2 observes 1 more and is folded. A reader at any time sees 7 or 8:
/// nothing doubled, nothing lost.
/// Master's record: incarnation, copy. Child's: incarnation. Then the master's two copies of the bucket, then the child's bucket.
fn bucket_model<R: Rules>(kind: Buckets) {
    const MASTER: Place = PLACE;
    const CHILD: Place = Place {
        version: 5,
        copies: [6, 7],
    };
    const EARLIER: usize = 8;
    const NOW: usize = 10;
    let shared = cells(11);
    let (mut master, mut child) = (0, latch::take_over(0, 1));
    latch::publish::<R>(&shared, &MASTER, &mut master, &[1, 0]);
    latch::publish::<R>(&shared, &CHILD, &mut child, &[1]);
    shared[NOW].store(7, Ordering::Relaxed);
    let folder = {
        let shared = shared.clone();
        thread::spawn(move || {
            let mut total = 0;
            let mut fold = |incarnation: u64| {
                let copy = if kind == Buckets::KeepsCopy {
                    0
                } else {
                    (incarnation + 1) & 1
                };
                // waitpid returned: the child's stores have happened.
                total += shared[NOW].load(Ordering::Relaxed);
                let spare = EARLIER + usize::try_from(copy).unwrap();
                histogram::replace::<R>(&shared, spare, &[total]);
                if kind == Buckets::EmptiesFirst {
                    histogram::replace::<R>(&shared, NOW, &[0]);
                }
                latch::publish::<R>(&shared, &MASTER, &mut master, &[incarnation, copy]);
                histogram::replace::<R>(&shared, NOW, &[0]);
                let mut next =
                    latch::take_over(shared[CHILD.version].load(Ordering::Relaxed), incarnation);
                latch::publish::<R>(&shared, &CHILD, &mut next, &[incarnation]);
            };
            fold(2);
            let child = {
                let shared = shared.clone();
                thread::spawn(move || {
                    histogram::begin::<R>();
                    shared[NOW].store(1, Ordering::Relaxed);
                })
            };
            child.join().unwrap();
            fold(3);
        })
    };
    let source = shared.as_slice();
    let versions = || {
        [MASTER, CHILD].map(|place| {
            let Ok(version) = latch::version(source, &place);
            version
        })
    };
    let copy = |word: usize, out: &mut [u64]| {
        let Ok(()) = source.copy(word, out);
    };
    // As `collect` does it.
    let before = versions();
    if R::OPENING_FENCE {
        fence(Ordering::Acquire);
    }
    let (mut of_child, mut of_master, mut earlier, mut now) = ([0], [0; 2], [0], [0]);
    copy(CHILD.copy(before[1]), &mut of_child);
    fence(Ordering::Acquire);
    copy(MASTER.copy(before[0]), &mut of_master);
    copy(EARLIER + usize::from(of_master[1] & 1 == 1), &mut earlier);
    copy(NOW, &mut now);
    if R::CLOSING_FENCE {
        fence(Ordering::Acquire);
    }
    if kind == Buckets::NoSecondLook || versions() == before {
        let counts = kind == Buckets::IgnoresIncarnation || of_child[0] == of_master[0];
        let total = earlier[0] + if counts { now[0] } else { 0 };
        let possible = match of_master[0] {
            1 => 7..=7,
            2 => 7..=8,
            _ => 8..=8,
        };
        assert!(possible.contains(&total), "lost or counted twice: {total}");
    }
    folder.join().unwrap();
}

#[test]
fn a_bucket_is_neither_lost_nor_doubled_by_deaths_and_each_fence_is_needed() {
    check(|| bucket_model::<Sound>(Buckets::Sound));
    must_fail("master without fence", || {
        bucket_model::<NoHistogramFence>(Buckets::Sound);
    });
    must_fail("child without fence", || {
        bucket_model::<NoChildFence>(Buckets::Sound);
    });
    must_fail("reader without closing fence", || {
        bucket_model::<NoClosingFence>(Buckets::Sound);
    });
    for (name, kind) in [
        ("the counting copy written", Buckets::KeepsCopy),
        ("bucket emptied first", Buckets::EmptiesFirst),
        ("incarnations ignored", Buckets::IgnoresIncarnation),
        ("no second look", Buckets::NoSecondLook),
    ] {
        must_fail(name, move || bucket_model::<Sound>(kind));
    }
}
