//! The guard around a policy: nothing that a script does keeps a thread busy past its deadline.
//!
//! Two things look at the clock: a count hook every `HOOK_INSTRUCTIONS` Lua instructions, and the guarded libraries (C, `src/policy/lua54`) every so
//! many steps of their loops. Past the deadline both raise an error, and the hook then runs at every instruction: `pcall` swallows
//! one error, the next instruction raises another. After a slice of running, the hook yields the callback's coroutine where it may.
//!
//! Everything is per thread and armed for the length of one call, [`watch`]. Fails only when Lua cannot allocate.

use std::cell::Cell;
use std::ffi::c_int;
use std::time::{Duration, Instant};

use mlua::ffi::{self, lua_State};
use mlua::{Function, Lua, Thread};

/// Lua instructions between two looks at the clock: about 5 to 10 microseconds.
const HOOK_INSTRUCTIONS: c_int = 1000;

unsafe extern "C" {
    fn pmx_guard_clock(look: unsafe extern "C-unwind" fn(*mut lua_State));
    fn pmx_guard_enter(top: *mut lua_State);
    fn pmx_guard_late();
}

unsafe extern "C-unwind" {
    fn pmx_open_guarded(state: *mut lua_State) -> c_int;
    fn pmx_yield(state: *mut lua_State) -> c_int;
}

struct Watch {
    deadline: Cell<Option<Instant>>,
    slice: Cell<Duration>,
    slice_end: Cell<Option<Instant>>,
    top: Cell<*mut lua_State>,
    late: Cell<bool>,
    sliced: Cell<bool>,
}

thread_local! {
    static WATCH: Watch = const {
        Watch {
            deadline: Cell::new(None),
            slice: Cell::new(Duration::MAX),
            slice_end: Cell::new(None),
            top: Cell::new(std::ptr::null_mut()),
            late: Cell::new(false),
            sliced: Cell::new(false),
        }
    };
}

/// What a watched call did beside its result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watched {
    /// It passed its deadline, whatever the script made of the error.
    pub late: bool,
    /// The hook suspended it: it wants to be resumed when others had their turn.
    pub sliced: bool,
}

/// What a look at the clock says.
enum Look {
    Fine,
    SliceUsedUp,
    Late,
}

impl Watch {
    fn look(&self) -> Look {
        let Some(deadline) = self.deadline.get() else {
            return Look::Fine;
        };
        let now = Instant::now();
        if self.late.get() || now >= deadline {
            self.late.set(true);
            return Look::Late;
        }
        match self.slice_end.get() {
            // The slice begins at the first look: most callbacks end before it, and never read the clock.
            None => self.slice_end.set(now.checked_add(self.slice.get())),
            Some(end) if now >= end => return Look::SliceUsedUp,
            Some(_) => {}
        }
        Look::Fine
    }
}

/// Raises the error that ends a late callback. `level` as for `luaL_where`.
///
/// # Safety
/// `state` runs, and the caller's frames hold nothing to drop: they are left by a long jump.
unsafe fn raise_late(state: *mut lua_State, level: c_int) -> ! {
    // SAFETY: `state` runs (our caller); both frames between here and Lua hold nothing to drop. A state of this interpreter has room for
    // LUA_MINSTACK values in a hook and in a C function.
    unsafe {
        pmx_guard_late();
        ffi::lua_sethook(state, Some(count_hook), ffi::LUA_MASKCOUNT, 1);
        ffi::luaL_where(state, level);
        ffi::lua_pushstring(state, c"out of time".as_ptr());
        ffi::lua_concat(state, 2);
        ffi::lua_error(state)
    }
}

unsafe extern "C-unwind" fn count_hook(state: *mut lua_State, _event: *mut ffi::lua_Debug) {
    let (look, ours) = WATCH.with(|watch| (watch.look(), watch.top.get() == state));
    match look {
        // SAFETY: Lua calls its hook with the running state; nothing here needs dropping.
        Look::Late => unsafe { raise_late(state, 0) },
        // SAFETY: as above. A hook may yield without values (lua_yield, 5.4 manual), where the running coroutine may.
        Look::SliceUsedUp if ours => unsafe {
            rest(state);
            if ffi::lua_isyieldable(state) != 0 {
                WATCH.with(|watch| watch.sliced.set(true));
                ffi::lua_yield(state, 0);
            }
        },
        // SAFETY: as above.
        Look::Fine | Look::SliceUsedUp => unsafe { rest(state) },
    }
}

/// Puts the hook back to its usual distance.
///
/// # Safety
/// `state` is a live Lua state of this thread.
unsafe fn rest(state: *mut lua_State) {
    // SAFETY: our caller's promise; both calls only touch the state's own fields.
    unsafe {
        if ffi::lua_gethookcount(state) != HOOK_INSTRUCTIONS {
            ffi::lua_sethook(
                state,
                Some(count_hook),
                ffi::LUA_MASKCOUNT,
                HOOK_INSTRUCTIONS,
            );
        }
    }
}

