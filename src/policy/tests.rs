//! What a policy is promised, and what it cannot do, shown on policies as an operator writes them.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::*;

fn limits() -> Limits {
    Limits {
        memory: 16 << 20,
        callback_timeout: Duration::from_secs(8),
        slice: Duration::from_millis(10),
    }
}

fn checked(source: &str) -> Result<Bundle, PolicyError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("policy.lua");
    std::fs::write(&path, source).unwrap();
    check_here(&path, &limits())
}

struct Script {
    interpreter: Interpreter,
    context: Context,
    facts: Rc<RefCell<Facts>>,
}

fn script(body: &str) -> Script {
    let bundle =
        Arc::new(checked(&format!("local policy = {{}}\n{body}\nreturn policy\n")).unwrap());
    let interpreter = Interpreter::new(&bundle, &Lists::new(&bundle), &limits(), 1).unwrap();
    let facts = Rc::new(RefCell::new(Facts {
        actions: 0x1ff,
        ..Facts::default()
    }));
    let context = interpreter.context(Rc::clone(&facts));
    Script {
        interpreter,
        context,
        facts,
    }
}

impl Script {
    /// Runs a callback to its end, giving each wait what it asks for; bounded by the deadline that ends the callback.
    fn run(&mut self, event: Event<'_>, limit: Duration) -> Outcome {
        self.facts.borrow_mut().callback = Some(event.callback());
        self.facts.borrow_mut().message.get_or_insert_default();
        let deadline = Instant::now() + limit;
        let mut progress = self.interpreter.start(&mut self.context, event, deadline);
        loop {
            match progress {
                Progress::Done(outcome) => return outcome,
                Progress::Suspended(call) => {
                    progress = self.interpreter.resume(&mut self.context, call, deadline)
                }
            }
        }
    }

    fn eom(&mut self) -> Outcome {
        self.run(Event::Eom, Duration::from_secs(60))
    }
}

#[test]
fn verdicts_and_replies_come_back() {
    let mut script = script(
        r#"
        function policy.mail(ctx, sender) if sender == "" then return milter.ACCEPT end end
        function policy.rcpt(ctx, recipient)
          if recipient == "bad@example.org" then return ctx:reply("550", "5.1.1", "no such user") end
        end"#,
    );
    let minute = Duration::from_secs(60);
    assert_eq!(
        script.run(
            Event::Mail {
                sender: b"",
                args: vec![]
            },
            minute
        ),
        Ok(Verdict::Accept)
    );
    assert_eq!(
        script.run(
            Event::Mail {
                sender: b"a@b",
                args: vec![]
            },
            minute
        ),
        Ok(Verdict::Continue)
    );
    let Ok(Verdict::Reply(text)) = script.run(
        Event::Rcpt {
            recipient: b"bad@example.org",
            args: vec![],
        },
        minute,
    ) else {
        panic!("a reply is expected");
    };
    let mut bytes = Vec::new();
    text.encode(&mut bytes);
    assert_eq!(bytes, b"550 5.1.1 no such user\0");
}

#[test]
fn edits_are_collected_at_eom_and_refused_elsewhere() {
    let mut script = script(
        r#"
        function policy.eoh(ctx) ctx:add_header("X-Filter", "ok") end
        function policy.eom(ctx) ctx:add_header("X-Filter", "ok") end"#,
    );
    assert_eq!(
        script
            .run(Event::Eoh, Duration::from_secs(60))
            .unwrap_err()
            .kind,
        FaultKind::Error
    );
    assert_eq!(script.eom(), Ok(Verdict::Continue));
    let edits = script
        .facts
        .borrow()
        .message
        .as_ref()
        .unwrap()
        .edits
        .clone();
    assert_eq!(
        edits,
        [Edit::AddHeader {
            name: b"X-Filter".to_vec(),
            value: b"ok".to_vec()
        }]
    );
}

