//! `ctx`: what a policy may read of its session and message.
//!
//! One userdata a connection. Data of a step exists if the policy has its callback or names it in `policy.collect`; reading anything else is an
//! error that names the line to add, never a silent nil.
#![forbid(unsafe_code)]

use std::cell::{Ref, RefMut};
use std::rc::Rc;

use mlua::{
    Lua, LuaString, MetaMethod, Table, UserData, UserDataFields, UserDataMethods, Value, Variadic,
};

use super::super::context::Inner;
use super::super::event::Callback;
use super::super::facts::{Facts, Header, Message};
use super::super::verdict::Verdict;
use super::milter::VerdictValue;
use super::{bytes, edits, fail};
use crate::config::nearest::did_you_mean;
use crate::milter::reply_text::{ReplyText, ReplyTextError};

/// The fields of `ctx`.
pub(crate) const FIELDS: [&str; 9] = [
    "queue_id",
    "client",
    "helo",
    "sender",
    "recipients",
    "headers",
    "body",
    "session",
    "message",
];
/// The methods of `ctx`.
pub(crate) const METHODS: [&str; 13] = [
    "macro",
    "header",
    "reply",
    "add_header",
    "insert_header",
    "change_header",
    "delete_header",
    "change_sender",
    "add_recipient",
    "delete_recipient",
    "replace_body",
    "quarantine",
    "progress",
];

/// The registry's name of the function behind `ctx:progress`.
pub(crate) const PROGRESS: &str = "pmx.progress";

/// The userdata.
pub(crate) struct Ctx(pub(crate) Rc<Inner>);

