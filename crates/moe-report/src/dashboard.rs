//! The run on burn-train's dashboard: events in, calls of its renderer traits out.

use std::{
    collections::BTreeMap,
    io::{self, IsTerminal},
};

use burn_train::{
    Interrupter,
    metric::Metric,
    renderer::{EvaluationName, MetricsRenderer, tui::TuiMetricsRendererWrapper},
};

use moe_cl::events::{Event, Recorder, mean_balance};

use crate::scalar::{Reading, Scalar};

/// Shows a run on any [`MetricsRenderer`] of burn-train: loss, learning rate, tokens per second and the method's own figures as
/// training metrics, accuracy per task and what the method says of the layers (mean over them) as test metrics, and the
/// progress of both.
///
/// The renderer counts in epochs of equal size, which tasks are not: the whole stream is shown as one epoch whose items
/// are optimiser steps, so that progress and ETA stay right, and the task at hand is named in the label.
pub struct Dashboard {
    renderer: Box<dyn MetricsRenderer>,
    interrupter: Interrupter,
    training: [Shown; 3],
    accuracy: Shown,
    /// The method's figures of steps, by name.
    figures: BTreeMap<String, Shown>,
    /// Its figures of layers, by name.
    layer_figures: BTreeMap<String, Shown>,
    method: String,
    tasks: Vec<String>,
    total_steps: usize,
    /// Optimiser steps done.
    step: usize,
    /// Where the run is, in words.
    place: String,
}

/// A metric, and whether the renderer knows it: it learns of a metric with its first value, so that it shows none that
/// a method does not have.
struct Shown {
    scalar: Scalar,
    registered: bool,
}

impl Dashboard {
    /// burn-train's ratatui dashboard on this terminal. Keys: `q` to stop, arrows to change the plot.
    ///
    /// It takes the screen until it is dropped, so nothing else may write to the terminal. "Stop the training" ends the run
    /// with an [`Interrupted`](io::ErrorKind::Interrupted) error from [`record`](Recorder::record); "stop immediately"
    /// panics, as it does in burn's own training loop. A run can be resumed after either.
    ///
    /// # Errors
    /// When the standard output is not a terminal.
    pub fn terminal() -> io::Result<Self> {
        if !io::stdout().is_terminal() {
            let problem =
                "the dashboard needs a terminal and the standard output is none; run without it";
            return Err(io::Error::new(io::ErrorKind::Unsupported, problem));
        }
        let interrupter = Interrupter::new();
        let renderer = TuiMetricsRendererWrapper::new(interrupter.clone(), None);
        Ok(Self::new(Box::new(renderer), interrupter))
    }

    /// Shows the run on `renderer`; the run stops when `interrupter` says so.
    pub fn new(renderer: Box<dyn MetricsRenderer>, interrupter: Interrupter) -> Self {
        Self {
            renderer,
            interrupter,
            training: [
                Shown::new("Loss", None, false, 3),
                Shown::new("Learning rate", None, false, 2),
                Shown::new("Tokens per second", Some("tokens/s"), true, 0),
            ],
            accuracy: Shown::new("Accuracy", None, true, 3),
            figures: BTreeMap::new(),
            layer_figures: BTreeMap::new(),
            method: String::new(),
            tasks: Vec::new(),
            total_steps: 0,
            step: 0,
            place: String::new(),
        }
    }

    /// Shows a label, and that as many steps are done as were before: the renderer takes it for a new beginning.
    fn label(&mut self, label: &str) {
        let total = self.total_steps;
        self.renderer.start(1, 1, Some(total), Some(label));
        self.renderer.start_split("train", total);
        self.renderer.update_split(self.step);
    }
}

