//! Exit statuses: the table of LSB for init scripts (section 20.2), one place for the whole program, man page included.
#![forbid(unsafe_code)]

/// What a verb other than `status` comes to. Of several milters the largest number wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Exit {
    /// Done, or it was so already.
    Done = 0,
    /// It did not work.
    Failed = 1,
    /// The arguments are wrong.
    Usage = 2,
    /// The kernel does not let us.
    Permission = 4,
    /// The configuration or a policy is wrong, or there is no such milter in it.
    NotConfigured = 6,
}

impl Exit {
    /// Every one, in the order of the man page.
    pub const ALL: &'static [Exit] = &[
        Exit::Done,
        Exit::Failed,
        Exit::Usage,
        Exit::Permission,
        Exit::NotConfigured,
    ];

    /// The number that the shell sees.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// From the number that a master reported; one that is not in the table is a failure.
    pub fn from_code(code: i32) -> Exit {
        Exit::ALL
            .iter()
            .copied()
            .find(|exit| i32::from(exit.code()) == code)
            .unwrap_or(Exit::Failed)
    }

    /// The worse of two.
    #[must_use]
    pub fn worst(self, other: Exit) -> Exit {
        self.max(other)
    }
}

/// What `status` says of one milter, or of several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatusExit {
    /// Every one runs.
    Running = 0,
    /// A master is dead and its board is there.
    Dead = 1,
    /// Not running.
    NotRunning = 3,
    /// It cannot be known.
    Unknown = 4,
}

impl StatusExit {
    /// Every one, in the order of the man page.
    pub const ALL: &'static [StatusExit] = &[
        StatusExit::Running,
        StatusExit::Dead,
        StatusExit::NotRunning,
        StatusExit::Unknown,
    ];

    /// The number that the shell sees.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// Of several milters: unknown, else dead, else not running, else running.
    pub fn fold(all: impl IntoIterator<Item = StatusExit>) -> StatusExit {
        let rank = |exit: &StatusExit| match exit {
            StatusExit::Running => 0,
            StatusExit::NotRunning => 1,
            StatusExit::Dead => 2,
            StatusExit::Unknown => 3,
        };
        all.into_iter()
            .max_by_key(rank)
            .unwrap_or(StatusExit::NotRunning)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use StatusExit::{Dead, NotRunning, Running, Unknown};

    #[test]
    fn several_milters_fold_to_the_status_that_lsb_asks_for() {
        let table: &[(&[StatusExit], u8)] = &[
            (&[], 3),
            (&[Running], 0),
            (&[Running, Running], 0),
            (&[Running, NotRunning], 3),
            (&[NotRunning, Dead], 1),
            (&[Dead, Running], 1),
            (&[Dead, Unknown, Running], 4),
            (&[Unknown, Dead], 4),
        ];
        for (all, code) in table {
            assert_eq!(
                StatusExit::fold(all.iter().copied()).code(),
                *code,
                "{all:?}"
            );
        }
    }

    #[test]
    fn the_worst_of_several_verbs_wins_and_strange_numbers_are_failures() {
        assert_eq!(Exit::Done.worst(Exit::NotConfigured).code(), 6);
        assert_eq!(Exit::Permission.worst(Exit::Failed).code(), 4);
        for (code, exit) in [
            (0, Exit::Done),
            (1, Exit::Failed),
            (2, Exit::Usage),
            (4, Exit::Permission),
            (6, Exit::NotConfigured),
            (7, Exit::Failed),
            (3, Exit::Failed),
            (-1, Exit::Failed),
            (255, Exit::Failed),
        ] {
            assert_eq!(Exit::from_code(code), exit);
        }
    }
}
