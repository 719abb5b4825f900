//! What a session is to its policy: the `ctx` of one connection, and the two tables that a policy may keep in it.
//!
//! A context costs little until a callback runs: the userdata is made at the first one, the tables at the first touch. It dies with its
//! connection: a `ctx` that a policy kept in a global only tells so.
#![forbid(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use mlua::{AnyUserData, Lua, Table};

use super::facts::Facts;
use super::wants::Wants;

/// The part that the userdata shares with [`Context`].
pub(super) struct Inner {
    /// `None` once the connection has ended.
    pub(super) facts: RefCell<Option<Rc<RefCell<Facts>>>>,
    /// `ctx.session`
    pub(super) session: RefCell<Option<Table>>,
    /// `ctx.message`
    pub(super) message: RefCell<Option<Table>>,
    /// What the policy wants: which data exists.
    pub(super) wants: Rc<Wants>,
    /// Bytes of the edits of this message: they lie outside the interpreter's own account.
    pub(super) edit_bytes: Cell<usize>,
    /// The most that edits may hold: `interpreter_memory_limit`.
    pub(super) edit_limit: usize,
}

impl Inner {
    /// The queue id, for log lines.
    pub(super) fn queue_id(&self) -> Option<String> {
        let facts = self.facts.borrow();
        let facts = facts.as_ref()?.try_borrow().ok()?;
        facts
            .queue_id()
            .map(|id| String::from_utf8_lossy(id).into_owned())
    }
}

/// One connection as its policy sees it. Belongs to the interpreter that made it.
pub struct Context {
    pub(super) inner: Rc<Inner>,
    userdata: Option<AnyUserData>,
}

impl Context {
    pub(super) fn new(facts: Rc<RefCell<Facts>>, wants: Rc<Wants>, edit_limit: usize) -> Context {
        let inner = Inner {
            facts: RefCell::new(Some(facts)),
            session: RefCell::new(None),
            message: RefCell::new(None),
            wants,
            edit_bytes: Cell::new(0),
            edit_limit,
        };
        Context {
            inner: Rc::new(inner),
            userdata: None,
        }
    }

    /// The `ctx` argument.
    pub(super) fn userdata(&mut self, lua: &Lua) -> mlua::Result<&AnyUserData> {
        if self.userdata.is_none() {
            self.userdata =
                Some(lua.create_userdata(super::api::ctx::Ctx(Rc::clone(&self.inner)))?);
        }
        self.userdata
            .as_ref()
            .ok_or(mlua::Error::UserDataDestructed)
    }

    pub(super) fn forget_message(&self) {
        self.inner.message.take();
        self.inner.edit_bytes.set(0);
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // The tables may lead back to ctx: without this a policy that stores ctx in ctx.session would leak both.
        self.inner.facts.take();
        self.inner.session.take();
        self.inner.message.take();
    }
}
