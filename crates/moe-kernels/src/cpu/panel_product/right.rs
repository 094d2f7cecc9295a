//! What the panels of a product are laid out from.

use super::panel::{self, Line, Part};
use super::{Format, Stored};

/// A right factor `[rows, columns]`.
pub(super) trait Right: Copy + Sync {
    /// What its panels hold.
    type Number: Format;

    /// `[rows, columns]`.
    fn dims(&self) -> [usize; 2];

    /// Room for panels of `deep` lanes.
    fn room(&self, deep: usize) -> Room;

    /// Copies a part into the panel.
    ///
    /// # Safety
    ///
    /// The processor has the instructions, and the matrix has the part.
    unsafe fn lay_out(self, part: Part, room: &mut Room);

    /// Asks for one of `shares` shares of a part, so that it is in the cache when it is laid out.
    fn prefetch(self, part: Part, share: usize, shares: usize);
}

/// What a thread lays panels out in.
pub(super) struct Room {
    pub(super) panel: Vec<Line>,
    /// Numbers on their way from blocks to the panel.
    pub(super) numbers: Vec<f32>,
}

impl<T: Format> Right for Stored<'_, T> {
    type Number = T;

    fn dims(&self) -> [usize; 2] {
        [self.rows, self.columns]
    }

    fn room(&self, deep: usize) -> Room {
        Room {
            panel: panel::room(deep),
            numbers: Vec::new(),
        }
    }

    unsafe fn lay_out(self, part: Part, room: &mut Room) {
        // SAFETY: the caller's promise.
        unsafe { panel::lay_out(self, part, &mut room.panel) }
    }

    fn prefetch(self, part: Part, share: usize, shares: usize) {
        panel::prefetch(self, part, share, shares);
    }
}
