//! Shows a run while it goes: a bar with rate and ETA on a terminal, plain lines otherwise.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use moe_cl::events::{Event, Recorder};

use crate::terminal::harmless;

const BETWEEN_LINES: Duration = Duration::from_secs(5);

/// A recorder for people, on standard error.
pub struct ProgressDisplay {
    output: Output,
    pace: Pace,
    total_steps: usize,
    tasks: Vec<String>,
    task: usize,
    examples: usize,
    /// Since the last line: real tokens, seconds in steps, steps.
    window: (usize, f64, usize),
    last_line: Instant,
    between_lines: Duration,
}

/// What steps and evaluations have taken in this process.
#[derive(Default)]
struct Pace {
    steps: u32,
    in_steps: Duration,
    evaluations: u32,
    in_evaluations: Duration,
    evaluation_began: Option<Instant>,
}

impl Pace {
    /// Time for so many more steps and evaluations at the pace so far.
    fn time_for(&self, steps: usize, evaluations: usize) -> Duration {
        let each = |time: Duration, times: u32| time.as_secs_f64() / f64::from(times.max(1));
        let steps = each(self.in_steps, self.steps) * steps as f64;
        Duration::from_secs_f64(
            steps + each(self.in_evaluations, self.evaluations) * evaluations as f64,
        )
    }
}

enum Output {
    Bar(ProgressBar),
    Lines(Box<dyn Write>),
}

impl ProgressDisplay {
    /// A bar where standard error is a terminal, lines where not.
    pub fn new() -> Self {
        match io::stderr().is_terminal() {
            true => {
                let bar = ProgressBar::new(0);
                // What matters most comes first: a narrow terminal cuts off the end of the message.
                let style = ProgressStyle::with_template("{bar:10} {pos}/{len} {wide_msg}");
                bar.set_style(style.expect("the template is well formed"));
                Self::with(Output::Bar(bar), BETWEEN_LINES)
            }
            false => Self::with(Output::Lines(Box::new(io::stderr())), BETWEEN_LINES),
        }
    }

    fn with(output: Output, between_lines: Duration) -> Self {
        Self {
            output,
            pace: Pace::default(),
            total_steps: 0,
            tasks: Vec::new(),
            task: 0,
            examples: 0,
            window: (0, 0.0, 0),
            last_line: Instant::now(),
            between_lines,
        }
    }

    /// A line that stays.
    fn say(&mut self, line: &str) -> io::Result<()> {
        match &mut self.output {
            Output::Bar(bar) => {
                bar.println(harmless(line));
                Ok(())
            }
            Output::Lines(output) => writeln!(output, "{}", harmless(line)),
        }
    }

    /// A line that a bar replaces, and that otherwise comes every few seconds.
    fn now_and_then(&mut self, last: bool, line: impl FnOnce(&Self) -> String) -> io::Result<()> {
        if matches!(self.output, Output::Bar(_))
            || !(last || self.last_line.elapsed() >= self.between_lines)
        {
            return Ok(());
        }
        let line = line(self);
        self.say(&line)?;
        self.window = (0, 0.0, 0);
        self.last_line = Instant::now();
        Ok(())
    }

    fn step(&mut self, step: usize, loss: f64, tokens: usize, seconds: f64) -> io::Result<()> {
        self.pace.steps += 1;
        self.pace.in_steps += Duration::from_secs_f64(seconds);
        // One evaluation follows each task, that of the present one included.
        let left = self
            .pace
            .time_for(self.total_steps - step, self.tasks.len() - self.task);
        let eta = clock(left);
        if let Output::Bar(bar) = &self.output {
            let (task, rate) = (&self.tasks[self.task], tokens as f64 / seconds);
            bar.set_message(step_message(&harmless(task), loss, rate, &eta));
            bar.set_position(step as u64);
        }
        let (all_tokens, all_seconds, steps) = self.window;
        self.window = (all_tokens + tokens, all_seconds + seconds, steps + 1);
        self.now_and_then(step == self.total_steps, |this| {
            let (tokens, seconds, steps) = this.window;
            format!(
                "step {step}/{}  {}  loss {loss:.3}  {:.1} steps/s  {:.0} tokens/s  ETA {eta}",
                this.total_steps,
                this.tasks[this.task],
                steps as f64 / seconds,
                tokens as f64 / seconds,
            )
        })
    }

