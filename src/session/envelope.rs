//! Who speaks and to whom: client, HELO, sender and recipients, kept when the policy reads them.
#![forbid(unsafe_code)]

use std::borrow::Cow;
use std::net::Ipv4Addr;

use super::close::Broken;
use crate::milter::command::Peer;
use crate::policy::event::{Event, Family};
use crate::policy::facts::{Client, Message, Recipient};

/// Longest host name, socket path or HELO name that is kept for a connection: some times an SMTP line, which is where they come from.
const NAME_BYTES: usize = 8192;
/// Most recipients of a message: ten times Postfix's `smtpd_recipient_limit`.
pub(super) const MOST_RECIPIENTS: usize = 10_000;

/// The event of a connect. An address that does not parse makes the family unknown.
pub(super) fn connect<'a>(host: &'a [u8], peer: Peer<'a>) -> Result<Event<'a>, Broken> {
    let (family, address, port) = match peer {
        Peer::Inet(port, text) if is_ipv4(text) => {
            (Family::Inet, Some(Cow::Borrowed(text)), Some(port))
        }
        // Display is the form of RFC 5952.
        Peer::Inet6(port, Some(address)) => {
            let text = address.to_string().into_bytes();
            (Family::Inet6, Some(Cow::Owned(text)), Some(port))
        }
        // The wire carries a port of 0.
        Peer::Unix(path) => (Family::Unix, Some(Cow::Borrowed(path)), Some(0)),
        Peer::Inet(..) | Peer::Inet6(_, None) | Peer::Unknown => (Family::Unknown, None, None),
    };
    check_name("a host name", host)?;
    check_name("a socket's path", address.as_deref().unwrap_or_default())?;
    Ok(Event::Connect {
        host,
        family,
        address,
        port,
    })
}

fn is_ipv4(text: &[u8]) -> bool {
    std::str::from_utf8(text).is_ok_and(|text| text.parse::<Ipv4Addr>().is_ok())
}

/// Bounds what a connection may make us keep.
pub(super) fn check_name(what: &'static str, name: &[u8]) -> Result<(), Broken> {
    if name.len() > NAME_BYTES {
        return Err(Broken::Excess(what, name.len(), NAME_BYTES));
    }
    Ok(())
}

/// The client of a connect event, to be kept.
pub(super) fn client(event: &Event<'_>) -> Option<Box<Client>> {
    let Event::Connect {
        host,
        family,
        address,
        port,
    } = event
    else {
        return None;
    };
    Some(Box::new(Client {
        host: (*host).into(),
        family: *family,
        address: address.as_deref().map(Into::into),
        port: *port,
    }))
}

/// May this message have one more recipient?
pub(super) fn has_room(message: &Message) -> bool {
    message
        .recipients
        .as_ref()
        .is_none_or(|recipients| recipients.len() < MOST_RECIPIENTS)
}

/// Keeps a recipient that the policy did not refuse.
pub(super) fn keep_recipient(message: &mut Message, recipient: Recipient) {
    message.recipients.get_or_insert_default().push(recipient);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn ipv6_is_written_as_rfc_5952_has_it_and_nonsense_is_unknown() {
        let address = "2001:DB8:0:0:0:0:0:1".parse().ok();
        let Event::Connect {
            family,
            address,
            port,
            ..
        } = connect(b"h", Peer::Inet6(25, address)).unwrap()
        else {
            panic!("a connect is expected");
        };
        assert_eq!(
            (family, address.as_deref(), port),
            (Family::Inet6, Some(&b"2001:db8::1"[..]), Some(25))
        );
        for peer in [
            Peer::Inet(25, b"1.2.3"),
            Peer::Inet6(25, None),
            Peer::Unknown,
        ] {
            let event = connect(b"h", peer).unwrap();
            assert!(matches!(
                event,
                Event::Connect {
                    family: Family::Unknown,
                    address: None,
                    port: None,
                    ..
                }
            ));
        }
    }

    #[test]
    fn names_beyond_any_smtp_line_are_refused() {
        let long = vec![b'x'; NAME_BYTES + 1];
        assert!(connect(&long, Peer::Unknown).is_err());
        assert!(connect(b"h", Peer::Unix(&long)).is_err());
    }
}
