//! A message after a filter's modifications, as an MTA would pass it on.
#![forbid(unsafe_code)]

use super::Letter;
use super::decode::Change;

/// The message that comes out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Sender with its brackets.
    pub sender: Vec<u8>,
    /// Recipients with their brackets.
    pub recipients: Vec<Vec<u8>>,
    /// Header fields, values without the one leading space.
    pub headers: Vec<(Vec<u8>, Vec<u8>)>,
    /// Body, lines end in CR LF.
    pub body: Vec<u8>,
    /// The reason, if it goes into quarantine.
    pub quarantine: Option<Vec<u8>>,
}

impl Applied {
    /// Applies changes to a message of which these recipients (by index) were refused. The MTA's own Received field is not modelled: an
    /// index of 0 and one of 1 are both the top.
    pub fn new(letter: &Letter, refused: &[usize], changes: &[Change]) -> Applied {
        let recipients = letter.recipients.iter().enumerate();
        let mut applied = Applied {
            sender: letter.sender.clone(),
            recipients: recipients
                .filter(|(index, _)| !refused.contains(index))
                .map(|(_, recipient)| recipient.clone())
                .collect(),
            headers: letter.headers.clone(),
            body: letter.body.clone(),
            quarantine: None,
        };
        let mut body: Option<Vec<u8>> = None;
        for change in changes {
            match change {
                Change::BodyChunk(chunk) => {
                    body.get_or_insert_default().extend_from_slice(chunk);
                }
                Change::AddHeader(name, value) => {
                    applied.headers.push((name.clone(), value.clone()));
                }
                Change::InsertHeader(index, name, value) => {
                    let index = usize::try_from(*index).unwrap_or(usize::MAX);
                    let at = index.saturating_sub(1).min(applied.headers.len());
                    applied.headers.insert(at, (name.clone(), value.clone()));
                }
                Change::ChangeHeader(nth, name, value) => applied.change(*nth, name, value),
                Change::AddRecipient(address, _) => {
                    if !applied.recipients.contains(address) {
                        applied.recipients.push(address.clone());
                    }
                }
                Change::DeleteRecipient(address) => {
                    applied.recipients.retain(|other| other != address);
                }
                Change::ChangeSender(address, _) => applied.sender.clone_from(address),
                Change::Quarantine(reason) => applied.quarantine = Some(reason.clone()),
            }
        }
        if let Some(body) = body {
            applied.body = body;
        }
        applied
    }

    fn change(&mut self, nth: u32, name: &[u8], value: &[u8]) {
        let nth = usize::try_from(nth).unwrap_or(usize::MAX).max(1);
        let mut same = self
            .headers
            .iter()
            .enumerate()
            .filter(|(_, (other, _))| other.eq_ignore_ascii_case(name));
        let place = same.nth(nth - 1).map(|(place, _)| place);
        match (place, value.is_empty()) {
            (Some(place), true) => {
                self.headers.remove(place);
            }
            (Some(place), false) => {
                if let Some(header) = self.headers.get_mut(place) {
                    header.1 = value.to_vec();
                }
            }
            // A number that does not exist adds.
            (None, false) => self.headers.push((name.to_vec(), value.to_vec())),
            (None, true) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(name: &str, value: &str) -> (Vec<u8>, Vec<u8>) {
        (name.into(), value.into())
    }

    #[test]
    fn every_kind_of_change_is_applied() {
        let letter = Letter {
            sender: b"<a@b>".to_vec(),
            recipients: vec![b"<u@b>".to_vec(), b"<v@b>".to_vec(), b"<w@b>".to_vec()],
            headers: vec![header("X", "1"), header("Y", "2"), header("x", "3")],
            body: b"old".to_vec(),
            ..Letter::default()
        };
        let changes = [
            Change::ChangeHeader(2, b"X".to_vec(), b"new".to_vec()),
            Change::ChangeHeader(1, b"Y".to_vec(), Vec::new()),
            Change::AddHeader(b"Z".to_vec(), b"end".to_vec()),
            Change::InsertHeader(0, b"T".to_vec(), b"top".to_vec()),
            Change::BodyChunk(b"new ".to_vec()),
            Change::BodyChunk(b"body".to_vec()),
            Change::DeleteRecipient(b"<u@b>".to_vec()),
            Change::AddRecipient(b"<n@b>".to_vec(), None),
            Change::ChangeSender(b"<>".to_vec(), None),
            Change::Quarantine(b"why".to_vec()),
        ];
        let applied = Applied::new(&letter, &[1], &changes);
        assert_eq!(
            applied,
            Applied {
                sender: b"<>".to_vec(),
                recipients: vec![b"<w@b>".to_vec(), b"<n@b>".to_vec()],
                headers: vec![
                    header("T", "top"),
                    header("X", "1"),
                    header("x", "new"),
                    header("Z", "end")
                ],
                body: b"new body".to_vec(),
                quarantine: Some(b"why".to_vec()),
            }
        );
    }
}
