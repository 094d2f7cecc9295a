//! Memory that is asked for before it is read.

use std::arch::x86_64::*;

use super::Stored;
use super::panel::{Part, in_lane};

/// Cache lines that are to be asked for, a few at a time: all at once would keep the processor from its work until they are there.
pub(crate) struct Ahead {
    at: *const u8,
    /// Lines to the end of this stretch.
    left: usize,
    /// Stretches of memory, this one included.
    stretches: usize,
    /// Lines of a stretch.
    lines: usize,
    /// Bytes from the end of a stretch to the next.
    gap: usize,
}

impl Ahead {
    pub(super) const NOTHING: Self = Self {
        at: std::ptr::null(),
        left: 0,
        stretches: 0,
        lines: 0,
        gap: 0,
    };

    /// Those of a part.
    pub(super) fn of<T>(right: Stored<'_, T>, part: Part) -> Self {
        let Part {
            start,
            deep,
            first,
            width,
        } = part;
        let (start, deep) = (in_lane::<T>() * start, in_lane::<T>() * deep);
        let (stretches, from, long, row) = match right.turned {
            true => (width, first * right.rows + start, deep, right.rows),
            false => (deep, start * right.columns + first, width, right.columns),
        };
        let at = right.data.as_ptr().wrapping_add(from).cast::<u8>();
        let offset = at.addr() % LINE;
        let lines = (offset + long * size_of::<T>()).div_ceil(LINE);
        Self {
            at: at.wrapping_sub(offset),
            left: lines,
            stretches,
            lines,
            gap: (row * size_of::<T>()).wrapping_sub(lines * LINE),
        }
    }

    /// All lines that are left.
    pub(super) fn len(&self) -> usize {
        self.stretches.saturating_sub(1) * self.lines + self.left
    }

    /// Asks for the next line.
    #[inline(always)]
    pub(super) fn ask(&mut self) {
        if self.left == 0 {
            return;
        }
        // SAFETY: a hint reads nothing.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(self.at.cast()) };
        self.at = self.at.wrapping_add(LINE);
        self.left -= 1;
        if self.left == 0 && self.stretches > 1 {
            self.stretches -= 1;
            self.left = self.lines;
            self.at = self.at.wrapping_add(self.gap);
        }
    }
}

/// Bytes of a cache line.
const LINE: usize = 64;