    fn scores(&self, after: usize, scores: &[Option<f64>]) -> String {
        let one = |(name, score): (&String, &Option<f64>)| match score {
            Some(score) => format!("{name} {score:.3}"),
            None => format!("{name} –"),
        };
        let scores = self
            .tasks
            .iter()
            .zip(scores)
            .map(one)
            .collect::<Vec<_>>()
            .join("  ");
        match after {
            0 => format!("untrained: {scores}"),
            _ => format!("after task {after}/{}: {scores}", self.tasks.len()),
        }
    }
}

impl Recorder for ProgressDisplay {
    fn record(&mut self, event: &Event) -> io::Result<()> {
        match event {
            Event::RunStarted {
                method,
                seed,
                tasks,
                total_steps,
                resumed_at,
                ..
            } => {
                self.pace = Pace::default();
                self.tasks.clone_from(tasks);
                self.total_steps = *total_steps;
                if let Output::Bar(bar) = &self.output {
                    bar.set_length(*total_steps as u64);
                    bar.set_position(resumed_at.unwrap_or(0) as u64);
                }
                let from = resumed_at
                    .map_or_else(String::new, |step| format!(", going on after step {step}"));
                self.say(&format!(
                    "{method}, seed {seed}: {} tasks, {total_steps} steps{from}",
                    tasks.len()
                ))
            }
            Event::TaskStarted {
                task,
                name,
                examples,
                steps,
                trainable,
            } => {
                self.task = *task;
                let (number, tasks, millions) =
                    (task + 1, self.tasks.len(), *trainable as f64 / 1e6);
                self.say(&format!(
                    "task {number}/{tasks} {name}: {examples} examples, {steps} steps, {millions:.2} M trained parameters"
                ))
            }
            Event::Step {
                step,
                loss,
                real_tokens,
                seconds,
                ..
            } => self.step(*step, *loss, *real_tokens, *seconds),
            Event::EvaluationStarted { examples, .. } => {
                self.examples = *examples;
                self.pace.evaluation_began = Some(Instant::now());
                Ok(())
            }
            Event::EvaluationStep { done } => {
                if let Output::Bar(bar) = &self.output {
                    bar.set_message(format!("evaluating {done}/{}", self.examples));
                }
                let done = *done;
                self.now_and_then(false, |this| format!("evaluating {done}/{}", this.examples))
            }
            Event::Evaluated { after, scores, .. } => {
                if let Some(began) = self.pace.evaluation_began.take() {
                    self.pace.evaluations += 1;
                    self.pace.in_evaluations += began.elapsed();
                }
                self.say(&self.scores(*after, scores))
            }
            Event::Inferred { scores, .. } => {
                let share = |value: Option<f64>| {
                    value.map_or_else(|| "–".into(), |value| format!("{value:.3}"))
                };
                let (mean, routed) = (share(scores.avg_acc()), share(scores.routing_accuracy()));
                self.say(&format!(
                    "  task inferred: mean {mean}, {routed} of the texts sent to their task"
                ))
            }
            Event::Warning { message } => self.say(&format!("warning: {message}")),
            Event::RunFinished {
                seconds,
                peak_memory,
                ..
            } => {
                let memory = peak_memory.map_or_else(String::new, |bytes| {
                    format!(", {:.2} GB at most", bytes as f64 / 1e9)
                });
                self.say(&format!(
                    "done in {}{memory}",
                    clock(Duration::from_secs_f64(*seconds))
                ))
            }
            Event::LayerFigures { .. } | Event::Balance { .. } | Event::CheckpointSaved { .. } => {
                Ok(())
            }
        }
    }
}

impl Drop for ProgressDisplay {
    fn drop(&mut self) {
        if let Output::Bar(bar) = &self.output {
            bar.finish_and_clear();
        }
    }
}