#[test]
fn an_edit_that_the_mta_did_not_offer_is_an_error() {
    let mut script = script("function policy.eom(ctx) ctx:replace_body('x') end");
    script.facts.borrow_mut().actions = 0x01;
    assert_eq!(script.eom().unwrap_err().kind, FaultKind::Error);
}

#[test]
fn every_runaway_script_ends_at_its_deadline_and_the_interpreter_lives_on() {
    for (name, body) in [
        ("loop", "while true do end"),
        (
            "pcall loop",
            "while true do pcall(function() while true do end end) end",
        ),
        (
            "coroutine",
            "coroutine.wrap(function() while true do end end)()",
        ),
        (
            "pattern",
            "return string.find(string.rep('a', 40), string.rep('a?', 40) .. string.rep('a', 40) .. 'b')",
        ),
        ("table.move", "table.move({}, 1, 2^50, 2)"),
        ("sleep", "while true do milter.sleep(0) end"),
    ] {
        let mut script = script(&format!(
            "function policy.eom(ctx) {body} end\nfunction policy.eoh(ctx) return milter.REJECT end"
        ));
        let fault = script
            .run(Event::Eom, Duration::from_millis(200))
            .expect_err(name);
        assert!(
            matches!(fault.kind, FaultKind::Timeout | FaultKind::Error),
            "{name}: {fault:?}"
        );
        assert_eq!(
            script.run(Event::Eoh, Duration::from_secs(60)),
            Ok(Verdict::Reject),
            "after {name}"
        );
    }
}

#[test]
fn memory_is_bounded_and_given_back() {
    let mut script = script(
        "function policy.eom(ctx) local t = {} while true do t[#t + 1] = string.rep('x', 100000) .. #t end end
        function policy.eoh(ctx) return milter.REJECT end",
    );
    assert_eq!(script.eom().unwrap_err().kind, FaultKind::Memory);
    assert_eq!(
        script.run(Event::Eoh, Duration::from_secs(60)),
        Ok(Verdict::Reject)
    );
}

#[test]
fn sleeping_suspends_the_call() {
    let mut script = script("function policy.eom(ctx) milter.sleep(30) end");
    script.facts.borrow_mut().callback = Some(Callback::Eom);
    let far = Instant::now() + Duration::from_secs(60);
    let Progress::Suspended(call) = script
        .interpreter
        .start(&mut script.context, Event::Eom, far)
    else {
        panic!("suspended")
    };
    assert!(matches!(call.wake, Wake::At(_)));
    script.interpreter.cancel(&mut script.context, call);
}

#[test]
fn nothing_outside_the_policy_can_be_reached() {
    for name in [
        "io",
        "dofile",
        "loadfile",
        "debug.sethook",
        "os.execute",
        "string.dump",
        "package",
    ] {
        let mut script = script(&format!(
            "function policy.eom(ctx) local f = {name}; if f ~= nil then return milter.REJECT end end"
        ));
        assert_ne!(script.eom(), Ok(Verdict::Reject), "{name}");
    }
    let mut bytecode = script(
        "function policy.eom(ctx) if load('\\27Lua', 'x') then return milter.REJECT end end",
    );
    assert_eq!(bytecode.eom(), Ok(Verdict::Continue));
}

#[test]
fn names_that_do_not_exist_are_errors() {
    let mut script = script(
        "function policy.eom(ctx) return milter.REJEKT end\nfunction policy.eoh(ctx) return ctx.sendr end",
    );
    assert!(script.eom().unwrap_err().text.contains("REJECT"));
    assert_eq!(
        script
            .run(Event::Eoh, Duration::from_secs(60))
            .unwrap_err()
            .kind,
        FaultKind::Error
    );
    assert!(
        checked("local policy = {} function policy.heloo() end return policy")
            .unwrap_err()
            .to_string()
            .contains("helo")
    );
    assert!(
        checked("local policy = {")
            .unwrap_err()
            .to_string()
            .contains("policy.lua:1")
    );
}

