//! One Lua state with a policy in it: runs the callbacks of many connections, one at a time, each as a coroutine.
//!
//! A callback that waits, or that has used up its slice, is handed back [`Suspended`]; the caller's loop resumes it. A callback that fails leaves
//! the interpreter as it was. Coroutines are reused, and none is kept for a connection at rest.
#![forbid(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mlua::state::{GcIncParams, GcMode};
use mlua::{Function, IntoLuaMulti, Lua, Table, Thread, Value};

use super::api::milter::{VerdictValue, token};
use super::bundle::Bundle;
use super::context::Context;
use super::error::PolicyError;
use super::event::{Callback, Event};
use super::facts::Facts;
use super::lists::Lists;
use super::load::{self, Files, Loaded};
use super::sandbox::{self, Shared};
use super::verdict::{Fault, FaultKind, Outcome, Verdict};
use super::wants::Wants;
use crate::sys::lua_guard;

/// Coroutines kept for the next callbacks: as many as are likely to be suspended at once.
const MOST_SPARE: usize = 16;

/// Messages between two looks at the heap.
const PACE_EVERY: u32 = 64;
/// Up to here a heap may grow by more than to twice what is kept before it is collected.
const SMALL_HEAP: usize = 1 << 20;
/// The collector's pause: in percent of what was kept, how large a heap may become before the next collection. The first one is Lua's own.
const PAUSES: (usize, usize) = (200, 1000);

/// What an interpreter may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of its Lua state: `interpreter_memory_limit`. Edits of one message have as much again.
    pub memory: usize,
    /// How long the top level of a policy may run.
    pub callback_timeout: Duration,
    /// How long a callback may run before the others have their turn.
    pub slice: Duration,
}

impl Default for Limits {
    /// The defaults of `pmx.conf`.
    fn default() -> Limits {
        Limits {
            memory: 256 << 20,
            callback_timeout: Duration::from_secs(8),
            slice: Duration::from_millis(10),
        }
    }
}

/// A callback that has not ended: give it back to [`Interpreter::resume`] or [`Interpreter::cancel`].
#[must_use]
pub struct Suspended {
    /// When to resume it.
    pub wake: Wake,
    thread: Thread,
    callback: Callback,
}

/// When a suspended callback goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    /// At this time or soon after (`milter.sleep`); never later than the deadline.
    At(Instant),
    /// Its slice is used up: when the others had their turn.
    Yielded,
    /// After a progress packet (`ctx:progress`).
    Progress,
}

/// What a call came to.
#[must_use]
pub enum Progress {
    /// It ended.
    Done(Outcome),
    /// It waits.
    Suspended(Suspended),
}

/// A Lua state with a policy. Stays on the thread that made it.
pub struct Interpreter {
    // First, so that it is dropped before the state.
    spare: RefCell<Vec<Thread>>,
    callbacks: [Option<Function>; 12],
    wants: Rc<Wants>,
    limits: Limits,
    shared: Rc<Shared>,
    /// Messages that ended.
    ended: Cell<u32>,
    /// The collector's pause in percent, as last set.
    pause: Cell<usize>,
    lua: Lua,
}

impl Interpreter {
    /// Builds a state from the bytes that the checker read. `seed` is for `math.random`: take it from the kernel after the fork.
    ///
    /// # Errors
    /// As for the checker; with the same bytes and limits only memory or time can have changed.
    pub fn new(
        bundle: &Arc<Bundle>,
        lists: &Lists,
        limits: &Limits,
        seed: u64,
    ) -> Result<Interpreter, PolicyError> {
        let shared = Rc::new(Shared {
            files: Files::Bundle(Arc::clone(bundle), lists.clone()),
            loading: Cell::new(false),
            current: RefCell::new(None),
        });
        let lua =
            sandbox::make(&shared, limits.memory, seed).map_err(|error| PolicyError::Lua {
                path: bundle.path.clone(),
                text: load::describe(&error),
            })?;
        let Loaded { callbacks, wants } =
            load::load(&lua, &shared, &bundle.path, &bundle.source, limits)?;
        let interpreter = Interpreter {
            spare: RefCell::new(Vec::new()),
            callbacks,
            wants: Rc::new(wants),
            limits: limits.clone(),
            shared,
            ended: Cell::new(0),
            pause: Cell::new(0),
            lua,
        };
        interpreter.pace();
        Ok(interpreter)
    }

    /// What the policy wants of the MTA.
    pub fn wants(&self) -> &Wants {
        &self.wants
    }

    /// A connection's side of the policy. The facts stay the session's to fill.
    pub fn context(&self, facts: Rc<RefCell<Facts>>) -> Context {
        Context::new(facts, Rc::clone(&self.wants), self.limits.memory)
    }

