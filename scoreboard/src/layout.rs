//! Where everything stands in the file: ABI 1.1. `FORMAT.md` tells it to people, `schema` to programs; this is the truth.
//!
//! Offsets of slots come from the header and are checked once, against the true size of the file; nothing a child writes is ever an
//! offset or an index. A record grows at its end (minor version); anything else is another major version.
#![forbid(unsafe_code)]

use std::mem::offset_of;

use bytemuck::{Pod, Zeroable};

use crate::histogram::{PHASE_BUCKETS, PHASE_WORDS, PHASES};
use crate::history::{EVENT_WORDS, EVENTS, SECOND_WORDS, SECONDS};
use crate::latch::Place;
use crate::records::{DEATH_WORDS, GLOBAL_WORDS, SLOT_WORDS};
use crate::ring::Ring;

/// The first eight bytes of a board: the last four betray a transfer as text.
pub const MAGIC: [u8; 8] = *b"\x89PMXSB\r\n";
/// Readers refuse another one.
pub const MAJOR: u32 = 1;
/// Grows when words are added; readers ignore what they do not know.
pub const MINOR: u32 = 1;
/// The value of the endian word as its writer sees it.
pub const ENDIAN: u64 = 0x0102_0304_0506_0708;
/// Value of the ready word.
pub const READY: u64 = 1;

/// Words of the static header.
pub const HEADER_WORDS: usize = 64;
/// Bytes of a cache line pair: x86 fetches lines in pairs, so neighbours closer than that disturb each other.
pub const LINE: usize = 128;
/// Byte offset of the global record's version line.
pub const GLOBAL_OFFSET: usize = 512;
/// Byte offset of the death ring: a line whose first word counts the deaths, then the entries.
pub const DEATHS_OFFSET: usize = 4096;
/// Entries of the death ring.
pub const DEATHS: usize = 31;
/// Byte offset of the schema.
pub const SCHEMA_OFFSET: usize = 8192;
/// Byte offset of the second copy in a child's page; the first stands at [`LINE`].
pub const CHILD_SECOND: usize = 2112;
/// Most bytes of a child's record.
pub const CHILD_ROOM: usize = 1920;
/// Bytes between two slots in the master's area.
pub const MASTER_STRIDE: usize = LINE + 2 * SLOT_WORDS * 8 + 2 * PHASE_WORDS * 8;
/// Byte offset of the two copies of the earlier processes' histograms in it.
pub const MASTER_HISTOGRAMS: usize = LINE + 2 * SLOT_WORDS * 8;
/// Byte offset of the histograms in a child's page: before the second copy, which leaves the records room to grow.
pub const CHILD_HISTOGRAMS: usize = CHILD_SECOND - PHASE_WORDS * 8;
/// Most slots that a reader believes in.
pub const MAX_SLOTS: u64 = 65_536;

/// The place of the global record.
pub const GLOBAL: Place = Place {
    version: GLOBAL_OFFSET / 8,
    copies: [
        (GLOBAL_OFFSET + LINE) / 8,
        (GLOBAL_OFFSET + LINE) / 8 + GLOBAL_WORDS,
    ],
};

