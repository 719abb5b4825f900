//! What a master leaves to its successor, taken up: descriptors become what they are, and are seen to be it.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::time::Instant;

use scoreboard::{Board, Spec};

use super::boot::{self, Refusal, refuse, status};
use super::child::{Child, InHand};
use super::handover::State;
use super::listener::Listener;
use super::report::Report;
use crate::config::MilterConfig;
use crate::run_dir::Paths;
use crate::sys::exec::Inherited;

/// The descriptors, as what they are.
pub(super) struct Estate {
    pub(super) lock: File,
    pub(super) board: Board,
    /// Children of before an earlier restart still write to it.
    pub(super) former: Option<Board>,
    pub(super) listener: Listener,
    pub(super) children: Vec<Option<Child>>,
    pub(super) in_hand: VecDeque<InHand>,
}

impl Estate {
    /// Takes everything up, and sees that it is what it should be.
    ///
    /// # Errors
    /// When something is missing or is something else.
    pub(super) fn take_up(state: &State, inherited: &mut Inherited) -> io::Result<Estate> {
        let now = Instant::now();
        let lock = File::from(inherited.take(state.lock)?);
        let name = state.milter.parse().map_err(io::Error::other)?;
        let there = std::fs::symlink_metadata(Paths::new(&state.run_dir, &name).lock())?;
        let ours = lock.metadata()?;
        if (ours.dev(), ours.ino()) != (there.dev(), there.ino()) {
            return Err(io::Error::other("the lock file is another one by now"));
        }
        let board = state.board.take_up(inherited)?;
        let former = state.former.as_ref();
        let former = former
            .map(|(board, _)| board.take_up(inherited))
            .transpose()?;
        let listener = state
            .listener
            .as_ref()
            .ok_or_else(|| io::Error::other("there is no port"))?;
        let listener = Listener::take_up(listener, inherited)?;
        let children = state
            .slots
            .iter()
            .map(|slot| {
                let child = slot.child.as_ref();
                child
                    .map(|child| Child::take_up(child, inherited, now))
                    .transpose()
            })
            .collect::<io::Result<Vec<_>>>()?;
        let in_hand = state
            .in_hand
            .iter()
            .map(|it| {
                Ok(InHand {
                    socket: inherited.take_socket(it.socket)?,
                    treatment: it.treatment(),
                    tcp: it.tcp,
                })
            })
            .collect::<io::Result<_>>()?;
        Ok(Estate {
            lock,
            board,
            former,
            listener,
            children,
            in_hand,
        })
    }

    /// Can a milter of this configuration go on with it?
    ///
    /// # Errors
    /// Why not.
    pub(super) fn suits(&self, milter: &MilterConfig, paths: &Paths) -> Result<(), Refusal> {
        if keeps(&self.board, milter) {
            return Ok(());
        }
        if self.former.is_some() {
            return Err(refuse(
                status::GENERIC,
                "it needs another scoreboard, and children of before the last restart still write to the one before; try again when they have finished, or stop and start",
            ));
        }
        // Is there room for a new one?
        let spec = boot::board_spec(milter, None);
        boot::make_board(paths, &paths.trial_board(), &spec).map(|board| board.remove_file())
    }
}

/// Can this configuration, and this program, go on with the board?
fn keeps(board: &Board, milter: &MilterConfig) -> bool {
    milter.most_slots() <= board.geometry().slots() && board.is_of_this_layout()
}

/// The boards of a master that has taken over.
pub(super) struct Boards {
    /// The one that goes on.
    pub(super) board: Board,
    /// It is new, and has no name yet under which anybody looks for it.
    pub(super) is_new: bool,
    /// The one to which children of before write, and their slots.
    pub(super) former: Option<Board>,
    pub(super) on_former: Vec<u32>,
}

/// The board to go on with: the same, or a new one, to which children of before do not write.
pub(super) fn boards(
    estate: (Board, Option<Board>),
    state: &State,
    milter: &MilterConfig,
    paths: &Paths,
    group: Option<u32>,
    report: &mut Report,
) -> io::Result<Boards> {
    let (board, former) = estate;
    let same = |board, former, on_former| Boards {
        board,
        is_new: false,
        former,
        on_former,
    };
    if keeps(&board, milter) {
        let slots = state.former.as_ref().map(|(_, slots)| slots.clone());
        return Ok(same(board, former, slots.unwrap_or_default()));
    }
    let spec = Spec {
        previous_instance: board.header().instance,
        ..boot::board_spec(milter, group)
    };
    match boot::make_board(paths, &paths.trial_board(), &spec) {
        Ok(new) => {
            report.warning("a new scoreboard was made; totals go on, history begins anew");
            let slots = (0_u32..).zip(&state.slots);
            let slots = slots.filter(|(_, slot)| slot.child.is_some());
            Ok(Boards {
                board: new,
                is_new: true,
                former: Some(board),
                on_former: slots.map(|(slot, _)| slot).collect(),
            })
        }
        Err(refusal) if board.is_of_this_layout() => {
            report.warning(&format!(
                "{}; the old one has room for {} processes, and more there cannot be",
                refusal.text,
                board.geometry().slots()
            ));
            Ok(same(board, former, Vec::new()))
        }
        Err(refusal) => Err(io::Error::other(refusal.text)),
    }
}
