//! Who writes what.

use clap::Args;
use serde::Serialize;

/// What is written behind what.
#[derive(Args, Clone, Copy, Debug, Serialize)]
pub struct Work {
    /// Sequences at a time
    #[arg(long, hide = true, default_value_t = 1)]
    pub(super) sequences: usize,
    /// Tokens of each prompt
    #[arg(long, hide = true, default_value_t = 16)]
    pub(super) prompt: usize,
    /// Tokens written behind each
    #[arg(long, hide = true, default_value_t = 64)]
    pub(super) new: usize,
    /// Through two experts and their gate in every layer
    #[arg(long, hide = true)]
    pub(super) experts: bool,
}

/// A program to be compared with.
pub(super) struct Peer {
    pub(super) name: &'static str,
    /// Its file; [`OURS`] is this one without experts.
    pub(super) program: &'static str,
    pub(super) work: Work,
    /// Whether what counts is reading the prompts.
    pub(super) reads: bool,
    /// What is aimed at.
    pub(super) bar: f64,
}

pub(super) const OURS: &str = "";

pub(super) const PEERS: [Peer; 5] = [
    Peer {
        name: "llama_cpp_1",
        program: "llama_cpp.py",
        work: Work {
            sequences: 1,
            prompt: 16,
            new: 64,
            experts: false,
        },
        reads: false,
        bar: 1.0,
    },
    Peer {
        name: "llama_cpp_8",
        program: "llama_cpp.py",
        work: Work {
            sequences: 8,
            prompt: 16,
            new: 64,
            experts: false,
        },
        reads: false,
        bar: 1.0,
    },
    Peer {
        name: "llama_cpp_prompt",
        program: "llama_cpp.py",
        work: Work {
            sequences: 1,
            prompt: 480,
            new: 1,
            experts: false,
        },
        reads: true,
        bar: 3.0,
    },
    Peer {
        name: "transformers_f32",
        program: "transformers_decode.py",
        work: Work {
            sequences: 1,
            prompt: 16,
            new: 64,
            experts: false,
        },
        reads: false,
        bar: 2.0,
    },
    Peer {
        name: "without_experts",
        program: OURS,
        work: Work {
            sequences: 1,
            prompt: 16,
            new: 64,
            experts: true,
        },
        reads: false,
        bar: 0.85,
    },
];

impl Work {
    pub(super) fn arguments(&self) -> Vec<String> {
        let numbers = [
            ("--sequences", self.sequences),
            ("--prompt", self.prompt),
            ("--new", self.new),
        ];
        numbers
            .into_iter()
            .flat_map(|(name, number)| [name.to_owned(), number.to_string()])
            .collect()
    }

    /// Invented tokens, the same for every program.
    pub(super) fn prompts(&self) -> Vec<Vec<u32>> {
        let token = |place: usize, sequence: usize| 100 + (7 * place + 13 * sequence) % 1000;
        (0..self.sequences)
            .map(|sequence| {
                let tokens = (0..self.prompt).map(|place| token(place, sequence) as u32);
                tokens.collect()
            })
            .collect()
    }
}