/// The static header: written before the file gets its name, and never changed.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Header {
    /// [`MAGIC`] as a native word.
    pub magic: u64,
    /// `major << 32 | minor`.
    pub abi: u64,
    /// [`ENDIAN`].
    pub endian: u64,
    /// Bytes of this header.
    pub header_len: u64,
    /// Bytes of the file.
    pub file_size: u64,
    /// Bytes of a page on the writer's machine.
    pub page_size: u64,
    /// Byte offset of the master's records of the slots.
    pub m_off: u64,
    /// Bytes from one to the next.
    pub m_stride: u64,
    /// Bytes of one copy in it.
    pub m_copy_len: u64,
    /// Byte offset of the children's pages.
    pub c_off: u64,
    /// Bytes from one to the next.
    pub c_stride: u64,
    /// Bytes of one copy in it.
    pub c_copy_len: u64,
    /// Slots that the file has room for.
    pub nslots: u64,
    /// Byte offset of the schema.
    pub schema_off: u64,
    /// Bytes of the schema.
    pub schema_len: u64,
    /// Random: never subtract counters of different instances.
    pub instance: [u64; 2],
    /// The boot in which the file was made; 0 when it is not known.
    pub boot: [u64; 2],
    /// Pid of the master.
    pub master_pid: u64,
    /// Start time of the master in clock ticks since boot (field 22 of proc stat); 0 when it is not known.
    pub master_start: u64,
    /// Inode of the master's pid namespace: pids mean nothing in another one; 0 when it is not known.
    pub pid_namespace: u64,
    /// CLOCK_REALTIME ns of the creation.
    pub created_wall_ns: u64,
    /// CLOCK_BOOTTIME ns of the same instant.
    pub created_boot_ns: u64,
    /// Instance that this one follows; 0 when there was none.
    pub previous_instance: [u64; 2],
    /// [`READY`], stored after everything else.
    pub ready: u64,
    /// Byte offset of the ring of seconds; 0 when there is none.
    pub seconds_off: u64,
    /// Bytes from one second to the next.
    pub seconds_stride: u64,
    /// Seconds that are kept.
    pub seconds_count: u64,
    /// Byte offset of the ring of events; 0 when there is none.
    pub events_off: u64,
    /// Bytes from one event to the next.
    pub events_stride: u64,
    /// Events that are kept.
    pub events_count: u64,
    /// Bytes from a master's record to its two copies of histograms; 0 when there are none.
    pub m_hist_off: u64,
    /// Bytes from a child's page to its histograms; 0 when there are none.
    pub c_hist_off: u64,
    /// Phases with a histogram.
    pub hist_phases: u64,
    /// Buckets of each.
    pub hist_buckets: u64,
    /// For later words.
    pub reserved: [u64; 27],
}

/// Index of the ready word.
pub const READY_WORD: usize = offset_of!(Header, ready) / 8;

impl Header {
    /// Major version.
    pub fn major(&self) -> u32 {
        u32::try_from(self.abi >> 32).unwrap_or(u32::MAX)
    }

    /// Minor version.
    pub fn minor(&self) -> u32 {
        u32::try_from(self.abi & 0xffff_ffff).unwrap_or(u32::MAX)
    }

    /// The instance as 32 hexadecimal digits.
    pub fn instance_text(&self) -> String {
        format!("{:016x}{:016x}", self.instance[0], self.instance[1])
    }

    /// The boot id in the kernel's notation.
    pub fn boot_text(&self) -> String {
        let [high, low] = self.boot;
        format!(
            "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
            high >> 32,
            (high >> 16) & 0xffff,
            high & 0xffff,
            low >> 48,
            low & 0xffff_ffff_ffff
        )
    }
}

/// Offsets and strides of a board, checked: every place that it gives lies in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    slots: u32,
    file_size: u64,
    master_off: usize,
    master_stride: usize,
    master_words: usize,
    child_off: usize,
    child_stride: usize,
    child_words: usize,
    schema_off: usize,
    schema_len: usize,
    seconds: Option<Ring>,
    events: Option<Ring>,
    histograms: Option<Histograms>,
}

/// Byte offsets of the phases' histograms, from the beginning of a master's record and of a child's page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Histograms {
    master: usize,
    child: usize,
}

/// The ring of deaths, where every version has it.
pub const DEATH_RING: Ring = Ring {
    offset: DEATHS_OFFSET,
    stride: DEATH_WORDS * 8,
    entries: DEATHS,
};

/// Most bytes of a ring that a reader believes in.
const RING_MOST: u64 = 16 << 20;

impl Geometry {
    /// The geometry of a new board.
    pub(crate) fn plan(slots: u32, page: usize, schema_len: usize) -> Option<Geometry> {
        let round = |bytes: usize| bytes.checked_next_multiple_of(page);
        let count = usize::try_from(slots).ok()?;
        let seconds = Ring {
            offset: round(SCHEMA_OFFSET.checked_add(schema_len)?)?,
            stride: SECOND_WORDS * 8,
            entries: SECONDS,
        };
        let events = Ring {
            offset: seconds.offset.checked_add(seconds.bytes())?,
            stride: EVENT_WORDS * 8,
            entries: EVENTS,
        };
        let master_off = round(events.offset.checked_add(events.bytes())?)?;
        let child_off = round(master_off.checked_add(count.checked_mul(MASTER_STRIDE)?)?)?;
        let size = child_off.checked_add(count.checked_mul(page)?)?;
        Some(Geometry {
            slots,
            file_size: size as u64,
            master_off,
            master_stride: MASTER_STRIDE,
            master_words: SLOT_WORDS,
            child_off,
            child_stride: page,
            child_words: SLOT_WORDS,
            schema_off: SCHEMA_OFFSET,
            schema_len,
            seconds: Some(seconds),
            events: Some(events),
            histograms: Some(Histograms {
                master: MASTER_HISTOGRAMS,
                child: CHILD_HISTOGRAMS,
            }),
        })
    }