    /// Calls the event's callback. Without one the answer is [`Verdict::Continue`]. Sets [`Facts::callback`] while it runs, and drops the message's edits when
    /// it fails.
    pub fn start(&self, ctx: &mut Context, event: Event<'_>, deadline: Instant) -> Progress {
        let callback = event.callback();
        let Some(function) = self
            .callbacks
            .get(callback as usize)
            .and_then(Option::as_ref)
        else {
            return Progress::Done(Ok(Verdict::Continue));
        };
        let running = self.thread(function).and_then(|thread| {
            let lua = &self.lua;
            let inner = Rc::clone(&ctx.inner);
            let userdata = ctx.userdata(lua)?;
            let text = |bytes: &[u8]| lua.create_string(bytes);
            enter(&inner, Some(callback));
            self.shared.current.replace(Some(inner));
            let now = |arguments: mlua::Result<_>| arguments;
            Ok(match event {
                Event::Connect {
                    host,
                    family,
                    address,
                    port,
                } => {
                    let address = address.as_deref().map(text).transpose()?;
                    let arguments = now(Ok((userdata, text(host)?, family.name(), address, port)))?;
                    self.run(thread, callback, deadline, arguments)
                }
                Event::Helo(name) => self.run(thread, callback, deadline, (userdata, text(name)?)),
                Event::Mail { sender, args } => {
                    let arguments = (userdata, text(sender)?, words(lua, &args)?);
                    self.run(thread, callback, deadline, arguments)
                }
                Event::Rcpt { recipient, args } => {
                    let arguments = (userdata, text(recipient)?, words(lua, &args)?);
                    self.run(thread, callback, deadline, arguments)
                }
                Event::Header { name, value } => self.run(
                    thread,
                    callback,
                    deadline,
                    (userdata, text(name)?, text(value)?),
                ),
                Event::Body(chunk) => {
                    self.run(thread, callback, deadline, (userdata, text(chunk)?))
                }
                Event::Unknown(command) => {
                    self.run(thread, callback, deadline, (userdata, text(command)?))
                }
                Event::Data | Event::Eoh | Event::Eom | Event::Abort | Event::Close => {
                    self.run(thread, callback, deadline, userdata)
                }
            })
        });
        self.finish(
            ctx,
            running.unwrap_or_else(|error| Progress::Done(Err(self.fault(&error)))),
        )
    }

    /// Goes on with a suspended callback, after its wake time. A callback whose deadline has passed meanwhile ends with a fault.
    pub fn resume(&self, ctx: &mut Context, call: Suspended, deadline: Instant) -> Progress {
        let Suspended {
            thread, callback, ..
        } = call;
        if Instant::now() >= deadline {
            let text = format!(
                "policy.{}: out of time while suspended\n{}",
                callback.name(),
                // Without memory for it the first line still tells the callback.
                lua_guard::traceback(&self.lua, &thread).unwrap_or_default()
            );
            return self.finish(
                ctx,
                Progress::Done(Err(Fault {
                    kind: FaultKind::Timeout,
                    text,
                })),
            );
        }
        enter(&ctx.inner, Some(callback));
        self.shared.current.replace(Some(Rc::clone(&ctx.inner)));
        let progress = self.run(thread, callback, deadline, ());
        self.finish(ctx, progress)
    }

    /// Ends a suspended callback whose connection has gone. Nothing of it runs any more, not its to-be-closed variables either.
    pub fn cancel(&self, ctx: &mut Context, call: Suspended) {
        // The coroutine becomes garbage: to close it would mean to run the policy's code once more.
        drop(call);
        enter(&ctx.inner, None);
    }

    /// Forgets `ctx.message`: the message is over.
    pub fn end_message(&self, ctx: &mut Context) {
        ctx.forget_message();
        let ended = self.ended.get().wrapping_add(1);
        self.ended.set(ended);
        if ended.is_multiple_of(PACE_EVERY) {
            self.pace();
        }
    }

    /// Lets a small heap grow by more before it is collected: a body chunk is as large as all that a policy keeps, and would start a collection by
    /// itself. A large heap is collected as usual, so that garbage never outweighs what is kept.
    ///
    /// The pause must fall as the heap grows. What is kept is also what waits for its finalizer, the `ctx` of every connection since the last
    /// collection: with one pause for all small heaps each collection keeps more than the one before, and the heap grows far beyond small.
    fn pace(&self) {
        let (least, most) = PAUSES;
        let room = SMALL_HEAP * 100 / self.lua.used_memory().max(1);
        // In steps: a small change is not worth a call.
        let pause = room.clamp(least, most) / 100 * 100;
        if self.pause.replace(pause) != pause {
            let percent = i32::try_from(pause).unwrap_or(i32::MAX);
            self.lua
                .gc_set_mode(GcMode::Incremental(GcIncParams::default().pause(percent)));
        }
    }

