use burn::tensor::{Device, Tensor};

use super::*;
use crate::config::ModelConfig;
use crate::model::tests::tiny;

fn model() -> Decoder {
    Decoder::random(&tiny(), 11, &Device::flex())
}

#[test]
fn greedy_follows_the_argmax_of_the_whole_forward() {
    let model = model();
    let mut tokens = vec![4, 7, 1];
    let generated = generate(&model, &[tokens.clone()], 5, &Sampling::greedy(), &[]).unwrap();
    for token in &generated[0] {
        let (input, real) = pad(&[tokens.clone()], 0, Side::Right, &Device::flex());
        let hidden = model.forward(input, real);
        let [_, seq, d_model] = hidden.dims();
        let last: Tensor<2> = hidden.slice([0..1, seq - 1..seq]).reshape([1, d_model]);
        assert_eq!(*token, argmax(&rows(model.logits(last))[0]));
        tokens.push(*token);
    }
    assert_eq!(generated[0].len(), 5);
}

#[test]
fn a_prompt_is_continued_the_same_alone_and_in_a_batch() {
    let model = model();
    let prompts = [vec![4, 7, 1], vec![2], vec![9, 9, 9, 3, 5]];
    let greedy = Sampling::greedy();
    // The second prompt's third token ends texts, so that rows leave the batch at different steps.
    let eos = generate(&model, &prompts[1..2], 3, &greedy, &[]).unwrap()[0][2];
    let together = generate(&model, &prompts, 6, &greedy, &[eos]).unwrap();
    for (prompt, batched) in prompts.iter().zip(&together) {
        let alone = generate(&model, std::slice::from_ref(prompt), 6, &greedy, &[eos]).unwrap();
        assert_eq!(&alone[0], batched);
        assert!(!batched.contains(&eos));
    }
    assert!(together[1].len() <= 2);
}

#[test]
fn the_seed_decides_what_is_sampled() {
    let model = model();
    let sample = |seed| {
        let sampling = Sampling {
            temperature: 1.0,
            seed,
            ..Sampling::greedy()
        };
        generate(&model, &[vec![1, 2], vec![1, 2]], 12, &sampling, &[]).unwrap()
    };
    assert_eq!(sample(5), sample(5));
    assert_ne!(sample(5), sample(6));
    let rows = sample(5);
    assert_ne!(rows[0], rows[1]);
}

#[test]
fn nothing_asked_for_is_nothing_generated() {
    let model = Decoder::random(
        &ModelConfig {
            num_layers: 1,
            ..tiny()
        },
        0,
        &Device::flex(),
    );
    let greedy = Sampling::greedy();
    assert_eq!(
        generate(&model, &[vec![1]], 0, &greedy, &[]).unwrap(),
        [Vec::<u32>::new()]
    );
    assert!(generate(&model, &[], 3, &greedy, &[]).unwrap().is_empty());
}

#[test]
fn how_tokens_are_chosen_is_checked_before_any_is() {
    let sampling = Sampling {
        temperature: 1e-50,
        ..Sampling::greedy()
    };
    let mut chosen = 0;
    let refused = generate_with(&model(), &[vec![1]], 3, &sampling, &[], |_, _| chosen += 1);
    let message = refused.unwrap_err().to_string();
    assert!(message.contains("`temperature` is 1e-50"), "{message}");
    assert_eq!(chosen, 0);
}

/// Counts what it reads.
struct Counting(Decoder, std::cell::Cell<usize>);

impl CausalLm for Counting {
    fn forward_cached(
        &self,
        tokens: Tensor<2, Int>,
        real: Tensor<2, Bool>,
        cache: &mut KvCache,
    ) -> Tensor<3> {
        self.1.set(self.1.get() + tokens.dims()[1]);
        self.0.forward_cached(tokens, real, cache)
    }

    fn decoder(&self) -> &Decoder {
        &self.0
    }
}

#[test]
fn what_is_held_of_a_prompt_is_not_read_again_and_changes_nothing() {
    let model = Counting(model(), Default::default());
    let greedy = Sampling::greedy();
    let mut held = Held::new(model.num_layers());
    let mut said = |prompt: &[u32]| {
        let (mut new, before) = (Vec::new(), model.1.get());
        generate_after(&model, &mut held, prompt, 4, &greedy, &[], |it| {
            new.push(it);
        })
        .unwrap();
        let alone = generate(&model.0, &[prompt.to_vec()], 4, &greedy, &[]).unwrap();
        assert_eq!(new, alone[0]);
        (new, model.1.get() - before)
    };
    let first = [4, 7, 1, 5, 5, 2];
    let (answer, read) = said(&first);
    assert_eq!(read, 6 + 3);
    // The next turn begins with the first and its answer, whose last token was chosen and not read.
    let second = [&first[..], &answer[..], &[3, 9]].concat();
    assert_eq!(said(&second).1, 3 + 3);
    // The same again reads its last token alone; another beginning is read from where it differs.
    assert_eq!(said(&second).1, 1 + 3);
    assert_eq!(said(&[4, 7, 2, 2]).1, 2 + 3);
    assert_eq!(said(&[4]).1, 1 + 3);
}
