//! What is scored after a task, and what need not be scored again.

use burn::module::Module;

use super::{Moved, Run};
use crate::{
    base::Base,
    config::Experiment,
    directory::Stage,
    error::Result,
    events::{Event, Recorder},
    learner::Learner,
    methods::Method,
    recognizer::{Matrix, TaskRecognizer},
    training::{
        evaluate::{Evaluation, Scores, balance_of, gate_share},
        infer::{Answers, Known, Sent, evaluation_features},
        scored::TextScores,
        stream::Task,
    },
    trunk::TrunkCache,
};

impl Run<'_> {
    /// Adds the row `after` to the matrix, `moved` being what the task just learnt has moved. A task that has not been learnt yet is
    /// answered as its training would find it.
    ///
    /// A task whose answers stand on nothing that moved is not asked again: its score is the one it had.
    pub(super) fn score_all(&mut self, after: usize, moved: &Moved) -> Result<()> {
        let still = self.still(moved);
        self.still.clone_from(&still);
        let asked: Vec<usize> = self
            .scope(after)
            .into_iter()
            .filter(|&it| !still[it])
            .collect();
        let ahead = self.ahead().valid();
        let prepared = asked.iter().copied().filter(|&task| task < after);
        let ahead = self.with_experts_of(ahead, prepared)?;
        let evaluation = evaluation_of(
            &self.experiment,
            self.base,
            &*self.method,
            &self.tasks,
            &ahead,
        );
        let mut scores = evaluation.given(&asked, after, self.recorder)?;
        for (task, known) in self.known.iter_mut().enumerate() {
            match &scores.texts[task] {
                Some(texts) => known.texts.given = TextScores(texts.clone()),
                None if still[task] => {
                    let texts = known.texts.given.0.clone();
                    scores.accuracies[task] = self.tasks[task].total(&texts);
                    scores.texts[task] = Some(texts);
                }
                // What was known is no longer so.
                None => *known = Known::default(),
            }
        }
        self.stages.push(Stage {
            scores: scores.accuracies.clone(),
            inferred: None,
        });
        self.trunk_warning()?;
        self.record(Event::Evaluated {
            after,
            scores: scores.accuracies.clone(),
            examples_per_second: scores.examples_per_second,
        })?;
        for &task in &asked {
            let layers = balance_of(self.base, &ahead, &self.tasks[task], task);
            if !layers.is_empty() {
                let event = Event::Balance {
                    task,
                    after,
                    layers,
                };
                self.record(event)?;
            }
        }
        let Some(learnt) = after.checked_sub(1) else {
            return Ok(());
        };
        self.infer(after, &ahead, &scores, &still)?;
        if let Some(layers) = gate_share(self.base, &ahead, &self.tasks[learnt], learnt) {
            self.record(Event::LayerFigures {
                task: learnt,
                name: "gate/shared".into(),
                first: self.learner.catalogue.layers().start,
                layers,
            })?;
        }
        Ok(())
    }

    /// Adds scores of the tasks `which` to the row `after` that is there.
    pub(super) fn score(&mut self, after: usize, which: &[usize]) -> Result<()> {
        let ahead = self.ahead().valid();
        let evaluation = evaluation_of(
            &self.experiment,
            self.base,
            &*self.method,
            &self.tasks,
            &ahead,
        );
        let scores = evaluation.given(which, after, self.recorder)?;
        if let Some(row) = self.stages.get_mut(after) {
            row.scores.resize(self.tasks.len(), None);
            for (place, score) in row.scores.iter_mut().zip(&scores.accuracies) {
                *place = score.or(*place);
            }
        }
        self.record(Event::Evaluated {
            after,
            scores: scores.accuracies,
            examples_per_second: scores.examples_per_second,
        })
    }

    /// The model as it stands.
    pub(in crate::training) fn model(&self) -> (Learner, TaskRecognizer) {
        (self.learner.clone(), self.recognizer.clone())
    }

    /// How the texts of the tasks `dev`, all but the last of the stream, are answered by a learner off the autodiff device and a
    /// recognizer, with the task given and with it inferred. The last may be sent texts, and is not asked about its own. What is
    /// `known` of a task is not asked again where the task learnt last has left its answers as they were.
    pub(in crate::training) fn dev_scores(
        &mut self,
        learner: &Learner,
        recognizer: &TaskRecognizer,
        dev: &[Task],
        known: Option<&[Answers]>,
    ) -> Result<(Vec<Answers>, Vec<Answers>)> {
        let known_of = |task: usize| {
            let still = self.still.get(task).copied().unwrap_or(false);
            known
                .filter(|_| still)
                .and_then(|known| known[task].clone())
        };
        let earlier = 0..dev.len().saturating_sub(1);
        let asked: Vec<usize> = earlier.filter(|&it| known_of(it).is_none()).collect();
        let asked_of = self.with_experts_of(learner.clone(), asked.iter().copied())?;
        let evaluation = evaluation_of(&self.experiment, self.base, &*self.method, dev, &asked_of);
        let scores = evaluation.given(&asked, self.progress.task, &mut Silent)?;
        let given: Vec<Answers> = scores
            .texts
            .into_iter()
            .enumerate()
            .map(|(task, texts)| texts.or_else(|| known_of(task)))
            .collect();
        let features: Vec<Matrix> = dev
            .iter()
            .map(|task| evaluation_features(self.base, recognizer, task))
            .collect();
        let fallback = |task| self.method.fallback(learner, task).is_some();
        let sent = Sent::new(recognizer, &features, fallback, &given, &[], &[]);
        let learner = self.with_experts_of(learner.clone(), sent.tasks().into_iter())?;
        let evaluation = evaluation_of(&self.experiment, self.base, &*self.method, dev, &learner);
        let (_, inferred) = sent.evaluate(&evaluation)?;
        Ok((given, inferred))
    }

    /// The learner with what tasks that are not learnt yet would find.
    pub(super) fn ahead(&self) -> Learner {
        let prepared = self.learner.tasks.len();
        (prepared..self.tasks.len()).fold(self.learner.clone(), |learner, task| {
            self.prepare(learner, task)
        })
    }

    /// Per task: whether its answers are as they were when they were last scored, since nothing on which they stand has moved.
    fn still(&self, moved: &Moved) -> Vec<bool> {
        let stands = |task: usize| {
            let prepared = task < self.learner.tasks.len() && moved.task != Some(task);
            let scored = !self.known[task].texts.given.is_empty();
            if !prepared || !scored {
                return false;
            }
            let Some(on) = self.method.stands_on(&self.learner, task) else {
                return moved.task.is_none();
            };
            moved.experts.iter().all(|moved| {
                let gate = on.gate().is_some() && on.gate() == moved.gate();
                let expert = on.experts().iter().any(|id| moved.experts().contains(id));
                !gate && !expert
            })
        };
        (0..self.tasks.len()).map(stands).collect()
    }

    /// The tasks that are scored after `after` tasks: the one just learnt always; all others too where it is their turn
    /// (`evaluation.every`), or as many as are allowed (`evaluation.tasks`), those first whose last score is the oldest.
    fn scope(&self, after: usize) -> Vec<usize> {
        let (count, own) = (self.tasks.len(), after.checked_sub(1));
        let settings = &self.experiment.evaluation;
        let last = after == count;
        if after > 0 && !last && !after.is_multiple_of(settings.every) {
            return own.into_iter().collect();
        }
        let mut others: Vec<usize> = (0..count).filter(|&task| Some(task) != own).collect();
        if let Some(most) = settings.tasks
            && after > 0
        {
            let last_scored = |task: &usize| {
                let scored = |stage: &Stage| stage.scores.get(*task).is_some_and(Option::is_some);
                self.stages.iter().rposition(scored)
            };
            others.sort_by_key(last_scored);
            others.truncate(most);
        }
        others.extend(own);
        others.sort_unstable();
        others
    }

    /// The same row when nobody says which task a text belongs to.
    fn infer(
        &mut self,
        after: usize,
        ahead: &Learner,
        given: &Scores,
        still: &[bool],
    ) -> Result<()> {
        for task in self.features.len()..self.tasks.len() {
            let features = evaluation_features(self.base, &self.recognizer, &self.tasks[task]);
            self.features.push(features);
        }
        let fallback = |task| self.method.fallback(ahead, task).is_some();
        let (features, given) = (&self.features, &given.texts);
        let sent = Sent::new(
            &self.recognizer,
            features,
            fallback,
            given,
            &self.known,
            still,
        );
        let asked_of = self.with_experts_of(ahead.clone(), sent.tasks().into_iter())?;
        let routes = sent.routes.clone();
        let evaluation = evaluation_of(
            &self.experiment,
            self.base,
            &*self.method,
            &self.tasks,
            &asked_of,
        );
        let (scores, texts) = sent.evaluate(&evaluation)?;
        for ((known, texts), routes) in self.known.iter_mut().zip(texts).zip(routes) {
            if let Some(texts) = texts {
                known.texts.inferred = TextScores(texts);
                known.routes = routes;
            }
        }
        if let Some(stage) = self.stages.last_mut() {
            stage.inferred = Some(scores.clone());
        }
        self.record(Event::Inferred { after, scores })
    }

    /// Says, once, that what the frozen layers make of texts is not kept.
    pub(in crate::training) fn trunk_warning(&mut self) -> Result<()> {
        let failure = self.base.trunk.as_ref().and_then(TrunkCache::news);
        match failure.map(str::to_owned) {
            Some(message) => self.record(Event::Warning { message }),
            None => Ok(()),
        }
    }
}

/// `learner`, off the autodiff device, to be asked about the tasks of a run.
fn evaluation_of<'a>(
    experiment: &Experiment,
    base: &'a Base,
    method: &'a dyn Method,
    tasks: &'a [Task],
    learner: &'a Learner,
) -> Evaluation<'a> {
    Evaluation {
        batch_size: experiment.evaluation.batch_size,
        base,
        method,
        learner,
        tasks,
    }
}

/// Takes note of nothing.
struct Silent;

impl Recorder for Silent {
    fn record(&mut self, _event: &Event) -> std::io::Result<()> {
        Ok(())
    }
}
