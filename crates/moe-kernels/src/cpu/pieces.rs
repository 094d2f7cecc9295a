//! Disjoint pieces of one slice for parallel tasks.

use std::marker::PhantomData;
use std::mem::MaybeUninit;

/// A slice that several tasks write at the same time, each to places of its own.
#[derive(Clone, Copy)]
pub(crate) struct Pieces<'a> {
    data: *mut f32,
    len: usize,
    life: PhantomData<&'a mut [f32]>,
}

// SAFETY: access goes through `piece` alone, whose callers promise disjoint places.
unsafe impl Send for Pieces<'_> {}
// SAFETY: as above.
unsafe impl Sync for Pieces<'_> {}

impl<'a> Pieces<'a> {
    pub(crate) fn new(slice: &'a mut [f32]) -> Self {
        Self {
            data: slice.as_mut_ptr(),
            len: slice.len(),
            life: PhantomData,
        }
    }

    /// Of places that hold nothing yet.
    ///
    /// # Safety
    ///
    /// Every place is written, through [`Self::at`], before it is read.
    pub(crate) unsafe fn uninitialised(places: &'a mut [MaybeUninit<f32>]) -> Self {
        Self {
            data: places.as_mut_ptr().cast(),
            len: places.len(),
            life: PhantomData,
        }
    }

    /// Where entry `start` is.
    pub(crate) fn at(self, start: usize) -> *mut f32 {
        assert!(start < self.len, "a place past the end");
        self.data.wrapping_add(start)
    }

    /// Entries `start..start + len`.
    ///
    /// # Safety
    ///
    /// No two live pieces may overlap.
    pub(crate) unsafe fn piece(self, start: usize, len: usize) -> &'a mut [f32] {
        assert!(start + len <= self.len, "a piece past the end");
        // SAFETY: inside the slice (asserted); the caller keeps pieces apart.
        unsafe { std::slice::from_raw_parts_mut(self.data.add(start), len) }
    }
}
