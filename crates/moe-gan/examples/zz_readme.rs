//! Temporary.
#![allow(missing_docs)]
use burn::tensor::{Device, Tensor};
use moe_gan::{Discriminator, DiscriminatorLoss, adversarial_loss};

fn main() {
    let device = Device::flex().autodiff();
    // The pooled features of two texts, one of each task, `[batch, d_model]`. The first number gives the task away.
    let pooled = Tensor::<2>::from_data([[1.0, 0.5], [-1.0, 0.5]], &device).require_grad();
    let weight = Tensor::from_data([[1.0, -1.0], [0.0, 0.0]], &device);
    let discriminators = [Discriminator::from_weight(weight)];
    let adversarial = adversarial_loss(
        &discriminators,
        vec![pooled.clone()],
        &[0, 1],
        DiscriminatorLoss::Logits,
    );
    // A training step adds the loss of the task.
    let gradients = (adversarial * 0.1).backward();

    // Descent makes the discriminator tell the tasks apart better …
    let weight = discriminators[0].weight.val().grad(&gradients).expect("it is trained");
    assert!(weight.into_data().iter::<f32>().next() < Some(0.0));
    // … and draws the tasks' features together.
    let feature = pooled.grad(&gradients).expect("it is trained");
    let feature: Vec<f32> = feature.into_data().iter::<f32>().collect();
    assert!(feature[0] > 0.0 && feature[2] < 0.0);
}
