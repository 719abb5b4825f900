//! The edits of `ctx`, at eom only. Each is checked here, so that the session can write it to the wire as it is.
#![forbid(unsafe_code)]

use mlua::{Lua, UserDataMethods, Value, Variadic};

use super::super::event::Callback;
use super::super::facts::Message;
use super::super::verdict::Edit;
use super::ctx::Ctx;
use super::{at_most, bytes, fail, number, type_name};

/// What an edit costs beside its bytes.
const EDIT_OVERHEAD: usize = 128;
/// The longest value of a header: a reply's payload ends at 65535, and Postfix cuts a header at 60000.
const MOST_HEADER_BYTES: usize = 60_000;
/// The longest reason for quarantine: as a line of a reply.
const MOST_REASON_BYTES: usize = 980;
/// The longest address, with its ESMTP words: some times what an MTA takes.
const MOST_ADDRESS_BYTES: usize = 2048;

pub(super) fn register<M: UserDataMethods<Ctx>>(methods: &mut M) {
    methods.add_method("add_header", |lua, ctx, given: Variadic<Value>| {
        let call = "ctx:add_header";
        at_most(lua, call, &given, 2)?;
        let name = header_name(lua, call, given.first())?;
        let value = header_value(lua, call, given.get(1))?;
        push(lua, ctx, call, Edit::AddHeader { name, value })
    });
    methods.add_method("insert_header", |lua, ctx, given: Variadic<Value>| {
        let call = "ctx:insert_header";
        at_most(lua, call, &given, 3)?;
        let index = number(lua, call, "index", given.first(), 0)?;
        let name = header_name(lua, call, given.get(1))?;
        let value = header_value(lua, call, given.get(2))?;
        push(lua, ctx, call, Edit::InsertHeader { index, name, value })
    });
    methods.add_method("change_header", |lua, ctx, given: Variadic<Value>| {
        let call = "ctx:change_header";
        at_most(lua, call, &given, 3)?;
        let name = header_name(lua, call, given.first())?;
        let nth = number(lua, call, "nth", given.get(1), 1)?;
        let value = header_value(lua, call, given.get(2))?;
        push(lua, ctx, call, Edit::ChangeHeader { nth, name, value })
    });
    methods.add_method("delete_header", |lua, ctx, given: Variadic<Value>| {
        let call = "ctx:delete_header";
        at_most(lua, call, &given, 2)?;
        let name = header_name(lua, call, given.first())?;
        let nth = number(lua, call, "nth", given.get(1), 1)?;
        push(
            lua,
            ctx,
            call,
            Edit::ChangeHeader {
                nth,
                name,
                value: Vec::new(),
            },
        )
    });
    methods.add_method("change_sender", |lua, ctx, given: Variadic<Value>| {
        let call = "ctx:change_sender";
        at_most(lua, call, &given, 2)?;
        let address = address(lua, call, given.first(), true)?;
        let args = esmtp_words(lua, call, given.get(1))?;
        push(lua, ctx, call, Edit::ChangeSender { address, args })
    });
    methods.add_method("add_recipient", |lua, ctx, given: Variadic<Value>| {
        let call = "ctx:add_recipient";
        at_most(lua, call, &given, 2)?;
        let address = address(lua, call, given.first(), false)?;
        let args = esmtp_words(lua, call, given.get(1))?;
        push(lua, ctx, call, Edit::AddRecipient { address, args })
    });
    methods.add_method("delete_recipient", |lua, ctx, given: Variadic<Value>| {
        let call = "ctx:delete_recipient";
        at_most(lua, call, &given, 1)?;
        let address = address(lua, call, given.first(), false)?;
        push(lua, ctx, call, Edit::DeleteRecipient(address))
    });
    methods.add_method("replace_body", |lua, ctx, given: Variadic<Value>| {
        let call = "ctx:replace_body";
        at_most(lua, call, &given, 1)?;
        let body = bytes(lua, call, "body", given.first())?;
        push(lua, ctx, call, Edit::ReplaceBody(body))
    });
    methods.add_method("quarantine", |lua, ctx, given: Variadic<Value>| {
        let call = "ctx:quarantine";
        at_most(lua, call, &given, 1)?;
        let reason = bytes(lua, call, "reason", given.first())?;
        if reason.is_empty()
            || reason.len() > MOST_REASON_BYTES
            || reason.iter().any(u8::is_ascii_control)
        {
            return Err(fail(
                lua,
                format_args!(
                    "{call}: reason must be one line of text, 1 to {MOST_REASON_BYTES} bytes"
                ),
            ));
        }
        push(lua, ctx, call, Edit::Quarantine(reason))
    });
}

fn action_name(edit: &Edit) -> &'static str {
    match edit {
        Edit::AddHeader { .. } | Edit::InsertHeader { .. } => "the adding of headers",
        Edit::ReplaceBody(_) => "the replacing of bodies",
        Edit::AddRecipient { args: None, .. } => "the adding of recipients",
        Edit::AddRecipient { args: Some(_), .. } => "the adding of recipients with ESMTP words",
        Edit::DeleteRecipient(_) => "the deletion of recipients",
        Edit::ChangeHeader { .. } => "the changing of headers",
        Edit::Quarantine(_) => "quarantine",
        Edit::ChangeSender { .. } => "the changing of the sender",
    }
}

