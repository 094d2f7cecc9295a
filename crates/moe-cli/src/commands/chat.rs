//! `moe-cl chat`

use std::io::{BufRead, IsTerminal, Write, stdin};

use anyhow::Result;
use clap::Args;
use moe_cl::Base;
use moe_cl::TaskModel;
use moe_cl::config::Objective;
use moe_cl::data::{Role, Turn};
use moe_cl::training::{Answering, Said, Trained};
use moe_core::device::DeviceChoice;
use moe_core::generate::{CausalLm, Held, Sampling};

use crate::model::{BaseArguments, ModelPath, TaskName, told};
use crate::terminal::{self, tell};
use crate::writing::Manner;

/// With whom, and how boldly.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    model: ModelPath,
    /// Task whose experts answer, or `auto`: the one that the conversation seems to belong to
    #[arg(long, value_name = "NAME|auto", default_value = "auto")]
    task: TaskName,
    /// The rules of the conversation
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    #[command(flatten)]
    base: BaseArguments,
    #[command(flatten)]
    manner: Manner,
}

const HELP: &str = "/task NAME|auto  who answers    /system TEXT  the rules, and a new start    /reset  a new start    /quit";

/// A conversation: a line in, an answer out, until the input ends.
pub fn run(arguments: &Arguments, device: Option<DeviceChoice>) -> Result<()> {
    let sampling = arguments.manner.sampling()?;
    let (saved, base) = arguments.base.open(arguments.model.path(), device)?;
    let trained = Trained::on_base(saved, &base)?;
    let mut chat = Chat {
        trained: &trained,
        base: &base,
        manner: &arguments.manner,
        sampling,
        task: arguments.task.clone(),
        system: arguments.system.clone(),
        turns: Vec::new(),
        writer: None,
    };
    // A task that the model does not have is told before the first line.
    if chat.task.0.is_some() {
        chat.task.answering(chat.trained, &[])?;
    }
    let terminal = stdin().is_terminal();
    if terminal {
        tell!("{HELP}");
    }
    loop {
        if terminal {
            write!(terminal::err(), "> ")?;
            terminal::err().flush()?;
        }
        let mut line = String::new();
        if stdin().lock().read_line(&mut line)? == 0 {
            return Ok(());
        }
        match line.trim() {
            "" => {}
            "/quit" => return Ok(()),
            "/help" => tell!("{HELP}"),
            line => {
                // A conversation goes on after a slip of the keyboard; a file of lines does not.
                match chat.hear(line) {
                    Err(error) if terminal => tell!("{}", crate::failure::message(&error)),
                    outcome => outcome?,
                }
            }
        }
    }
}

/// A conversation.
struct Chat<'a> {
    trained: &'a Trained<'a>,
    base: &'a Base,
    manner: &'a Manner,
    sampling: Sampling,
    task: TaskName,
    system: Option<String>,
    turns: Vec<Turn>,
    writer: Option<Writer<'a>>,
}

/// Who wrote last, and what it has read.
struct Writer<'a> {
    task: usize,
    shared: bool,
    model: TaskModel<'a>,
    held: Held,
}

impl Chat<'_> {
    fn hear(&mut self, line: &str) -> Result<()> {
        let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let rest = rest.trim();
        match word {
            "/task" => {
                let Ok(task) = rest.parse::<TaskName>();
                task.answering(self.trained, &[])
                    .or_else(|error| match task.0 {
                        Some(_) => Err(error),
                        None => Ok(Vec::new()),
                    })?;
                self.task = task;
                Ok(())
            }
            "/system" => {
                self.system = (!rest.is_empty()).then(|| rest.to_owned());
                self.turns.clear();
                Ok(())
            }
            "/reset" => {
                self.turns.clear();
                Ok(())
            }
            word if word.starts_with('/') => {
                anyhow::bail!("{word} is no command; {HELP}")
            }
            _ => {
                self.turns.push(Turn::user(line.to_owned()));
                let answer = self.answer();
                match answer {
                    Ok(answer) => self.turns.push(Turn::answer(answer)),
                    Err(error) => {
                        self.turns.pop();
                        return Err(error);
                    }
                }
                Ok(())
            }
        }
    }

    fn answer(&mut self) -> Result<String> {
        let said = self.turns.iter().filter(|turn| turn.role == Role::User);
        let said: Vec<&str> = said.map(|turn| turn.text.as_str()).collect();
        let who = self.task.answering(self.trained, &[said.join("\n")])?[0];
        if self.task.0.is_none() {
            tell!("[{}]", told(self.trained, who));
        }
        let system = self.system.iter().map(|text| Turn::system(text.clone()));
        let turns: Vec<Turn> = system.chain(self.turns.iter().cloned()).collect();
        if self.trained.objective(who.task) == Objective::Heads {
            return self.classified(who, turns);
        }
        let prompt = self.trained.prompt(who, turns)?;
        let (task, shared) = (who.task, who.shared);
        let same = |writer: &Writer<'_>| (writer.task, writer.shared) == (task, shared);
        let mut writer = self.writer.take().filter(same).unwrap_or_else(|| {
            let model = self.trained.model(task, shared).folded();
            Writer {
                task,
                shared,
                held: Held::new(model.num_layers()),
                model,
            }
        });
        let by = (&writer.model, &mut writer.held);
        let written = self.manner.write(self.base, by, &prompt, &self.sampling);
        self.writer = Some(writer);
        written
    }

    /// A task with a head cannot write: it says a label.
    fn classified(&self, who: Answering, turns: Vec<Turn>) -> Result<String> {
        let said = self.trained.say(&[who], &[turns])?;
        let text = match said.into_iter().next() {
            Some(Said::Label { class, .. }) => self.trained.labels(who.task)[class].clone(),
            Some(Said::Text(text)) => text,
            None => String::new(),
        };
        println!("{text}");
        Ok(text)
    }
}
