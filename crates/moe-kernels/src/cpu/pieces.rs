//! Disjoint pieces of one slice for parallel tasks.

use std::marker::PhantomData;
use std::ops::Range;

use super::queue::for_each_task;

/// A slice that several tasks write at the same time, each to places of its own.
pub(crate) struct Pieces<'a, T = f32> {
    data: *mut T,
    len: usize,
    life: PhantomData<&'a mut [T]>,
}

impl<T> Clone for Pieces<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Pieces<'_, T> {}

// SAFETY: access goes through methods whose callers promise disjoint places.
unsafe impl<T: Send> Send for Pieces<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Pieces<'_, T> {}

impl<'a, T> Pieces<'a, T> {
    pub(crate) fn new(slice: &'a mut [T]) -> Self {
        Self {
            data: slice.as_mut_ptr(),
            len: slice.len(),
            life: PhantomData,
        }
    }

    /// Where entry `start` is.
    pub(crate) fn at(self, start: usize) -> *mut T {
        assert!(start < self.len, "a place past the end");
        self.data.wrapping_add(start)
    }

    /// Entries `start..start + len`.
    ///
    /// # Safety
    ///
    /// No two live pieces may overlap, and the entries have been written.
    pub(crate) unsafe fn piece(self, start: usize, len: usize) -> &'a mut [T] {
        assert!(start + len <= self.len, "a piece past the end");
        // SAFETY: inside the slice (asserted); the caller keeps pieces apart.
        unsafe { std::slice::from_raw_parts_mut(self.data.add(start), len) }
    }
}

impl<'a, T: Default + Copy> Pieces<'a, T> {
    /// Entries `start..start + len`, all of them zero from now on.
    ///
    /// # Safety
    ///
    /// No two live pieces may overlap.
    pub(crate) unsafe fn zeroed(self, start: usize, len: usize) -> &'a mut [T] {
        assert!(start + len <= self.len, "a piece past the end");
        // SAFETY: inside the slice (asserted), and nobody else's.
        unsafe {
            for entry in start..start + len {
                self.data.add(entry).write(T::default());
            }
            self.piece(start, len)
        }
    }
}

/// `len` numbers that `fill` writes, `step` at a time on all threads: it gets a place, and zeros there that are still in the
/// cache when it puts numbers over them.
pub(crate) fn filled(
    len: usize,
    step: usize,
    fill: impl Fn(Range<usize>, &mut [f32]) + Sync,
) -> Vec<f32> {
    let mut numbers = Buffer::new(len);
    let pieces = numbers.pieces();
    let tasks = len.div_ceil(step.max(1));
    for_each_task(
        tasks,
        || (),
        |(), task| {
            let place = task * step..len.min((task + 1) * step);
            // SAFETY: every task has a place of its own.
            let out = unsafe { pieces.zeroed(place.start, place.len()) };
            fill(place, out);
        },
    );
    // SAFETY: the places are all there is, and hold at least zeros.
    unsafe { numbers.written() }
}

/// Room for numbers that tasks are about to write: filling it with zeros first would take as long as another pass.
pub(crate) struct Buffer<T = f32> {
    numbers: Vec<T>,
    len: usize,
}

impl<T> Buffer<T> {
    pub(crate) fn new(len: usize) -> Self {
        Self {
            numbers: Vec::with_capacity(len),
            len,
        }
    }

    /// Nothing may be read from it before it is written.
    pub(crate) fn pieces(&mut self) -> Pieces<'_, T> {
        Pieces {
            data: self.numbers.as_mut_ptr(),
            len: self.len,
            life: PhantomData,
        }
    }

    /// # Safety
    ///
    /// Every entry has been written.
    pub(crate) unsafe fn written(mut self) -> Vec<T> {
        // SAFETY: within the capacity, and written as the caller says.
        unsafe { self.numbers.set_len(self.len) };
        self.numbers
    }
}