fn size(edit: &Edit) -> usize {
    let bytes = match edit {
        Edit::AddHeader { name, value }
        | Edit::InsertHeader { name, value, .. }
        | Edit::ChangeHeader { name, value, .. } => name.len() + value.len(),
        Edit::ChangeSender { address, args } | Edit::AddRecipient { address, args } => {
            address.len() + args.as_ref().map_or(0, Vec::len)
        }
        Edit::DeleteRecipient(bytes) | Edit::ReplaceBody(bytes) | Edit::Quarantine(bytes) => {
            bytes.len()
        }
    };
    bytes + EDIT_OVERHEAD
}

fn push(lua: &Lua, ctx: &Ctx, call: &str, edit: Edit) -> mlua::Result<()> {
    ctx.facts_mut(lua, |mut facts| {
        if facts.callback != Some(Callback::Eom) {
            let here = facts.callback.map_or("here", Callback::name);
            return Err(fail(lua, format_args!("{call}: a message can be changed in policy.eom only, not in {here}")));
        }
        if facts.actions & edit.action() == 0 {
            return Err(fail(lua, format_args!("{call}: the MTA did not offer {}", action_name(&edit))));
        }
        let message = facts.message.get_or_insert_with(|| Box::new(Message::default()));
        if matches!(edit, Edit::ReplaceBody(_)) {
            // The last body counts: the protocol would append.
            message.edits.retain(|other| {
                let replaced = matches!(other, Edit::ReplaceBody(_));
                if replaced {
                    ctx.0.edit_bytes.set(ctx.0.edit_bytes.get().saturating_sub(size(other)));
                }
                !replaced
            });
        }
        let bytes = ctx.0.edit_bytes.get() + size(&edit);
        if bytes > ctx.0.edit_limit {
            let limit = ctx.0.edit_limit;
            return Err(fail(lua, format_args!("{call}: the edits of this message exceed {limit} bytes (interpreter_memory_limit)")));
        }
        ctx.0.edit_bytes.set(bytes);
        message.edits.push(edit);
        Ok(())
    })
}

/// RFC 5322 section 3.6.8: printable ASCII without colon.
fn header_name(lua: &Lua, call: &str, value: Option<&Value>) -> mlua::Result<Vec<u8>> {
    let name = bytes(lua, call, "name", value)?;
    if name.is_empty()
        || name.len() > MOST_ADDRESS_BYTES
        || name
            .iter()
            .any(|byte| !byte.is_ascii_graphic() || *byte == b':')
    {
        let shown = name.escape_ascii();
        return Err(fail(
            lua,
            format_args!(
                "{call}: \"{shown}\" is not a header name: printable ASCII without colon or space"
            ),
        ));
    }
    Ok(name)
}

fn header_value(lua: &Lua, call: &str, value: Option<&Value>) -> mlua::Result<Vec<u8>> {
    let value = bytes(lua, call, "value", value)?;
    if value.len() > MOST_HEADER_BYTES {
        return Err(fail(
            lua,
            format_args!("{call}: value is longer than {MOST_HEADER_BYTES} bytes"),
        ));
    }
    if value.iter().any(|byte| matches!(byte, 0 | b'\r')) {
        return Err(fail(
            lua,
            format_args!(
                "{call}: value has a NUL or CR; a folded line is \"\\n\" and a space or tab"
            ),
        ));
    }
    let mut folds = value.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
    // Anything else after a line feed would be a header, or the body, of the sender's making.
    if folds.any(|(at, _)| !matches!(value.get(at + 1), Some(b' ' | b'\t'))) {
        return Err(fail(
            lua,
            format_args!("{call}: value has a line feed that no space or tab follows"),
        ));
    }
    Ok(value)
}

fn address(
    lua: &Lua,
    call: &str,
    value: Option<&Value>,
    may_be_empty: bool,
) -> mlua::Result<Vec<u8>> {
    let address = bytes(lua, call, "address", value)?;
    let shown = address.escape_ascii();
    if address.first() == Some(&b'<') || (address.last() == Some(&b'>')) {
        return Err(fail(
            lua,
            format_args!("{call}: give the address \"{shown}\" without angle brackets"),
        ));
    }
    if address.is_empty() && !may_be_empty {
        return Err(fail(lua, format_args!("{call}: the address is empty")));
    }
    if address.len() > MOST_ADDRESS_BYTES || address.iter().any(u8::is_ascii_control) {
        return Err(fail(
            lua,
            format_args!("{call}: \"{shown}\" is not an address: too long, or control characters"),
        ));
    }
    Ok(address)
}

/// ESMTP words: a string, or a list of them as callbacks get it.
fn esmtp_words(lua: &Lua, call: &str, value: Option<&Value>) -> mlua::Result<Option<Vec<u8>>> {
    let words = match value {
        None | Some(Value::Nil) => return Ok(None),
        Some(Value::Table(list)) => {
            let mut words = Vec::new();
            for index in 1..=list.raw_len() {
                let word = bytes(
                    lua,
                    call,
                    "each of args",
                    Some(&list.raw_get::<Value>(index)?),
                )?;
                if index > 1 {
                    words.push(b' ');
                }
                words.extend_from_slice(&word);
                if words.len() > MOST_ADDRESS_BYTES {
                    break;
                }
            }
            words
        }
        Some(Value::String(words)) => words.as_bytes().to_vec(),
        other => {
            return Err(fail(
                lua,
                format_args!(
                    "{call}: args must be a string or a list of strings, not {}",
                    type_name(other)
                ),
            ));
        }
    };
    if words.len() > MOST_ADDRESS_BYTES
        || words
            .iter()
            .any(|byte| !byte.is_ascii_graphic() && *byte != b' ')
    {
        return Err(fail(
            lua,
            format_args!("{call}: args must be ESMTP words of printable ASCII"),
        ));
    }
    Ok(if words.is_empty() { None } else { Some(words) })
}
