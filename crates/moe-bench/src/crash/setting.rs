//! What is run: a method, and how its tasks come.

use std::{fs, path::Path};

/// The methods, with options where those matter to what is stored.
pub const METHODS: [&str; 15] = [
    "{name='moe_cl'}",
    "{name='moe_cl',mode='paper'}",
    "{name='sequential'}",
    "{name='sequential',weights='all'}",
    "{name='per_task'}",
    "{name='o_lora'}",
    "{name='mocl'}",
    "{name='ewc'}",
    "{name='lwf'}",
    "{name='replay'}",
    "{name='a_gem'}",
    "{name='slao'}",
    "{name='joint'}",
    "{name='linear_probe'}",
    "{name='mix_lora',experts=3,router={kind='bias_balanced',top_k=2}}",
];

/// Those that have to know their tasks from the start.
const SEALED: [&str; 2] = ["{name='moe_cl',mode='paper'}", "{name='joint'}"];

/// How tasks come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// A stream of three.
    Train,
    /// A stream of two, and a third by itself.
    Learn,
}

/// A method and a way.
#[derive(Clone, Debug)]
pub struct Setting {
    /// One of [`METHODS`].
    pub method: &'static str,
    /// How tasks come.
    pub way: Way,
    /// Name of its files.
    pub name: String,
}

impl Setting {
    /// All of them; a sealed method learns no third by itself.
    pub fn all() -> Vec<Self> {
        let mut all = Vec::new();
        for (index, method) in METHODS.into_iter().enumerate() {
            for way in [Way::Train, Way::Learn] {
                if way == Way::Train || !SEALED.contains(&method) {
                    all.push(Self {
                        method,
                        way,
                        name: format!("{way:?}{index}").to_lowercase(),
                    });
                }
            }
        }
        all
    }

    /// Writes its experiment into `folder`.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn write(&self, folder: &Path) -> anyhow::Result<()> {
        let tasks = match self.way {
            Way::Train => 3,
            Way::Learn => 2,
        };
        let mut text = format!(
            "name = \"crash\"\nmethod = {}\n[base]\nsource = \"base\"\n[data]\nroot = \".\"\n[adapters]\nrank = 2\ndropout = 0.1\n\
             [router]\nfeatures = 64\n[training]\nepochs = 2\nbatch_size = 4\nlearning_rate = 0.01\ncheckpoint_every = 3\nkeep = 2\n",
            self.method
        );
        for task in 0..tasks {
            text += &format!(
                "[[tasks]]\nname = \"t{task}\"\ntrain = \"t{task}.jsonl\"\ntest = \"t{task}.jsonl\"\n"
            );
        }
        Ok(fs::write(folder.join(format!("{}.toml", self.name)), text)?)
    }

    /// The command that is disturbed, and that is given again until it is done.
    pub fn command(&self, run: &str) -> Vec<String> {
        let line = match self.way {
            Way::Train => format!("train --config {}.toml --resume --out {run}", self.name),
            Way::Learn => format!("learn {run} --data t2.jsonl --name t2 --test t2.jsonl"),
        };
        line.split(' ').map(str::to_owned).collect()
    }

    /// What has to be there before it, of a third task by itself.
    pub fn before(&self, run: &str) -> Option<Vec<String>> {
        let line = format!("train --config {}.toml --out {run}", self.name);
        let words = line.split(' ').map(str::to_owned).collect();
        (self.way == Way::Learn).then_some(words)
    }
}
