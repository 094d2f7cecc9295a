//! The merges of a vocabulary in a GGUF file: which two tokens become one, in the order in which they are tried.

use std::collections::HashMap;

use super::gguf::refused;
use super::limits;
use crate::checkpoint::gguf::GgufTokenizer;
use crate::error::Result;

impl GgufTokenizer {
    /// Those that the file lists.
    pub(super) fn stored_merges(&self) -> Result<Vec<[&str; 2]>> {
        let split = |merge: &'_ String| -> Option<(usize, usize)> {
            let at = merge.char_indices().skip(1).find(|(_, c)| *c == ' ')?.0;
            Some((at, at + 1))
        };
        self.merges
            .iter()
            .map(|merge| match split(merge) {
                Some((end, start)) => Ok([&merge[..end], &merge[start..]]),
                None => Err(refused(format!("merge `{merge}` has not two parts"))),
            })
            .collect()
    }

    /// Those of a vocabulary with scores: every way to put a token together from two, the best token first.
    pub(super) fn scored_merges(&self) -> Result<Vec<[&str; 2]>> {
        let Some(scores) = &self.scores else {
            return Err(refused(
                "the file holds neither `tokenizer.ggml.merges` nor `tokenizer.ggml.scores`",
            ));
        };
        let ids: HashMap<&str, usize> = (self.tokens.iter().enumerate())
            .map(|(id, token)| (token.as_str(), id))
            .collect();
        let compared = self.tokens.iter().map(|token| token.len() * token.len());
        let compared = compared.sum::<usize>();
        if compared > limits::MAX_SPLITS {
            return Err(refused(format!(
                "to split the tokens takes {compared} comparisons; expected at most {}: this is no vocabulary of a model",
                limits::MAX_SPLITS
            )));
        }
        let (mut merges, mut bytes) = (Vec::new(), 0);
        for (token, score) in self.tokens.iter().zip(scores) {
            let mut ways: Vec<[&str; 2]> = token
                .char_indices()
                .skip(1)
                .map(|(at, _)| token.split_at(at))
                .filter(|(left, right)| ids.contains_key(left) && ids.contains_key(right))
                .map(|(left, right)| [left, right])
                .collect();
            ways.sort_by_key(|[left, right]| (ids[left], ids[right]));
            bytes += ways.len() * token.len();
            if merges.len() + ways.len() > limits::MAX_MERGES || bytes > limits::MAX_TEXT {
                return Err(refused(format!(
                    "the tokens can be put together in more than {} ways, or {} bytes: this is no vocabulary of a model",
                    limits::MAX_MERGES,
                    limits::MAX_TEXT
                )));
            }
            merges.extend(ways.into_iter().map(|way| (*score, way)));
        }
        merges.sort_by(|(a, _), (b, _)| b.total_cmp(a));
        Ok(merges.into_iter().map(|(_, way)| way).collect())
    }
}
