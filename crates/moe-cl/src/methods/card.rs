//! What a reader has to know of a method before choosing it.

/// One line of the table of methods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Card {
    /// What it is, in a few words.
    pub what: &'static str,
    /// What it needs when a text is answered.
    pub needs: &'static str,
    /// What it stores for every task, besides the task's classification head.
    pub stores: &'static str,
    /// Where it comes from.
    pub source: &'static str,
    /// The defaults of what weighs its protection, and where they come from; empty where there is nothing to weigh.
    pub strength: &'static str,
}
