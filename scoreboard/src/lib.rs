//! A lock-free scoreboard file.
