//! The scoreboard of pmx-milter: a file in shared memory that one milter's processes write and anybody may read.

pub mod records;
