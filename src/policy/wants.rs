//! What a policy uses: its callbacks, the data it reads, the macros it asks for. The negotiation follows from it.
#![forbid(unsafe_code)]

use super::event::Callback;

/// Data of `ctx` that a policy reads though it has no callback for the step (`policy.collect`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collect {
    /// `ctx.client`
    pub client: bool,
    /// `ctx.helo`
    pub helo: bool,
    /// `ctx.sender`
    pub sender: bool,
    /// `ctx.recipients`
    pub recipients: bool,
    /// `ctx.headers`
    pub headers: bool,
    /// `ctx.body`
    pub body: bool,
}

/// All that a session needs to know of a policy before the first event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wants {
    /// Bits of [`Callback::bit`] of the callbacks that the policy defines.
    pub callbacks: u16,
    /// Data named in `policy.collect`.
    pub collect: Collect,
    /// `policy.answer_body`: each body chunk is answered.
    pub answer_body: bool,
    /// `policy.macros`: macro names by milter stage number (0 connect, 1 helo, 2 mail, 3 rcpt, 4 data, 5 eom, 6 eoh), as the
    /// operator wrote them, separated by spaces; `None` leaves the MTA's own list.
    pub macros: [Option<String>; 7],
}

impl Wants {
    /// Does the policy define this callback?
    pub fn has(&self, callback: Callback) -> bool {
        self.callbacks & callback.bit() != 0
    }
}
