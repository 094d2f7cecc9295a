/// What a router is told of the tokens besides their states: how many there are, in which groups they queue, and which are padding.
///
/// Tokens of a group lie side by side. A group (GShard §2.2) is what capacity is counted in and balance is averaged over:
/// a sequence, a batch, or a share of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tokens {
    count: usize,
    groups: usize,
    real: Option<Vec<bool>>,
    named: Option<Named>,
}

/// What PanGu-Σ routes by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Named {
    /// `[tokens]`, ids of the vocabulary.
    pub ids: Vec<u32>,
    /// `[tokens]`.
    pub domains: Vec<u32>,
}

impl Tokens {
    /// `count` tokens of one group, none of them padding.
    ///
    /// # Panics
    /// When there is none.
    pub fn new(count: usize) -> Self {
        assert!(count > 0, "a router needs at least one token");
        Self {
            count,
            groups: 1,
            real: None,
            named: None,
        }
    }

    /// The same tokens in `groups` groups of one size.
    ///
    /// # Panics
    /// When they cannot be cut so.
    #[must_use]
    pub fn in_groups(mut self, groups: usize) -> Self {
        assert!(
            groups > 0 && self.count.is_multiple_of(groups),
            "{} tokens cannot be cut into {groups} groups of one size",
            self.count
        );
        self.groups = groups;
        self
    }

    /// `real [tokens]` is false where a token is padding: it goes to no expert, takes no place and counts in no loss.
    ///
    /// # Panics
    /// When there is not one entry per token, or no token is real.
    #[must_use]
    pub fn with_real(mut self, real: Vec<bool>) -> Self {
        assert_eq!(real.len(), self.count, "one entry of `real` per token");
        assert!(real.contains(&true), "every token is padding");
        self.real = real.contains(&false).then_some(real);
        self
    }

    /// `ids [tokens]` of the vocabulary and `domains [tokens]`, which [`RandomRouted`](super::RandomRouted) routes by.
    ///
    /// # Panics
    /// When there is not one of each per token.
    #[must_use]
    pub fn with_ids(mut self, ids: Vec<u32>, domains: Vec<u32>) -> Self {
        assert_eq!(ids.len(), self.count, "one id per token");
        assert_eq!(domains.len(), self.count, "one domain per token");
        self.named = Some(Named { ids, domains });
        self
    }

    /// How many, padding included.
    pub fn count(&self) -> usize {
        self.count
    }

    /// How many groups.
    pub fn groups(&self) -> usize {
        self.groups
    }

    /// Tokens of a group, padding included.
    pub fn per_group(&self) -> usize {
        self.count / self.groups
    }

    /// Whether a token is none of the padding.
    pub fn is_real(&self, token: usize) -> bool {
        self.real.as_ref().is_none_or(|real| real[token])
    }

    /// `[groups]`, real tokens of each.
    pub(crate) fn real_per_group(&self) -> Vec<usize> {
        let size = self.per_group();
        (0..self.groups)
            .map(|group| {
                let tokens = group * size..(group + 1) * size;
                tokens.filter(|&token| self.is_real(token)).count()
            })
            .collect()
    }

    /// `[tokens]`, 1 where real and 0 in the padding; nothing where no token is padding.
    pub(crate) fn mask(&self) -> Option<Vec<f32>> {
        let real = self.real.as_ref()?;
        Some(real.iter().map(|&real| f32::from(u8::from(real))).collect())
    }

    pub(crate) fn named(&self) -> Option<&Named> {
        self.named.as_ref()
    }
}