impl Ctx {
    /// What is known now; an error when the connection has ended.
    pub(super) fn facts<R>(
        &self,
        lua: &Lua,
        read: impl FnOnce(Ref<'_, Facts>) -> mlua::Result<R>,
    ) -> mlua::Result<R> {
        let facts = self.0.facts.borrow();
        let Some(facts) = facts.as_ref() else {
            return Err(ended(lua));
        };
        match facts.try_borrow() {
            Ok(facts) => read(facts),
            Err(_) => Err(fail(lua, "ctx is in use")),
        }
    }

    pub(super) fn facts_mut<R>(
        &self,
        lua: &Lua,
        change: impl FnOnce(RefMut<'_, Facts>) -> mlua::Result<R>,
    ) -> mlua::Result<R> {
        let facts = self.0.facts.borrow();
        let Some(facts) = facts.as_ref() else {
            return Err(ended(lua));
        };
        match facts.try_borrow_mut() {
            Ok(facts) => change(facts),
            Err(_) => Err(fail(lua, "ctx is in use")),
        }
    }

    fn collected(
        &self,
        lua: &Lua,
        field: &str,
        callback: Callback,
        collect: bool,
    ) -> mlua::Result<()> {
        if collect || self.0.wants.has(callback) {
            return Ok(());
        }
        Err(fail(
            lua,
            format_args!("ctx.{field} is not collected: add policy.collect = {{\"{field}\"}}"),
        ))
    }

    fn client(&self, lua: &Lua) -> mlua::Result<Option<Table>> {
        self.collected(
            lua,
            "client",
            Callback::Connect,
            self.0.wants.collect.client,
        )?;
        self.facts(lua, |facts| {
            let Some(client) = facts.client.as_deref() else {
                return Ok(None);
            };
            let table = lua.create_table_with_capacity(0, 4)?;
            table.raw_set("host", lua.create_string(&client.host)?)?;
            table.raw_set("family", client.family.name())?;
            table.raw_set(
                "address",
                client
                    .address
                    .as_ref()
                    .map(|text| lua.create_string(text))
                    .transpose()?,
            )?;
            table.raw_set("port", client.port)?;
            Ok(Some(table))
        })
    }

    fn helo(&self, lua: &Lua) -> mlua::Result<Option<LuaString>> {
        self.collected(lua, "helo", Callback::Helo, self.0.wants.collect.helo)?;
        self.facts(lua, |facts| {
            facts
                .helo
                .as_ref()
                .map(|name| lua.create_string(name))
                .transpose()
        })
    }

    /// Something of the message in progress; nil outside one.
    fn of_message<R>(
        &self,
        lua: &Lua,
        read: impl FnOnce(&Message) -> mlua::Result<Option<R>>,
    ) -> mlua::Result<Option<R>> {
        self.facts(lua, |facts| facts.message.as_deref().map_or(Ok(None), read))
    }

    fn sender(&self, lua: &Lua) -> mlua::Result<Option<LuaString>> {
        self.collected(lua, "sender", Callback::Mail, self.0.wants.collect.sender)?;
        self.of_message(lua, |message| {
            message
                .sender
                .as_ref()
                .map(|sender| lua.create_string(sender))
                .transpose()
        })
    }

    fn recipients(&self, lua: &Lua) -> mlua::Result<Option<Table>> {
        self.collected(
            lua,
            "recipients",
            Callback::Rcpt,
            self.0.wants.collect.recipients,
        )?;
        self.of_message(lua, |message| {
            let recipients = message.recipients.as_deref().unwrap_or(&[]);
            let list = lua.create_table_with_capacity(recipients.len(), 0)?;
            for recipient in recipients {
                list.raw_push(lua.create_string(recipient.address())?)?;
            }
            Ok(Some(list))
        })
    }

    fn headers(&self, lua: &Lua) -> mlua::Result<Option<Table>> {
        self.collected(
            lua,
            "headers",
            Callback::Header,
            self.0.wants.collect.headers,
        )?;
        self.of_message(lua, |message| {
            let list = lua.create_table_with_capacity(message.headers.len(), 0)?;
            for Header { name, value } in message.headers.iter() {
                let header = lua.create_table_with_capacity(0, 2)?;
                header.raw_set("name", lua.create_string(name)?)?;
                header.raw_set("value", lua.create_string(value)?)?;
                list.raw_push(header)?;
            }
            Ok(Some(list))
        })
    }

    fn header(&self, lua: &Lua, name: &Value) -> mlua::Result<Option<LuaString>> {
        self.collected(
            lua,
            "headers",
            Callback::Header,
            self.0.wants.collect.headers,
        )?;
        let wanted = bytes(lua, "ctx:header", "name", Some(name))?;
        self.of_message(lua, |message| {
            let found = message
                .headers
                .iter()
                .find(|header| header.name.eq_ignore_ascii_case(&wanted));
            found
                .map(|header| lua.create_string(header.value))
                .transpose()
        })
    }

    fn body(&self, lua: &Lua) -> mlua::Result<Option<LuaString>> {
        self.collected(lua, "body", Callback::Body, self.0.wants.collect.body)?;
        self.of_message(lua, |message| lua.create_string(&message.body).map(Some))
    }

    fn kept(&self, lua: &Lua, table: &std::cell::RefCell<Option<Table>>) -> mlua::Result<Table> {
        if self.0.facts.borrow().is_none() {
            return Err(ended(lua));
        }
        if let Some(table) = table.borrow().as_ref() {
            return Ok(table.clone());
        }
        let new = lua.create_table()?;
        *table.borrow_mut() = Some(new.clone());
        Ok(new)
    }

    fn reply(lua: &Lua, arguments: &[Value]) -> mlua::Result<VerdictValue> {
        let call = "ctx:reply";
        let code = bytes(lua, call, "code", arguments.first())?;
        let xcode = match arguments.get(1) {
            None | Some(Value::Nil) => None,
            given => Some(bytes(lua, call, "xcode", given)?),
        };
        let lines = arguments
            .iter()
            .skip(2)
            .map(|line| bytes(lua, call, "line", Some(line)));
        let lines = lines.collect::<mlua::Result<Vec<_>>>()?;
        match ReplyText::new(&code, xcode.as_deref(), lines) {
            Ok(text) => Ok(VerdictValue(Verdict::Reply(text))),
            Err(error) => Err(fail(
                lua,
                format_args!("{call}: {}", reply_text_error(&error, &code)),
            )),
        }
    }
}

fn reply_text_error(error: &ReplyTextError, code: &[u8]) -> String {
    match error {
        ReplyTextError::Code => {
            format!("code must be three digits that begin with 4 or 5, not \"{}\"", code.escape_ascii())
        }
        ReplyTextError::Xcode => {
            "xcode must be like \"5.1.1\" and of the code's class (5.x.x with 5xx, 4.x.x with 4xx), or nil".to_owned()
        }
        ReplyTextError::LineCount(count) => format!("takes 1 to 32 lines of text, not {count}"),
        ReplyTextError::Line(line) => format!("line {line} is too long (980 bytes) or has control characters"),
    }
}

fn ended(lua: &Lua) -> mlua::Error {
    fail(
        lua,
        "this ctx belongs to a connection that has ended; do not keep ctx in a global",
    )
}

impl UserData for Ctx {
    fn add_fields<F: UserDataFields<Self>>(fields: &mut F) {
        fields.add_field_method_get("queue_id", |lua, this| {
            this.facts(lua, |facts| {
                facts.queue_id().map(|id| lua.create_string(id)).transpose()
            })
        });
        fields.add_field_method_get("client", |lua, this| this.client(lua));
        fields.add_field_method_get("helo", |lua, this| this.helo(lua));
        fields.add_field_method_get("sender", |lua, this| this.sender(lua));
        fields.add_field_method_get("recipients", |lua, this| this.recipients(lua));
        fields.add_field_method_get("headers", |lua, this| this.headers(lua));
        fields.add_field_method_get("body", |lua, this| this.body(lua));
        fields.add_field_method_get("session", |lua, this| this.kept(lua, &this.0.session));
        fields.add_field_method_get("message", |lua, this| this.kept(lua, &this.0.message));
    }

    fn add_methods<M: UserDataMethods<Self>>(methods: &mut M) {
        methods.add_method("macro", |lua, this, name: Value| {
            let name = bytes(lua, "ctx:macro", "name", Some(&name))?;
            this.facts(lua, |facts| {
                facts
                    .macros
                    .get(&name)
                    .map(|value| lua.create_string(value))
                    .transpose()
            })
        });
        methods.add_method("header", |lua, this, name: Value| this.header(lua, &name));
        methods.add_method("reply", |lua, _, arguments: Variadic<Value>| {
            Ctx::reply(lua, &arguments)
        });
        edits::register(methods);
        methods.add_meta_method(MetaMethod::Index, |lua, _, key: Value| {
            let name = key.as_string().map_or_else(
                || key.type_name().to_owned(),
                mlua::LuaString::to_string_lossy,
            );
            if name == "progress" {
                return lua.named_registry_value::<Value>(PROGRESS);
            }
            let known = FIELDS.into_iter().chain(METHODS);
            Err(fail(
                lua,
                format_args!(
                    "ctx has no field \"{name}\"{}",
                    did_you_mean(&name, "ctx.", known)
                ),
            ))
        });
        methods.add_meta_method(MetaMethod::NewIndex, |lua, _, (key, _): (Value, Value)| {
            let name = key
                .as_string()
                .map_or_else(|| "x".to_owned(), mlua::LuaString::to_string_lossy);
            let text = format!(
                "ctx cannot be written: keep it in ctx.session.{name} or ctx.message.{name}"
            );
            Err::<(), _>(fail(lua, text))
        });
    }
}
