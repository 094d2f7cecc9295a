//! Out of Burn's operations: expert by expert.

use burn::tensor::{IndexingUpdateOp, Int, Tensor, module};

use super::Entries;
use crate::swiglu;

pub(super) fn sparse_ffn(
    x: Tensor<2>,
    matrices: [Tensor<3>; 3],
    Entries { token, expert }: &Entries,
    weights: Tensor<1>,
) -> Tensor<2> {
    let ([tokens, d_model], [experts, _, d_ff]) = (x.dims(), matrices[0].dims());
    let shapes = [[d_model, d_ff], [d_model, d_ff], [d_ff, d_model]];
    let device = x.device().inner();
    let indices = |entries: &[usize], of: &dyn Fn(usize) -> u32| {
        let numbers: Vec<i32> = entries.iter().map(|&entry| of(entry) as i32).collect();
        Tensor::<1, Int>::from_data(numbers.as_slice(), &device)
    };

    let mut own: Vec<Vec<usize>> = vec![Vec::new(); experts];
    for (entry, expert) in expert.iter().enumerate() {
        own[*expert as usize].push(entry);
    }
    let mut outputs = Vec::new();
    for (expert, entries) in own.iter().enumerate().filter(|(_, own)| !own.is_empty()) {
        let mut side = 0..3;
        let [gate, up, down] = matrices.each_ref().map(|matrix| {
            let shape = shapes[side.next().expect("three matrices")];
            let matrix = matrix.clone().narrow(0, expert, 1).reshape(shape);
            matrix.cast(x.dtype())
        });
        let product = |x: Tensor<2>, weight| module::linear(x, weight, None);
        let x = x.clone().select(0, indices(entries, &|entry| token[entry]));
        let weights = weights
            .clone()
            .select(0, indices(entries, &|entry| entry as u32));
        let h = swiglu(product(x.clone(), gate), product(x, up));
        outputs.push(product(h, down) * weights.unsqueeze_dim(1));
    }
    if outputs.is_empty() {
        return x * 0.0;
    }
    let sorted = own.concat();
    let zeros = Tensor::zeros([tokens, d_model], (&device, x.dtype()));
    let places = indices(&sorted, &|entry| token[entry]);
    zeros.select_assign(0, places, Tensor::cat(outputs, 0), IndexingUpdateOp::Add)
}