    /// The geometry that a header tells, or what about it cannot be. `header` may be hostile.
    pub(crate) fn of(header: &Header) -> Result<Geometry, &'static str> {
        let words = |value: u64| match usize::try_from(value) {
            Ok(value) if value.is_multiple_of(8) => Some(value),
            _ => None,
        };
        let inside = |offset: u64, stride: u64| {
            stride
                .checked_mul(header.nslots)
                .and_then(|bytes| bytes.checked_add(offset))
                .is_some_and(|end| end <= header.file_size)
        };
        if header.nslots == 0 || header.nslots > MAX_SLOTS {
            return Err("number of slots");
        }
        if header.header_len < (READY_WORD as u64 + 1) * 8
            || header.file_size < SCHEMA_OFFSET as u64
        {
            return Err("length of header or file");
        }
        let copy = |len: u64, most: u64| len > 0 && len <= most && len.is_multiple_of(8);
        if !copy(header.m_copy_len, header.m_stride)
            || header
                .m_copy_len
                .checked_mul(2)
                .and_then(|copies| copies.checked_add(LINE as u64))
                .is_none_or(|record| record > header.m_stride)
            || !inside(header.m_off, header.m_stride)
        {
            return Err("area of the master's records");
        }
        if !copy(header.c_copy_len, CHILD_ROOM as u64)
            || header.c_stride < (CHILD_SECOND + CHILD_ROOM) as u64
            || !inside(header.c_off, header.c_stride)
        {
            return Err("area of the children's records");
        }
        if header
            .schema_off
            .checked_add(header.schema_len)
            .is_none_or(|end| end > header.file_size)
        {
            return Err("area of the schema");
        }
        let seconds = ring(
            header.seconds_off,
            header.seconds_stride,
            header.seconds_count,
            header.file_size,
        )
        .ok_or("ring of seconds")?;
        let events = ring(
            header.events_off,
            header.events_stride,
            header.events_count,
            header.file_size,
        )
        .ok_or("ring of events")?;
        let histograms = histograms(header).ok_or("area of the histograms")?;
        let aligned = || {
            Some(Geometry {
                slots: u32::try_from(header.nslots).ok()?,
                file_size: header.file_size,
                master_off: words(header.m_off)?,
                master_stride: words(header.m_stride)?,
                master_words: words(header.m_copy_len)? / 8,
                child_off: words(header.c_off)?,
                child_stride: words(header.c_stride)?,
                child_words: words(header.c_copy_len)? / 8,
                schema_off: usize::try_from(header.schema_off).ok()?,
                schema_len: usize::try_from(header.schema_len).ok()?,
                seconds,
                events,
                histograms,
            })
        };
        aligned().ok_or("alignment of an area")
    }

    /// Writes itself into a header.
    pub(crate) fn describe(&self, header: &mut Header, page: usize) {
        header.header_len = (HEADER_WORDS * 8) as u64;
        header.file_size = self.file_size;
        header.page_size = page as u64;
        header.m_off = self.master_off as u64;
        header.m_stride = self.master_stride as u64;
        header.m_copy_len = (self.master_words * 8) as u64;
        header.c_off = self.child_off as u64;
        header.c_stride = self.child_stride as u64;
        header.c_copy_len = (self.child_words * 8) as u64;
        header.nslots = u64::from(self.slots);
        header.schema_off = self.schema_off as u64;
        header.schema_len = self.schema_len as u64;
        if let Some(ring) = self.seconds {
            header.seconds_off = ring.offset as u64;
            header.seconds_stride = ring.stride as u64;
            header.seconds_count = ring.entries as u64;
        }
        if let Some(ring) = self.events {
            header.events_off = ring.offset as u64;
            header.events_stride = ring.stride as u64;
            header.events_count = ring.entries as u64;
        }
        if let Some(histograms) = self.histograms {
            header.m_hist_off = histograms.master as u64;
            header.c_hist_off = histograms.child as u64;
            header.hist_phases = PHASES as u64;
            header.hist_buckets = PHASE_BUCKETS as u64;
        }
    }

    /// Slots that the file has room for.
    pub fn slots(&self) -> u32 {
        self.slots
    }

    /// Bytes of the file.
    pub fn file_size(&self) -> u64 {
        self.file_size
    }

    /// The place of the master's record of a slot; `None` beyond the last slot.
    pub fn master(&self, slot: u32) -> Option<Place> {
        let start = self.start(slot, self.master_off, self.master_stride)? / 8;
        let first = start + LINE / 8;
        Some(Place {
            version: start,
            copies: [first, first + self.master_words],
        })
    }

    /// The place of the child's record of a slot; `None` beyond the last slot.
    pub fn child(&self, slot: u32) -> Option<Place> {
        let start = self.child_page(slot)? / 8;
        Some(Place {
            version: start,
            copies: [start + LINE / 8, start + CHILD_SECOND / 8],
        })
    }

    /// Byte offset of a child's page; `None` beyond the last slot.
    pub fn child_page(&self, slot: u32) -> Option<usize> {
        self.start(slot, self.child_off, self.child_stride)
    }

    /// Bytes from one master's record to the next.
    pub fn master_stride(&self) -> usize {
        self.master_stride
    }

    /// Bytes of a child's page.
    pub fn child_stride(&self) -> usize {
        self.child_stride
    }

    /// Words of the master's record that this file has: a file of a later minor version has more than we know.
    pub fn master_words(&self) -> usize {
        self.master_words
    }

    /// Words of the child's record that this file has.
    pub fn child_words(&self) -> usize {
        self.child_words
    }

    /// Byte offset and length of the schema.
    pub fn schema(&self) -> (usize, usize) {
        (self.schema_off, self.schema_len)
    }

    /// The ring of seconds; `None` in a file of version 1.0.
    pub fn seconds(&self) -> Option<Ring> {
        self.seconds
    }

    /// The ring of events; `None` in a file of version 1.0.
    pub fn events(&self) -> Option<Ring> {
        self.events
    }

    /// The first word of a copy of the earlier processes' histograms of a slot; of `copy` the lowest bit counts. `None` beyond the last
    /// slot, or in a file of version 1.0.
    pub fn master_histograms(&self, slot: u32, copy: u64) -> Option<usize> {
        let start = self.start(slot, self.master_off, self.master_stride)?;
        let copy = if copy & 1 == 1 { PHASE_WORDS * 8 } else { 0 };
        Some((start + self.histograms?.master + copy) / 8)
    }

    /// The first word of the histograms in a child's page; `None` beyond the last slot, or in a file of version 1.0.
    pub fn child_histograms(&self, slot: u32) -> Option<usize> {
        Some((self.child_page(slot)? + self.histograms?.child) / 8)
    }

    fn start(&self, slot: u32, off: usize, stride: usize) -> Option<usize> {
        if slot >= self.slots {
            return None;
        }
        usize::try_from(slot)
            .ok()?
            .checked_mul(stride)?
            .checked_add(off)
    }
}

