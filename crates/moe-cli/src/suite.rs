//! Suites that experiments name: where their files are, fetched where they are not there yet.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use moe_cl::config::{DataConfig, Experiment};
use moe_hub::data::suites::{self, Manifest, Origins, Sources};
use moe_hub::{Cache, Web};

use crate::download::DownloadDisplay;
use crate::failure::Failure;

/// Lets `data.root` say where the files of `data.suite` are: where it says already, else in the cache folder. Files of the experiment
/// that are not there are fetched.
///
/// # Errors
/// When there is no such suite, or its files cannot be had; the message says how to get them.
pub fn resolve(experiment: &mut Experiment) -> Result<()> {
    let Some(names) = experiment.data.suite.clone() else {
        return Ok(());
    };
    let cache = Cache::open()?;
    if experiment.data.root == DataConfig::default().root {
        experiment.data.root = cache.data();
    }
    let root = experiment.data.root.clone();
    let wanted = files(experiment);
    let (origins, web) = (Origins::from_env(), Web::new()?);
    let sources = Sources::new(&origins, &cache, &web);
    let missing = |file: &Path| wanted.iter().any(|it| it == file) && !root.join(file).is_file();
    for name in names.split('+').map(str::trim) {
        let manifest = Manifest::open(name)?;
        for task in &manifest.tasks {
            let splits = task.splits();
            if !splits.iter().any(|(_, split)| missing(split.file.as_ref())) {
                continue;
            }
            let mut display = DownloadDisplay::new();
            let mut show = |progress| display.show(&progress);
            if let Err(error) = suites::make(&manifest, task, &root, false, &sources, &mut show) {
                drop(display);
                let message = format!(
                    "{}: the files of the suite {name} are not there ({})",
                    root.display(),
                    task.name
                );
                let hint = error.hint().unwrap_or_default();
                let way_out = format!(
                    "{error}\n{hint}\nfiles that lie elsewhere are used with --set data.root=DIR; `moe-cl data fetch {name}` gets the whole suite"
                );
                bail!(Failure::new(message, way_out));
            }
        }
    }
    Ok(())
}

/// The files of an experiment's tasks, below its root.
fn files(experiment: &Experiment) -> Vec<PathBuf> {
    let tasks = experiment.tasks.iter();
    tasks
        .flat_map(|task| {
            let more = [task.dev.clone(), task.test.clone()];
            std::iter::once(task.train.clone()).chain(more.into_iter().flatten())
        })
        .collect()
}
