//! What people call the figures of methods. A figure without a caption is shown under its own name.

/// A name for people, and how to read the picture.
pub struct Caption {
    of: &'static str,
    /// Title of the section.
    pub title: &'static str,
    /// How to read it.
    pub how: &'static str,
    /// Value that leans to neither side, where the figure has one.
    pub middle: Option<f64>,
}

const CAPTIONS: [Caption; 3] = [
    Caption {
        of: "discriminator",
        title: "Discriminator: can the task be told from the shared expert?",
        how: "Over optimiser steps, smoothed within each task. Accuracy: share of pooled shared features whose task the discriminator names rightly, mean over layers. Chance is 1 / number of tasks seen: a line near it means that the shared expert's features say little about the task, a line near 1 that the adversarial game is lost.",
        middle: None,
    },
    Caption {
        of: "router",
        title: "Routers of the base: their losses",
        how: "Over optimiser steps, smoothed within each task, without their weights, mean over sparse layers. Balance is 1 and importance 0 where all experts have as much; z is the mean squared log-sum of a router's exponentials.",
        middle: None,
    },
    Caption {
        of: "gate/shared",
        title: "Gates: which expert answers, layer by layer",
        how: "Mean weight that the gate gives to the shared expert on the task just learnt. Blue layers lean on what tasks share, orange ones on the task's own expert; 0.5 is even.",
        middle: Some(0.5),
    },
];

/// The caption of a figure, or of the figures whose names begin with `of`; none where there is none.
pub fn caption(of: &str) -> Option<&'static Caption> {
    CAPTIONS.iter().find(|caption| caption.of == of)
}