/// A ring that a header tells: `Some(None)` when it tells none, `None` when it cannot be.
fn ring(offset: u64, stride: u64, count: u64, file_size: u64) -> Option<Option<Ring>> {
    if offset == 0 {
        return Some(None);
    }
    let bytes = stride.checked_mul(count)?;
    let end = bytes.checked_add(LINE as u64)?.checked_add(offset)?;
    let whole = offset.is_multiple_of(8) && stride.is_multiple_of(8);
    if count == 0 || stride == 0 || !whole || bytes > RING_MOST || end > file_size {
        return None;
    }
    Some(Some(Ring {
        offset: usize::try_from(offset).ok()?,
        stride: usize::try_from(stride).ok()?,
        entries: usize::try_from(count).ok()?,
    }))
}

/// Where a header tells the histograms to be. Another number of phases or buckets means that we do not know them: as if there were none.
fn histograms(header: &Header) -> Option<Option<Histograms>> {
    let known = header.hist_phases == PHASES as u64 && header.hist_buckets == PHASE_BUCKETS as u64;
    if header.m_hist_off == 0 || header.c_hist_off == 0 || !known {
        return Some(None);
    }
    let bytes = (PHASE_WORDS * 8) as u64;
    let master_end = header.m_hist_off.checked_add(bytes.checked_mul(2)?)?;
    let child_end = header.c_hist_off.checked_add(bytes)?;
    let records_end = (LINE as u64).checked_add(header.m_copy_len.checked_mul(2)?)?;
    let whole = header.m_hist_off.is_multiple_of(8) && header.c_hist_off.is_multiple_of(8);
    if !whole
        || header.m_hist_off < records_end
        || master_end > header.m_stride
        || header.c_hist_off < (LINE as u64).checked_add(header.c_copy_len)?
        || child_end > header.c_stride
    {
        return None;
    }
    Some(Some(Histograms {
        master: usize::try_from(header.m_hist_off).ok()?,
        child: usize::try_from(header.c_hist_off).ok()?,
    }))
}

