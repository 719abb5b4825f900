//! The allocator of a child: what a message needed is kept for the next one instead of being given back and faulted in again.

/// Allocations up to this come from the heap, not from mappings of their own.
const MAPPED_FROM: libc::c_int = 1 << 20;
/// Free memory kept at the top of the heap.
const KEPT: libc::c_int = 2 << 20;

/// Keeps freed memory up to a modest bound: pages that are given back cost more to get again than a message of their size costs to filter.
pub fn keep_freed() {
    // SAFETY: mallopt(3) sets two numbers of the allocator; the caller has one thread. A libc that refuses changes nothing.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_FROM);
        libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT);
    }
}