impl Recorder for Dashboard {
    fn record(&mut self, event: &Event) -> io::Result<()> {
        let renderer = &mut *self.renderer;
        match event {
            Event::RunStarted {
                method,
                tasks,
                total_steps,
                resumed_at,
                ..
            } => {
                self.method.clone_from(method);
                self.tasks.clone_from(tasks);
                self.total_steps = *total_steps;
                self.step = resumed_at.unwrap_or(0);
                self.place.clone_from(method);
                renderer.start_global_progress(tasks.len() + 1);
                self.label(method);
            }
            Event::TaskStarted { task, name, .. } => {
                let place = format!(
                    "{}, task {}/{} {name}",
                    self.method,
                    task + 1,
                    self.tasks.len()
                );
                self.label(&place);
                self.place = place;
                let training = self.training.iter_mut().chain(self.figures.values_mut());
                training.for_each(|shown| shown.scalar.clear());
            }
            Event::Step {
                step,
                loss,
                figures,
                learning_rate,
                real_tokens,
                balance,
                seconds,
                ..
            } => {
                let rate = (*seconds > 0.0).then(|| *real_tokens as f64 / seconds);
                let values = [Some(*loss), Some(*learning_rate), rate];
                for (shown, value) in self.training.iter_mut().zip(values) {
                    shown.train(renderer, value);
                }
                for (name, value) in figures.iter().chain(&mean_balance(balance)) {
                    Shown::called(&mut self.figures, name).train(renderer, Some(*value));
                }
                self.step = *step;
                renderer.update_split(*step);
                return self.stop_if_asked();
            }
            Event::EvaluationStarted { after, examples } => {
                renderer.start_test(&format!("after task {after}"), *examples);
            }
            Event::EvaluationStep { done } => {
                renderer.update_test_progress(*done);
                return self.stop_if_asked();
            }
            Event::Evaluated { scores, .. } => {
                // The end of a test would set back the counts of warnings and checkpoints.
                for (task, score) in self.tasks.iter().zip(scores) {
                    if let Some(score) = score {
                        self.accuracy.test(renderer, task, *score);
                    }
                }
            }
            Event::LayerFigures {
                task, name, layers, ..
            } => {
                if let (Some(task), false) = (self.tasks.get(*task), layers.is_empty()) {
                    let mean = layers.iter().sum::<f64>() / layers.len() as f64;
                    Shown::called(&mut self.layer_figures, name).test(renderer, task, mean);
                }
            }
            Event::Balance { task, layers, .. } => {
                if let Some(task) = self.tasks.get(*task) {
                    for (name, mean) in mean_balance(layers) {
                        Shown::called(&mut self.layer_figures, &name).test(renderer, task, mean);
                    }
                }
            }
            Event::Inferred { .. } => {}
            Event::CheckpointSaved { .. } => renderer.log_event_training("checkpoints".into()),
            Event::Warning { message } => {
                // The renderer has no place for texts but the label, which stays until the next task.
                renderer.log_event_training("warnings".into());
                let label = format!("{} · warning: {message}", self.place);
                self.label(&label);
            }
            Event::RunFinished { .. } => {
                renderer.end_global_progress();
                renderer.end();
                renderer
                    .on_train_end(None)
                    .map_err(|error| io::Error::other(error.to_string()))?;
            }
        }
        Ok(())
    }
}

impl Dashboard {
    fn stop_if_asked(&self) -> io::Result<()> {
        if self.interrupter.should_stop() {
            let problem =
                "stopped from the dashboard; resume the run to go on from its last checkpoint";
            return Err(io::Error::new(io::ErrorKind::Interrupted, problem));
        }
        Ok(())
    }
}

impl Shown {
    fn new(name: &str, unit: Option<&str>, higher_is_better: bool, precision: usize) -> Self {
        Self {
            scalar: Scalar::new(name, unit, higher_is_better, precision),
            registered: false,
        }
    }