/// The guarded libraries call this when their account of steps is empty.
unsafe extern "C-unwind" fn look_from_library(state: *mut lua_State) {
    match WATCH.with(Watch::look) {
        // SAFETY: the library passes the state that runs it, and keeps nothing that would need dropping across a charge.
        Look::Late => unsafe { raise_late(state, 1) },
        // SAFETY: as above. A C function cannot be suspended here: the hook shall do it at the next instruction.
        Look::SliceUsedUp => unsafe {
            ffi::lua_sethook(state, Some(count_hook), ffi::LUA_MASKCOUNT, 1)
        },
        Look::Fine => {}
    }
}

/// Puts the guarded `string`, `table`, `utf8`, `coroutine`, `setmetatable` and `xpcall` into a state that was made without those libraries, and sets the hook,
/// which every coroutine inherits.
///
/// # Errors
/// When Lua is out of memory.
pub fn install(lua: &Lua) -> mlua::Result<()> {
    // SAFETY: pmx_open_guarded is a lua_CFunction that keeps Lua's rules; mlua calls it protected.
    let open = unsafe { lua.create_c_function(pmx_open_guarded) }?;
    open.call::<()>(())?;
    // SAFETY: the function pointer lives as long as the program; it is stored before any script runs and is the same from every thread.
    unsafe { pmx_guard_clock(look_from_library) };
    // SAFETY: the closure gets this interpreter's running state; lua_sethook touches only its hook fields. The main state's hook is what new
    // coroutines inherit.
    unsafe {
        lua.exec_raw::<()>((), |state| {
            ffi::lua_rawgeti(state, ffi::LUA_REGISTRYINDEX, ffi::LUA_RIDX_MAINTHREAD);
            let main = ffi::lua_tothread(state, -1);
            ffi::lua_pop(state, 1);
            ffi::lua_sethook(
                main,
                Some(count_hook),
                ffi::LUA_MASKCOUNT,
                HOOK_INSTRUCTIONS,
            );
            ffi::lua_sethook(
                state,
                Some(count_hook),
                ffi::LUA_MASKCOUNT,
                HOOK_INSTRUCTIONS,
            );
        })
    }
}

/// A function that suspends the callback from its own coroutine with the values it is given. Never shown to a policy.
///
/// # Errors
/// When Lua is out of memory.
pub fn yield_function(lua: &Lua) -> mlua::Result<Function> {
    // SAFETY: pmx_yield is a lua_CFunction that does nothing but lua_yield.
    unsafe { lua.create_c_function(pmx_yield) }
}

/// Runs `call` with the guard armed. `top` is the callback's coroutine, `None` where nothing can be suspended.
pub fn watch<R>(
    top: Option<&Thread>,
    deadline: Instant,
    slice: Duration,
    call: impl FnOnce() -> R,
) -> (R, Watched) {
    /// Disarms also when a panic passes.
    struct Armed;
    impl Drop for Armed {
        fn drop(&mut self) {
            WATCH.with(|watch| {
                watch.deadline.set(None);
                watch.top.set(std::ptr::null_mut());
            });
            // SAFETY: sets two words of this thread.
            unsafe { pmx_guard_enter(std::ptr::null_mut()) };
        }
    }
    let state = top.map_or(std::ptr::null_mut(), Thread::state);
    WATCH.with(|watch| {
        watch.deadline.set(Some(deadline));
        watch.slice.set(slice);
        watch.slice_end.set(None);
        watch.top.set(state);
        watch.late.set(false);
        watch.sliced.set(false);
    });
    let armed = Armed;
    // SAFETY: sets two words of this thread; the pointer is compared, never followed.
    unsafe { pmx_guard_enter(state) };
    let result = call();
    drop(armed);
    WATCH.with(|watch| {
        (
            result,
            Watched {
                late: watch.late.get(),
                sliced: watch.sliced.get(),
            },
        )
    })
}

/// Where a suspended coroutine stands, a line a frame as Lua's own tracebacks have it. Runs nothing of the policy.
///
/// # Errors
/// When Lua is out of memory.
pub fn traceback(lua: &Lua, suspended: &Thread) -> mlua::Result<String> {
    let other = suspended.state();
    // SAFETY: mlua calls the closure protected, with a state that has room for the text; `other` is alive, for `suspended` keeps it, and of
    // the same Lua. luaL_traceback only reads its frames. Nothing here needs dropping when it raises an error.
    let text = unsafe {
        lua.exec_raw::<mlua::LuaString>((), |state| {
            ffi::luaL_traceback(state, other, std::ptr::null(), 0);
        })
    }?;
    Ok(text.to_string_lossy())
}

/// Does the callback's own coroutine run now, not one that the policy made, and not the top level of a policy?
pub fn in_callback_coroutine(lua: &Lua) -> bool {
    let running = lua.current_thread().state();
    WATCH.with(|watch| !watch.top.get().is_null() && watch.top.get() == running)
}