    /// Bytes that the Lua state holds now.
    pub fn memory_used(&self) -> usize {
        self.lua.used_memory()
    }

    fn thread(&self, function: &Function) -> mlua::Result<Thread> {
        match self.spare.borrow_mut().pop() {
            Some(thread) => thread.reset(function.clone()).map(|()| thread),
            None => self.lua.create_thread(function.clone()),
        }
    }

    fn run(
        &self,
        thread: Thread,
        callback: Callback,
        deadline: Instant,
        arguments: impl IntoLuaMulti,
    ) -> Progress {
        let (result, watched) =
            lua_guard::watch(Some(&thread), deadline, self.limits.slice, || {
                thread.resume::<(Value, Value)>(arguments)
            });
        if watched.late {
            let text = match &result {
                Err(error) => format!("policy.{}: {}", callback.name(), load::describe(error)),
                Ok(_) => format!("policy.{}: out of time", callback.name()),
            };
            return Progress::Done(Err(Fault {
                kind: FaultKind::Timeout,
                text,
            }));
        }
        let (first, second) = match result {
            Ok(values) => values,
            // A coroutine that died of an error is not reused: it may have died with its hooks off.
            Err(error) => return Progress::Done(Err(self.fault(&error))),
        };
        if watched.sliced {
            return Progress::Suspended(Suspended {
                wake: Wake::Yielded,
                thread,
                callback,
            });
        }
        if first == token() {
            let wake = match second {
                Value::Number(seconds) => {
                    let wake = Duration::try_from_secs_f64(seconds)
                        .ok()
                        .and_then(|sleep| Instant::now().checked_add(sleep));
                    Wake::At(wake.unwrap_or(deadline).min(deadline))
                }
                _ => Wake::Progress,
            };
            return Progress::Suspended(Suspended {
                wake,
                thread,
                callback,
            });
        }
        let mut spare = self.spare.borrow_mut();
        if spare.len() < MOST_SPARE {
            spare.push(thread);
        }
        Progress::Done(verdict(callback, &first))
    }

    fn finish(&self, ctx: &mut Context, progress: Progress) -> Progress {
        self.shared.current.replace(None);
        if let Progress::Done(outcome) = &progress {
            enter(&ctx.inner, None);
            if outcome.is_err() {
                drop_edits(ctx);
            }
        }
        progress
    }

    fn fault(&self, error: &mlua::Error) -> Fault {
        let kind = if load::error_is_memory(error) {
            FaultKind::Memory
        } else {
            FaultKind::Error
        };
        if kind == FaultKind::Memory {
            // What the callback held is garbage now; the next one must not find the state full. A failure here shows in that one.
            let _ = self.lua.gc_collect();
        }
        Fault {
            kind,
            text: load::describe(error),
        }
    }
}

/// Tells the facts which callback runs.
fn enter(inner: &super::context::Inner, callback: Option<Callback>) {
    if let Some(facts) = inner.facts.borrow().as_ref()
        && let Ok(mut facts) = facts.try_borrow_mut()
    {
        facts.callback = callback;
    }
}

fn drop_edits(ctx: &Context) {
    ctx.inner.edit_bytes.set(0);
    if let Some(facts) = ctx.inner.facts.borrow().as_ref()
        && let Ok(mut facts) = facts.try_borrow_mut()
        && let Some(message) = facts.message.as_deref_mut()
    {
        message.edits.clear();
    }
}

fn words(lua: &Lua, args: &[&[u8]]) -> mlua::Result<Table> {
    let list = lua.create_table_with_capacity(args.len(), 0)?;
    for word in args {
        list.raw_push(lua.create_string(word)?)?;
    }
    Ok(list)
}

/// What a callback returned, as a verdict that its stage knows.
fn verdict(callback: Callback, value: &Value) -> Outcome {
    let name = callback.name();
    let wrong = |text: String| {
        Err(Fault {
            kind: FaultKind::Error,
            text,
        })
    };
    match value {
        Value::Nil => Ok(Verdict::Continue),
        Value::UserData(data) => match data.borrow::<VerdictValue>() {
            Ok(value) if value.0.allowed_at(callback) => Ok(value.0.clone()),
            Ok(value) => wrong(format!(
                "policy.{name} returned a verdict that {name} does not know: {}",
                value.0.name()
            )),
            Err(_) => wrong(format!(
                "policy.{name} returned an object that is not a verdict; return nothing, milter.ACCEPT and the like, or ctx:reply(...)"
            )),
        },
        other => wrong(format!(
            "policy.{name} returned a {}; return nothing, milter.ACCEPT and the like, or ctx:reply(...)",
            other.type_name()
        )),
    }
}