/// What stands behind the bar, the most wanted first.
fn step_message(task: &str, loss: f64, tokens_per_second: f64, eta: &str) -> String {
    format!("ETA {eta}  loss {loss:.3}  {tokens_per_second:.0} tokens/s  {task}")
}

/// `75 s` → `1:15`
fn clock(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds / 3600 {
        0 => format!("{}:{:02}", seconds / 60, seconds % 60),
        hours => format!("{hours}:{:02}:{:02}", seconds / 60 % 60, seconds % 60),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use super::*;

    #[derive(Clone, Default)]
    struct Shared(Rc<RefCell<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.borrow_mut().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn lines(between: Duration) -> String {
        let output = Shared::default();
        let mut display = ProgressDisplay::with(Output::Lines(Box::new(output.clone())), between);
        let tasks = vec!["a".to_string(), "b".to_string()];
        let started = Event::RunStarted {
            name: "run".into(),
            method: "moe_cl (improved)".into(),
            seed: 3,
            tasks,
            total_steps: 2,
            resumed_at: None,
        };
        let step = |step| Event::Step {
            task: 0,
            step,
            loss: 0.5,
            figures: Default::default(),
            learning_rate: 1e-3,
            gradient_norm: 1.0,
            real_tokens: 100,
            balance: Vec::new(),
            seconds: 0.5,
        };
        let evaluated = Event::Evaluated {
            after: 1,
            scores: vec![Some(0.75), None],
            examples_per_second: 1.0,
        };
        let task = Event::TaskStarted {
            task: 0,
            name: "a".into(),
            examples: 16,
            steps: 2,
            trainable: 1_500_000,
        };
        for event in [started, task, step(1), step(2), evaluated] {
            display.record(&event).unwrap();
        }
        String::from_utf8(output.0.borrow().clone()).unwrap()
    }

    #[test]
    fn without_a_terminal_every_row_of_the_matrix_is_a_line() {
        let text = lines(Duration::ZERO);
        assert!(
            text.contains("moe_cl (improved), seed 3: 2 tasks, 2 steps\n"),
            "{text}"
        );
        assert!(
            text.contains("task 1/2 a: 16 examples, 2 steps, 1.50 M trained parameters\n"),
            "{text}"
        );
        assert!(
            text.contains("step 1/2  a  loss 0.500  2.0 steps/s  200 tokens/s  ETA 0:00\n"),
            "{text}"
        );
        assert!(text.contains("after task 1/2: a 0.750  b –\n"), "{text}");
    }

    #[test]
    fn lines_for_steps_are_rare_but_the_last_is_there() {
        let text = lines(Duration::from_secs(3600));
        assert!(
            !text.contains("step 1/2") && text.contains("step 2/2"),
            "{text}"
        );
    }

    #[test]
    fn a_narrow_terminal_keeps_the_time_left() {
        // The bar, two counters of up to six digits, and the spaces between them.
        let before = 10 + 1 + 13 + 1;
        let message = step_message(
            &"a long name of a task ".repeat(9),
            12.345,
            12345.6,
            "11:22:33",
        );
        for (width, shown) in [(40, "ETA 11:22:33"), (80, "12346 tokens/s")] {
            let room = width - before;
            assert!(
                message[..room].contains(shown),
                "{width}: {}",
                &message[..room]
            );
        }
    }

    #[test]
    fn the_time_left_counts_evaluations_apart_from_steps() {
        let seconds = Duration::from_secs;
        let pace = Pace {
            steps: 4,
            in_steps: seconds(8),
            evaluations: 1,
            in_evaluations: seconds(30),
            evaluation_began: None,
        };
        assert_eq!(pace.time_for(10, 2), seconds(20 + 60));
    }

    #[test]
    fn clocks_read_as_people_write_them() {
        assert_eq!(clock(Duration::from_secs(75)), "1:15");
        assert_eq!(clock(Duration::from_secs(3723)), "1:02:03");
    }
}
