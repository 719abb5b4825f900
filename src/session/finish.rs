//! Verdicts and edits as reply bytes, all into the one buffer that leaves in one write.
#![forbid(unsafe_code)]

use crate::milter::reply::{self, LeadingSpace, Plain};
use crate::policy::facts::Message;
use crate::policy::verdict::{Edit, Verdict};

/// Appends a verdict as a final reply.
pub(super) fn put_verdict(out: &mut Vec<u8>, verdict: &Verdict) {
    reply::plain(
        out,
        match verdict {
            Verdict::Continue => Plain::Continue,
            Verdict::Accept => Plain::Accept,
            Verdict::Reject => Plain::Reject,
            Verdict::Tempfail => Plain::Tempfail,
            Verdict::Discard => Plain::Discard,
            Verdict::Skip => Plain::Skip,
            Verdict::Reply(text) => return reply::text(out, text),
        },
    );
}

/// Appends the message's edits, in the policy's order, and takes them. Says whether one puts the message into quarantine.
pub(super) fn put_edits(out: &mut Vec<u8>, message: &mut Message) -> bool {
    // HDR_LEADSPC is never asked for.
    let space = LeadingSpace::MtaAdds;
    let mut quarantined = false;
    for edit in std::mem::take(&mut message.edits) {
        match &edit {
            Edit::AddHeader { name, value } => reply::add_header(out, space, name, value),
            Edit::InsertHeader { index, name, value } => {
                reply::insert_header(out, space, *index, name, value);
            }
            Edit::ChangeHeader { nth, name, value } => {
                reply::change_header(out, space, *nth, name, value);
            }
            Edit::ChangeSender { address, args } => {
                reply::change_sender(out, address, args.as_deref());
            }
            Edit::AddRecipient { address, args } => {
                reply::add_recipient(out, address, args.as_deref());
            }
            Edit::DeleteRecipient(address) => {
                // Postfix compares bytes: the very form that RCPT had.
                let recipients = message.recipients.as_deref().unwrap_or_default();
                match recipients
                    .iter()
                    .find(|recipient| recipient.address() == address)
                {
                    Some(recipient) => reply::delete_recipient(out, recipient.raw()),
                    None => reply::delete_recipient(out, &[b"<", &address[..], b">"].concat()),
                }
            }
            Edit::ReplaceBody(body) => reply::replace_body(out, body),
            Edit::Quarantine(reason) => {
                quarantined = true;
                reply::quarantine(out, reason);
            }
        }
    }
    quarantined
}
