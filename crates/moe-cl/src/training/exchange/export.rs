//! A task's answers as one PEFT adapter, or as a whole model.

use std::path::Path;

use moe_core::{checkpoint::Checkpoint, checkpoint::save_folder, model::BaseDtype, model::Decoder};
use moe_lora::ExpertId;

use super::{Gap, head};
use crate::{
    error::{Error, Result},
    events::Recorder,
    methods::Own,
    training::trained::Trained,
};

/// What is written.
#[derive(Clone, Debug)]
pub struct ExportOptions {
    /// The most that the task's score may fall where one adapter stands for a mixture.
    pub max_gap: f64,
    /// A whole model, the adapter folded into the base, in place of an adapter.
    pub merged: bool,
}

/// How the adapter came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Made {
    /// One expert answers: it is the adapter.
    Alone,
    /// The task is answered by a sum of updates, which is one update of the joined rank.
    Summed,
    /// Experts that a gate mixes, joined with its mean weights.
    Joined,
    /// Of experts that a gate mixes, the one that comes nearest to the mixture by itself.
    Nearest,
    /// A decoder that was trained whole; there is no adapter.
    Decoder,
}

/// What was written.
#[derive(Clone, Debug, PartialEq)]
pub struct Exported {
    /// How.
    pub made: Made,
    /// The experts that it comes from.
    pub experts: Vec<ExpertId>,
    /// What it costs; none where it costs nothing.
    pub gap: Option<Gap>,
    /// Whether a head lies beside.
    pub head: bool,
}

impl Trained<'_> {
    /// Writes what answers for `task` as the new folder `to`.
    ///
    /// # Errors
    /// When nothing of the method is an adapter, the gap is above `max_gap` or cannot be measured since no texts are kept, or the disk
    /// refuses. Nothing is written then.
    pub fn export(
        &self,
        task: usize,
        to: &Path,
        options: &ExportOptions,
        recorder: &mut dyn Recorder,
    ) -> Result<Exported> {
        let refused = |problem: String| self.cannot_export(task, problem);
        if to.symlink_metadata().is_ok() {
            let problem = format!(
                "{} exists already; name a folder that does not",
                to.display()
            );
            return Err(refused(problem));
        }
        if let Some(Own::Decoder(decoder)) = &self.learner.own {
            if !options.merged {
                let problem = "all weights were trained, and no adapter is them; --merged writes the whole model";
                return Err(refused(problem.into()));
            }
            let experts = Vec::new();
            self.save(task, to, decoder)?;
            return Ok(self.exported(task, Made::Decoder, experts, None));
        }
        let (candidate, gap) = self.best(task, recorder)?;
        if let Some(gap) = &gap
            && gap.lost() > options.max_gap
        {
            return Err(refused(format!(
                "one adapter scores {:.4} where the mixture scores {:.4}, on {} texts (logits differ by {:.3} in the mean, {:.3} at most): \
                 more than --max-gap {}; nothing was written",
                gap.after, gap.before, gap.texts, gap.mean, gap.largest, options.max_gap
            )));
        }
        match options.merged {
            true => {
                let alone = self.alone(task, &candidate.adapter)?;
                let expert = alone.answering(task).experts()[0];
                self.save(task, to, &alone.catalogue.merge(&self.base.decoder, expert))?;
            }
            false => {
                let labels = self.labels(task);
                let source = &self.saved.state.base.source;
                candidate.adapter.write(to, source, |dir| {
                    let head = self.learner.head(task);
                    head.map_or(Ok(()), |it| head::write(dir, it, labels))
                })?;
            }
        }
        Ok(self.exported(task, candidate.made, candidate.experts, gap))
    }

    fn exported(
        &self,
        task: usize,
        made: Made,
        experts: Vec<ExpertId>,
        gap: Option<Gap>,
    ) -> Exported {
        Exported {
            made,
            experts,
            gap,
            head: self.learner.head(task).is_some(),
        }
    }

    pub(super) fn cannot_export(&self, task: usize, problem: String) -> Error {
        Error::CannotExport {
            task: self.experiment.tasks[task].name.clone(),
            problem,
        }
    }

    /// The whole model, matrices in f32: an update is smaller than what bf16 tells apart.
    fn save(&self, task: usize, to: &Path, decoder: &Decoder) -> Result<()> {
        let base = Checkpoint::open(&self.base.path)?;
        let lacks =
            |name: &str| moe_core::Error::tensor(to, name, "the decoder has no such tensor");
        save_folder(to, decoder.config(), BaseDtype::F32, &base, |name, _| {
            decoder.stored(name).ok_or_else(|| lacks(name))
        })?;
        let Some(it) = self.learner.head(task) else {
            return Ok(());
        };
        head::write(to, it, self.labels(task)).map_err(|source| Error::File {
            path: to.into(),
            source,
        })
    }
}