#[test]
fn a_bundle_crosses_a_pipe_unchanged() {
    let bundle = checked("return { collect = {\"sender\"}, eom = function() end }").unwrap();
    let copy = Bundle::decode(&bundle.encode()).unwrap();
    assert_eq!(copy.source, bundle.source);
    assert_eq!(copy.wants, bundle.wants);
    assert!(
        copy.wants.has(Callback::Eom)
            && !copy.wants.has(Callback::Mail)
            && copy.wants.collect.sender
    );
}

#[test]
fn the_manual_page_tells_of_everything_that_a_policy_can_use() {
    let page = include_str!("../../man/pmx-policy.7");
    let callbacks = Callback::ALL.map(|callback| format!("policy.{}", callback.name()));
    let settings = load::SETTINGS.map(|name| format!("policy.{name}"));
    let fields = api::ctx::FIELDS.map(|name| format!("ctx.{name}"));
    let methods = api::ctx::METHODS.map(|name| format!("ctx:{name}"));
    let verdicts = api::milter::VERDICTS.map(|(name, _)| format!("milter.{name}"));
    let levels = api::log::LEVELS.map(|(name, _)| format!("log.{name}"));
    let others = ["milter.sleep", "list.load", "list:contains", "require"].map(str::to_owned);
    let all = callbacks
        .iter()
        .chain(&settings)
        .chain(&fields)
        .chain(&methods)
        .chain(&verdicts)
        .chain(&levels)
        .chain(&others);
    for name in all {
        let told = page.lines().any(|line| {
            line.starts_with(".It ") && line.contains(name.as_str())
                || line.starts_with(".Fn ") && line.contains(name.as_str())
        });
        assert!(told, "man/pmx-policy.7 does not explain {name}");
    }
}

#[test]
fn the_examples_of_the_manual_page_are_policies() {
    let page = include_str!("../../man/pmx-policy.7");
    let examples = page.split_once(".Sh EXAMPLES").unwrap().1;
    let mut count = 0;
    for text in examples.split(".Bd -literal -offset indent\n").skip(1) {
        let text = text.split_once(".Ed").unwrap().0;
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("watched.txt"), "a@example.org\n").unwrap();
        let path = dir.path().join("policy.lua");
        std::fs::write(
            &path,
            format!("local policy = {{}}\n{text}\nreturn policy\n"),
        )
        .unwrap();
        check_here(&path, &limits()).unwrap();
        count += 1;
    }
    assert_eq!(count, 4);
}

#[test]
fn what_many_connections_leave_behind_stays_small() {
    let mut script = script(
        r#"
        function policy.mail(ctx, sender, args) end
        function policy.rcpt(ctx, recipient, args) end
        function policy.header(ctx, name, value) end
        function policy.eom(ctx) ctx:add_header("X-Filter", "ok") end"#,
    );
    let mut most = 0;
    for _ in 0..12_000 {
        // Each connection has a ctx with a finalizer: it outlives one collection.
        script.facts = Rc::new(RefCell::new(Facts {
            actions: 0x1ff,
            ..Facts::default()
        }));
        script.context = script.interpreter.context(Rc::clone(&script.facts));
        for _ in 0..2 {
            let minute = Duration::from_secs(60);
            for event in [
                Event::Mail {
                    sender: b"a@b.example",
                    args: vec![b"SIZE=100"],
                },
                Event::Rcpt {
                    recipient: b"user@example.org",
                    args: vec![],
                },
                Event::Header {
                    name: b"Subject",
                    value: b"test",
                },
                Event::Eom,
            ] {
                assert_eq!(script.run(event, minute), Ok(Verdict::Continue));
            }
            script.facts.borrow_mut().message = None;
            script.interpreter.end_message(&mut script.context);
        }
        most = most.max(script.interpreter.memory_used());
    }
    println!("most {most}");
    assert!(most < 1 << 20, "{most} bytes");
}
