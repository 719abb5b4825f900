//! What only the kernel can do: fork, signals, locks, descriptors, shared words. The package's only unsafe beside the board's map.
//!
//! Safe types in and out; one system call a block; errno becomes `io::Result` at once. `lua_guard` is the one exception: what only Lua's C API can do.

pub mod backlog;
pub mod bus_guard;
pub mod calendar;
pub mod capability;
pub mod clock;
pub mod control_page;
pub mod exec;
pub mod landlock;
pub mod lock;
pub mod lua_guard;
pub mod memory;
pub mod names;
pub mod pass_fd;
pub mod process;
pub mod random;
pub mod sandbox;
pub mod signal;
pub mod socket;
pub mod user;
