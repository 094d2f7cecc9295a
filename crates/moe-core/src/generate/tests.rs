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
