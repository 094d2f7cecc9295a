//! The experiment file: what is trained, on what, how. TOML, strict, every default documented, described by a JSON Schema.
//!
//! A file is read in four steps, one file of code each: `document` (text and `--set` → a tree that knows where every
//! value stands), `strict` (the tree against the schema), serde (the tree → [`Experiment`]), `sense` (values that make no sense).

mod adapters;
mod balance;
mod bounds;
mod document;
mod error;
mod experiment;
mod inline;
mod method;
mod router;
mod schema;
mod sense;
mod strict;
mod training;

pub use crate::methods::{
    DiscriminatorLoss, EwcConfig, EwcMode, Experts, Gate, LwfConfig, MixLoraConfig, Mode,
    MoeClConfig, OLoraConfig, OLoraTest, RehearsalConfig, SequentialConfig, SharedExpert, Weights,
};
pub use adapters::AdaptersConfig;
pub use balance::{BalanceConfig, BalanceLoss};
pub use bounds::Bounds;
pub use error::{ConfigError, KeyPlace};
pub use experiment::{BaseConfig, DataConfig, Experiment, TaskConfig};
pub use method::MethodConfig;
pub use moe_lora::{LayerRange, LoraInit, Projection};
pub use router::RouterConfig;
pub use training::{EvaluationConfig, Objective, Pooling, Split, TrainingConfig};

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const GOOD: &str = r#"
name = "x"
[[tasks]]
name = "first"
train = "a.jsonl"
test = "b.jsonl"
[training]
learning_rate = 1
[method]
name = "moe_cl"
mode = "paper"
gate = "per_task"
"#;

    fn parse(text: &str, sets: &[&str]) -> Result<Experiment, String> {
        let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
        Experiment::parse(text, Path::new("x.toml"), &sets).map_err(|error| error.to_string())
    }

    /// The message starts with its place and holds each of the words.
    #[track_caller]
    fn refused(text: &str, sets: &[&str], place: &str, words: &[&str]) {
        let message = parse(text, sets).expect_err("refused");
        assert!(message.starts_with(&format!("{place}: ")), "{message}");
        for word in words {
            assert!(message.contains(word), "{message} lacks {word}");
        }
    }

    #[test]
    fn an_option_left_out_comes_from_the_mode() {
        let experiment = parse(GOOD, &[]).expect("a good file");
        let paper = MoeClConfig::of(Mode::Paper);
        assert_eq!(
            experiment.method,
            MethodConfig::MoeCl(MoeClConfig {
                gate: Gate::PerTask,
                ..paper
            })
        );
        assert_eq!(
            experiment.training,
            TrainingConfig {
                learning_rate: 1.0,
                ..TrainingConfig::default()
            }
        );
    }

    #[test]
    fn a_written_experiment_reads_back_the_same() {
        for sets in [
            vec![],
            vec![
                "method={name='sequential'}",
                "adapters.layers=last:8",
                "router.layer=2",
                "router.seed=9",
                "data.train_examples=5",
                "tasks.0.labels=['a','b']",
            ],
        ] {
            let experiment = parse(GOOD, &sets).expect("a good file");
            let text = experiment.to_toml();
            assert_eq!(parse(&text, &[]).as_ref(), Ok(&experiment), "{text}");
        }
    }

    #[test]
    fn an_unknown_key_is_refused_with_its_place_and_the_nearest() {
        refused(
            &GOOD.replace("learning_rate", "lerning_rate"),
            &[],
            "x.toml:8:1",
            &["lerning_rate", "[training]", "nearest: `learning_rate`"],
        );
        refused(
            &GOOD.replace("train = ", "trian = "),
            &[],
            "x.toml:5:1",
            &["[tasks.0]", "nearest: `train`"],
        );
        refused(
            &GOOD.replace("[training]", "[trainning]"),
            &[],
            "x.toml:7:2",
            &["top level", "nearest: `training`"],
        );
        refused(
            &GOOD.replace("mode", "modes"),
            &[],
            "x.toml:11:1",
            &["[method]", "nearest: `mode`"],
        );
        refused(
            &GOOD.replace("\"moe_cl\"", "\"sequential\""),
            &[],
            "x.toml:12:1",
            &["unknown key `gate` in [method]"],
        );
    }

    #[test]
    fn an_ill_typed_value_is_refused_with_its_place_and_what_was_expected() {
        refused(
            &GOOD.replace("rate = 1", "rate = \"1\""),
            &[],
            "x.toml:8:17",
            &["`training.learning_rate` must be a number, not a text"],
        );
        refused(
            &GOOD.replace("\"paper\"", "\"papers\""),
            &[],
            "x.toml:11:8",
            &["nearest: `paper`"],
        );
        refused(
            &GOOD.replace("\"moe_cl\"", "\"moecl\""),
            &[],
            "x.toml:10:8",
            &["method.name", "nearest: `moe_cl`"],
        );
        refused(
            &GOOD.replace("\"x\"", "3"),
            &[],
            "x.toml:2:8",
            &["`name` must be a text"],
        );
        refused(&format!("seed = -1{GOOD}"), &[], "x.toml:1:8", &["-1"]);
        refused(
            &format!("tasks = 3{}", &GOOD[..12]),
            &[],
            "x.toml:1:9",
            &["`tasks` must be a list"],
        );
        refused(
            &format!("{GOOD}[adapters]\nlayers = \"last:0\""),
            &[],
            "x.toml:14:10",
            &["last:N"],
        );
        refused(
            &format!("{GOOD}[adapters]\ntargets = [\"gate\", \"dwon\"]"),
            &[],
            "x.toml:14:20",
            &["adapters.targets.1", "nearest: `down`"],
        );
    }

    #[test]
    fn a_missing_key_is_refused() {
        refused(
            &GOOD.replace("name = \"x\"", ""),
            &[],
            "x.toml",
            &["`name` is missing"],
        );
        refused(
            &GOOD.replace("train = \"a.jsonl\"", ""),
            &[],
            "x.toml:3:1",
            &["[tasks.0] lacks the key `train`"],
        );
        refused(
            &GOOD.replace("name = \"moe_cl\"", ""),
            &[],
            "x.toml:9:1",
            &["`name`", "moe_cl, sequential, per_task"],
        );
    }

    #[test]
    fn broken_toml_is_refused_with_its_place() {
        refused("name = \"x\n", &[], "x.toml:1:10", &[]);
        refused(
            "name = \"x\"\nname = \"y\"\n",
            &[],
            "x.toml:2:1",
            &["duplicate"],
        );
    }

    #[test]
    fn overrides_are_values_of_toml_or_bare_words() {
        let sets = [
            "name=é/../b c",
            "name=bare-word",
            "data.root=../texts",
            "tasks.0.name=\"second\"",
            "training.learning_rate=2e-4",
            "adapters.targets=[\"up\"]",
        ];
        let experiment = parse(GOOD, &sets).expect("good overrides");
        assert_eq!(
            (experiment.name.as_str(), experiment.tasks[0].name.as_str()),
            ("bare-word", "second")
        );
        assert_eq!(
            (
                experiment.training.learning_rate,
                experiment.adapters.targets
            ),
            (2e-4, vec![moe_lora::Projection::Up])
        );
        assert_eq!(experiment.data.root, Path::new("../texts"));
    }

    #[test]
    fn a_refused_override_is_named() {
        refused(
            GOOD,
            &["name=ok", "training.epoch=3"],
            "--set training.epoch=3",
            &["nearest: `epochs`"],
        );
        refused(
            GOOD,
            &["training.epochs=three"],
            "--set training.epochs=three",
            &["whole number"],
        );
        refused(
            GOOD,
            &["training.epochs=0"],
            "--set training.epochs=0",
            &["`training.epochs` must be at least 1"],
        );
        refused(
            GOOD,
            &["tasks.1.name=b"],
            "--set tasks.1.name=b",
            &["array of 1 entries"],
        );
        refused(
            GOOD,
            &["name.first=b"],
            "--set name.first=b",
            &["inside a string"],
        );
        refused(GOOD, &["name"], "--set name", &["key.path=value"]);
        refused(GOOD, &["name=\"a"], "--set name=\"a", &[]);
        refused(
            GOOD,
            &["seed=1\nname = 'x'"],
            "--set seed=1\nname = 'x'",
            &[],
        );
        refused(
            GOOD,
            &["adapters.layers=some"],
            "--set adapters.layers=some",
            &["last:N"],
        );
    }

    #[test]
    fn values_without_sense_are_refused_where_they_stand() {
        refused(
            GOOD,
            &["training.learning_rate=nan"],
            "--set training.learning_rate=nan",
            &["above 0 and at most 1e30, got NaN"],
        );
        refused(
            GOOD,
            &["adapters.dropout=1.0"],
            "--set adapters.dropout=1.0",
            &["below 1"],
        );
        refused(
            &GOOD.replace("rate = 1", "rate = 0"),
            &[],
            "x.toml:8:17",
            &["above 0"],
        );
        refused(
            &format!("{GOOD}[[tasks]]\nname=\"first\"\ntrain=\"c\"\ntest=\"c\"\n"),
            &[],
            "x.toml:14:6",
            &["already the name of tasks.0"],
        );
        refused(
            GOOD,
            &["tasks=[]"],
            "--set tasks=[]",
            &["at least one task"],
        );
        refused(
            GOOD,
            &["router.accept=0"],
            "--set router.accept=0",
            &["above 0 and at most 1"],
        );
        refused(
            GOOD,
            &["tasks.0.name=auto"],
            "--set tasks.0.name=auto",
            &["inferred"],
        );
        refused(GOOD, &["name=a/b"], "--set name=a/b", &["slash"]);
    }

    #[test]
    fn no_number_makes_the_library_panic_or_ask_for_all_memory() {
        for (setting, rule) in [
            ("router.ridge=1e-30", "at least 1e-6"),
            ("router.ridge=0", "at least 1e-6"),
            ("router.ridge=-1", "at least 1e-6"),
            ("router.ridge=nan", "at least 1e-6"),
            ("router.ridge=inf", "at most 1e30"),
            ("router.features=0", "at least 1"),
            ("router.features=1000000000000", "at most"),
            ("adapters.rank=0", "at least 1"),
            ("adapters.rank=9000000000000000000", "at most"),
            ("adapters.alpha=nan", "above 0"),
            ("adapters.alpha=1e300", "at most 1000000, got 1"),
            ("training.epochs=9000000000000000000", "at most"),
            ("data.max_tokens=9000000000000000000", "at most 1048576"),
            ("data.train_examples=0", "at least 1"),
            ("evaluation.tasks=-1", "at least 0"),
            ("base.trunk_cache_mb=9000000000000000000", "at most"),
            (
                "method={name='ewc', decay=1.5}",
                "`method.decay` must be at least 0 and at most 1",
            ),
            (
                "method={name='replay', budget=0}",
                "`method.budget` must be at least 1",
            ),
            ("training.batch_size=1152921504606846976", "at most"),
            ("training.accumulation=9000000000000000000", "at most"),
            ("training.learning_rate=1e39", "at most"),
            ("training.weight_decay=-1", "at least 0"),
            ("evaluation.batch_size=9000000000000000000", "at most"),
        ] {
            refused(GOOD, &[setting], &format!("--set {setting}"), &[rule]);
        }
    }

    #[test]
    fn every_number_has_a_range_in_the_schema() {
        fn endless(path: &str, schema: &serde_json::Value, found: &mut Vec<String>) {
            let kinds = [&schema["type"]]
                .into_iter()
                .chain(schema["type"].as_array().into_iter().flatten());
            let is_number = kinds
                .filter_map(|kind| kind.as_str())
                .any(|kind| ["integer", "number"].contains(&kind));
            if is_number && !Bounds::of(schema).are_both() {
                found.push(path.to_owned());
            }
            let nested = match schema {
                serde_json::Value::Object(map) => map
                    .iter()
                    .map(|(key, value)| (key.clone(), value))
                    .collect(),
                serde_json::Value::Array(list) => list
                    .iter()
                    .enumerate()
                    .map(|(index, value)| (index.to_string(), value))
                    .collect(),
                _ => Vec::new(),
            };
            for (key, value) in nested {
                endless(&format!("{path}/{key}"), value, found);
            }
        }
        let mut found = Vec::new();
        endless("", &Experiment::schema(), &mut found);
        assert_eq!(found, Vec::<String>::new());
    }

    #[test]
    fn every_ready_experiment_is_accepted() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs");
        let files = std::fs::read_dir(&folder)
            .unwrap()
            .map(|entry| entry.unwrap().path());
        let names: Vec<String> = files
            .map(|path| Experiment::load(&path, &[]).unwrap().name)
            .collect();
        assert!(
            names.iter().any(|name| name == "demo") && names.len() >= 5,
            "{names:?}"
        );
    }

    #[test]
    fn every_choice_in_the_schema_is_one_that_is_read() {
        let schema = Experiment::schema();
        let adapters = &schema["$defs"]["AdaptersConfig"]["properties"];
        for (key, choices) in [
            ("init", &adapters["init"]["enum"]),
            ("targets", &adapters["targets"]["items"]["enum"]),
        ] {
            for choice in choices.as_array().unwrap() {
                let value = if key == "targets" {
                    format!("[{choice}]")
                } else {
                    choice.to_string()
                };
                assert!(
                    parse(GOOD, &[&format!("adapters.{key}={value}")]).is_ok(),
                    "{key} {value}"
                );
            }
        }
    }

    #[test]
    fn the_schema_describes_every_key() {
        fn undescribed(path: &str, schema: &serde_json::Value, found: &mut Vec<String>) {
            for (key, property) in schema["properties"].as_object().into_iter().flatten() {
                if property.get("description").is_none() && property.get("const").is_none() {
                    found.push(format!("{path}.{key}"));
                }
            }
            for (name, definition) in schema["$defs"].as_object().into_iter().flatten() {
                undescribed(name, definition, found);
            }
        }
        let mut found = Vec::new();
        undescribed("", &Experiment::schema(), &mut found);
        assert_eq!(found, Vec::<String>::new());
    }
}