    /// The one of `name`, which is new where no event has named it yet. The renderer asks which direction is better, and of the
    /// figure of a method nobody knows: it makes no difference to what is drawn.
    fn called<'a>(shown: &'a mut BTreeMap<String, Self>, name: &str) -> &'a mut Self {
        shown
            .entry(name.to_owned())
            .or_insert_with(|| Self::new(name, None, false, 3))
    }

    /// A value of a training step, where there is a finite one.
    fn train(&mut self, renderer: &mut dyn MetricsRenderer, value: Option<f64>) {
        if let Some(value) = value.filter(|value| value.is_finite()) {
            self.introduce(renderer);
            renderer.update_train(self.scalar.shown(Reading { value, count: 1 }));
        }
    }

    fn introduce(&mut self, renderer: &mut dyn MetricsRenderer) {
        if !self.registered {
            renderer.register_metric(self.scalar.definition());
            self.registered = true;
        }
    }

    fn test(&mut self, renderer: &mut dyn MetricsRenderer, task: &str, value: f64) {
        self.introduce(renderer);
        self.scalar.clear(); // a mean over different tasks would be shown as one of this task
        renderer.update_test(
            EvaluationName::new(task),
            self.scalar.shown(Reading { value, count: 1 }),
        );
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use burn_train::{
        logger::{EvaluationProgressLogger, TrainingProgressLogger},
        metric::MetricDefinition,
        renderer::{MetricState, MetricsRendererEvaluation, MetricsRendererTraining},
    };

    use super::*;
    use crate::examples::look;

    /// Writes down its calls as text.
    #[derive(Clone, Default)]
    struct Notebook(Arc<Mutex<Vec<String>>>);

    impl Notebook {
        fn note(&self, call: String) {
            self.0.lock().unwrap().push(call);
        }

        fn metric(&self, split: &str, state: &MetricState) {
            let MetricState::Numeric(entry, Some(value)) = state else {
                panic!("a numeric state")
            };
            let metric = entry.metric_id.clone();
            self.note(format!("{split} {metric:?} {}", value.current()));
        }

        fn saw(&self, call: &str) -> bool {
            self.0
                .lock()
                .unwrap()
                .iter()
                .any(|seen| seen.contains(call))
        }
    }

    impl MetricsRendererTraining for Notebook {
        fn update_train(&mut self, state: MetricState) {
            self.metric("train", &state);
        }
        fn update_valid(&mut self, state: MetricState) {
            self.metric("valid", &state);
        }
    }
    impl MetricsRendererEvaluation for Notebook {
        fn update_test(&mut self, name: EvaluationName, state: MetricState) {
            self.metric(name.as_str(), &state);
        }
    }
    impl TrainingProgressLogger for Notebook {
        fn start(&mut self, _: usize, _: usize, _: Option<usize>, label: Option<&str>) {
            self.note(format!("start {label:?}"));
        }
        fn update_epoch(&mut self, _: usize) {}
        fn start_split(&mut self, _: &str, _: usize) {}
        fn update_split(&mut self, done: usize) {
            self.note(format!("step {done}"));
        }
        fn end_split(&mut self) {}
        fn end(&mut self) {}
        fn log_event_training(&mut self, _: String) {}
    }
    impl EvaluationProgressLogger for Notebook {
        fn start_global_progress(&mut self, _: usize) {}
        fn start_test(&mut self, _: &str, _: usize) {}
        fn update_test_progress(&mut self, _: usize) {}
        fn end_test(&mut self) {
            self.note("end of a test".into());
        }
        fn end_global_progress(&mut self) {}
        fn log_event_evaluation(&mut self, _: String) {}
    }
    impl MetricsRenderer for Notebook {
        fn manual_close(&mut self) {}
        fn register_metric(&mut self, definition: MetricDefinition) {
            self.note(format!("register {}", definition.name));
        }
    }

    fn started() -> Event {
        Event::RunStarted {
            name: "x".into(),
            method: "sequential".into(),
            seed: 0,
            tasks: vec!["amazon".into(), "yelp".into()],
            total_steps: 4,
            resumed_at: None,
        }
    }

    fn step(step: usize) -> Event {
        Event::Step {
            task: 0,
            step,
            loss: 0.5,
            figures: [("adversary/accuracy".to_owned(), 0.25)].into(),
            learning_rate: 0.25,
            gradient_norm: 1.0,
            real_tokens: 10,
            balance: vec![look(8, 0.5, [4; 4]), look(9, 0.25, [4; 4])],
            seconds: 0.5,
        }
    }

    #[test]
    fn the_renderer_gets_every_number_that_the_method_has_and_no_other() {
        let notebook = Notebook::default();
        let mut dashboard = Dashboard::new(Box::new(notebook.clone()), Interrupter::new());
        let evaluated = Event::Evaluated {
            after: 1,
            scores: vec![Some(0.75), None],
            examples_per_second: 1.0,
        };
        let balance = Event::Balance {
            task: 0,
            after: 1,
            layers: vec![look(8, 1.5, [4; 4])],
        };
        for event in [started(), step(3), evaluated, balance] {
            dashboard.record(&event).unwrap();
        }
        for call in [
            "train MetricId { id: \"balance/load_cv_squared\" } 0.375",
            "amazon MetricId { id: \"balance/load_cv_squared\" } 1.5",
            "\"Loss\" } 0.5",
            "\"Learning rate\" } 0.25",
            "\"Tokens per second\" } 20",
            "\"adversary/accuracy\" } 0.25",
            "step 3",
            "amazon MetricId { id: \"Accuracy\" } 0.75",
        ] {
            assert!(
                notebook.saw(call),
                "{call}: {:?}",
                notebook.0.lock().unwrap()
            );
        }
        assert!(!notebook.saw("yelp"));
    }

    #[test]
    fn warnings_are_shown_and_nothing_is_counted_anew() {
        let notebook = Notebook::default();
        let mut dashboard = Dashboard::new(Box::new(notebook.clone()), Interrupter::new());
        let warning = Event::Warning {
            message: "two labels look alike".into(),
        };
        for event in [started(), step(3), warning] {
            dashboard.record(&event).unwrap();
        }
        let calls = notebook.0.lock().unwrap();
        let last = &calls[calls.len() - 2..];
        assert!(last[0].contains("two labels look alike"), "{last:?}");
        assert_eq!(last[1], "step 3");
        drop(calls);
        let evaluated = Event::Evaluated {
            after: 1,
            scores: vec![Some(0.75), None],
            examples_per_second: 1.0,
        };
        dashboard.record(&evaluated).unwrap();
        assert!(!notebook.saw("end of a test"));
    }

    #[test]
    fn a_stop_asked_for_on_the_dashboard_ends_the_run() {
        let interrupter = Interrupter::new();
        let mut dashboard = Dashboard::new(Box::new(Notebook::default()), interrupter.clone());
        dashboard.record(&started()).unwrap();
        dashboard.record(&step(1)).unwrap();
        interrupter.stop(None);
        let error = dashboard.record(&step(2)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::Interrupted);
    }
}
