//! The allocator: a child keeps what a message needed for the next one; a short-lived program gets its memory at once, not page by page.

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

/// Makes the next `bytes` of the heap ready in one call. A program that lives for a millisecond spends most of it on page faults: 200 of
/// them cost more than all that `status` computes. To be called by a program with one thread.
pub fn make_ready(bytes: usize) {
    let Ok(most) = libc::c_int::try_from(bytes.saturating_mul(2)) else {
        return;
    };
    // SAFETY: mallopt(3) sets numbers of the allocator. The pages between the aligned ends lie inside the fresh allocation, whose content
    // nobody has seen; madvise(2) fills them with zeros, or refuses (before Linux 5.14), which changes nothing. It is freed again.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, most.max(MAPPED_FROM));
        libc::mallopt(libc::M_TRIM_THRESHOLD, most.max(KEPT));
        let start = libc::malloc(bytes);
        if start.is_null() {
            return;
        }
        let page = 4096;
        let skipped = start.addr().next_multiple_of(page) - start.addr();
        if skipped < bytes {
            let length = (bytes - skipped) / page * page;
            libc::madvise(start.byte_add(skipped), length, libc::MADV_POPULATE_WRITE);
        }
        libc::free(start);
    }
}