// The layout is an ABI: another offset must not compile.
const _: () = {
    assert!(size_of::<Header>() == HEADER_WORDS * 8);
    assert!(HEADER_WORDS * 8 == GLOBAL_OFFSET);
    assert!(offset_of!(Header, abi) == 8);
    assert!(offset_of!(Header, endian) == 16);
    assert!(offset_of!(Header, header_len) == 24);
    assert!(offset_of!(Header, file_size) == 32);
    assert!(offset_of!(Header, page_size) == 40);
    assert!(offset_of!(Header, m_off) == 48);
    assert!(offset_of!(Header, c_off) == 72);
    assert!(offset_of!(Header, nslots) == 96);
    assert!(offset_of!(Header, schema_off) == 104);
    assert!(offset_of!(Header, instance) == 120);
    assert!(offset_of!(Header, boot) == 136);
    assert!(offset_of!(Header, master_pid) == 152);
    assert!(offset_of!(Header, pid_namespace) == 168);
    assert!(offset_of!(Header, created_boot_ns) == 184);
    assert!(offset_of!(Header, previous_instance) == 192);
    assert!(READY_WORD == 26);
    assert!(GLOBAL.copies[0] * 8 == 640 && GLOBAL.copies[1] * 8 == 1920);
    assert!((GLOBAL.copies[1] + GLOBAL_WORDS) * 8 <= DEATHS_OFFSET);
    assert!(DEATHS_OFFSET + LINE + DEATHS * DEATH_WORDS * 8 == SCHEMA_OFFSET);
    assert!(MASTER_STRIDE == 3456 && MASTER_STRIDE.is_multiple_of(LINE));
    assert!(MASTER_HISTOGRAMS == 1664 && CHILD_HISTOGRAMS == 1216);
    assert!(LINE + SLOT_WORDS * 8 <= CHILD_HISTOGRAMS);
    assert!(offset_of!(Header, seconds_off) == 216);
    assert!(offset_of!(Header, hist_buckets) == 288);
    assert!(LINE + CHILD_ROOM <= CHILD_SECOND && CHILD_SECOND + CHILD_ROOM <= 4096);
    assert!(SLOT_WORDS * 8 <= CHILD_ROOM);
};

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn header(slots: u32) -> Header {
        let mut header = Header::zeroed();
        Geometry::plan(slots, 4096, 5000)
            .unwrap()
            .describe(&mut header, 4096);
        header
    }

    #[test]
    fn a_planned_geometry_survives_its_header() {
        let planned = Geometry::plan(1024, 4096, 5000).unwrap();
        assert_eq!(Geometry::of(&header(1024)).unwrap(), planned);
        assert_eq!(planned.file_size() % 4096, 0);
        let last = planned.child(1023).unwrap();
        assert!(((last.copies[1] + SLOT_WORDS) * 8) as u64 <= planned.file_size());
        assert_eq!(planned.child(1024), None);
        assert_eq!(planned.master(1024), None);
    }

    #[test]
    fn a_header_that_points_out_of_the_file_is_refused() {
        let spoil: [fn(&mut Header); 19] = [
            |h| h.nslots = 0,
            |h| h.nslots = u64::MAX,
            |h| h.nslots = 2000,
            |h| h.m_off = u64::MAX,
            |h| h.m_off += 4,
            |h| h.m_stride = u64::MAX / 2,
            |h| h.m_stride = 8,
            |h| h.m_copy_len = u64::MAX - 7,
            |h| h.c_copy_len = 4096,
            |h| h.c_stride = 16,
            |h| h.schema_len = u64::MAX,
            |h| h.header_len = 0,
            |h| h.seconds_off = u64::MAX - 7,
            |h| h.seconds_count = u64::MAX,
            |h| h.seconds_stride = 0,
            |h| h.events_off += 4,
            |h| h.events_count = 1 << 40,
            |h| h.m_hist_off = 8,
            |h| h.c_hist_off = u64::MAX - 7,
        ];
        for (index, spoil) in spoil.iter().enumerate() {
            let mut header = header(1024);
            spoil(&mut header);
            assert!(Geometry::of(&header).is_err(), "case {index}");
        }
    }
}
