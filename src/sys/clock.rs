//! The clocks of the board: BOOTTIME runs on while the machine sleeps and means nothing after a reboot (the boot id guards it).

use nix::time::{ClockId, clock_gettime};

/// CLOCK_BOOTTIME in nanoseconds.
pub fn boottime_ns() -> u64 {
    read(ClockId::CLOCK_BOOTTIME)
}

/// CLOCK_MONOTONIC in nanoseconds: the event loops' timers.
pub fn monotonic_ns() -> u64 {
    read(ClockId::CLOCK_MONOTONIC)
}

fn read(clock: ClockId) -> u64 {
    // Both clocks exist on every kernel that has pidfd (5.3), which this program needs anyway.
    let now = clock_gettime(clock).expect("the kernel has CLOCK_BOOTTIME and CLOCK_MONOTONIC");
    now.tv_sec().cast_unsigned() * 1_000_000_000 + now.tv_nsec().cast_unsigned()
}
