//! Experts that leave a model as PEFT folders and whole models, and enter it again, through the binary.

use serde_json::Value;

use super::{walk::moe_cl, *};

fn good(folder: &Path, arguments: &[&str]) -> String {
    let (out, error, status) = moe_cl(folder, arguments);
    assert_eq!(status, 0, "{arguments:?}: {out}{error}");
    out
}

fn refused(folder: &Path, arguments: &[&str]) -> String {
    let (out, error, status) = moe_cl(folder, arguments);
    assert_eq!(status, 1, "{arguments:?}: {out}{error}");
    error
}

fn json(folder: &Path, arguments: &[&str]) -> Value {
    serde_json::from_str(&good(folder, &[arguments, &["--json"]].concat())).unwrap()
}

#[test]
fn an_expert_leaves_as_an_adapter_and_as_a_model_and_enters_again() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write_base(&folder.join("base"));
    write_experiment(folder);
    let train = [
        "train",
        "--config",
        "killed.toml",
        "--base",
        "base",
        "--out",
        "m",
    ];
    let set = [
        "--set",
        "method.name=per_task",
        "--set",
        "training.objective=instruction",
    ];
    good(folder, &[&train[..], &set].concat());
    let export = ["expert", "export", "m", "--task", "colours", "--to"];
    let said = good(folder, &[&export[..], &["adapter"]].concat());
    assert!(
        said.contains("expert 0, which answers alone") && said.contains("gap         none"),
        "{said}"
    );
    let settings = fs::read(folder.join("adapter/adapter_config.json")).unwrap();
    let settings: Value = serde_json::from_slice(&settings).unwrap();
    assert_eq!(settings["base_model_name_or_path"], "base");
    assert_eq!(
        (&settings["r"], &settings["peft_type"]),
        (&2.into(), &"LORA".into())
    );
    let error = refused(folder, &[&export[..], &["adapter"]].concat());
    assert!(error.contains("exists already"), "{error}");

    // The whole model writes what the task's experts write.
    good(folder, &[&export[..], &["merged", "--merged"]].concat());
    let write = |who: &[&str]| {
        let prompt = ["--prompt", "the red", "--raw", "--max-new", "8"];
        good(folder, &[&["generate"], who, &prompt].concat())
    };
    let colours = write(&["m", "--task", "colours"]);
    assert_eq!(write(&["--base", "merged"]), colours);

    let import = ["expert", "import", "m", "adapter"];
    let of = ["--task", "again", "--data", "colours.jsonl"];
    let imported = json(folder, &[&import[..], &of].concat());
    assert_eq!(
        (&imported["expert"], &imported["rows"]),
        (&2.into(), &8.into())
    );
    good(folder, &import);
    assert_eq!(write(&["m", "--task", "again"]), colours);
    let list = json(folder, &["expert", "list", "m"]);
    let origins: Vec<&str> = list
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["origin"].as_str().unwrap())
        .collect();
    assert_eq!(origins, ["drawn", "drawn", "imported", "imported"]);
    assert!(good(folder, &["expert", "list", "m"]).contains("again"));
    let scores = json(folder, &["eval", "m"]);
    let score = |index: usize| scores["tasks"][index]["score"].as_f64().unwrap();
    assert_eq!(
        (scores["tasks"][2]["imported"].as_bool(), score(2)),
        (Some(true), score(0))
    );
    assert!(good(folder, &["eval", "m"]).contains("(imported)"));
    assert!(good(folder, &["eval", "m", "--task", "again"]).contains("again"));
    good(
        folder,
        &["expert", "export", "m", "--task", "again", "--to", "back"],
    );
    let [one, other] = ["adapter", "back"]
        .map(|dir| fs::read(folder.join(dir).join("adapter_model.safetensors")).unwrap());
    assert_eq!(one, other, "a round trip is the identity");

    good(folder, &["expert", "remove", "m", "--task", "again"]);
    good(folder, &["expert", "remove", "m", "--expert", "3"]);
    let error = refused(folder, &["expert", "remove", "m", "--expert", "0"]);
    assert!(error.contains("learnt expert 0 itself"), "{error}");
    let error = refused(
        folder,
        &["generate", "m", "--task", "again", "--prompt", "the"],
    );
    assert!(error.contains("no task 'again'"), "{error}");
    assert_eq!(write(&["m", "--task", "colours"]), colours);
    let error = refused(folder, &["expert", "import", "m", "nowhere"]);
    assert!(error.contains("adapter_config.json"), "{error}");
}

#[test]
fn a_head_lies_beside_and_a_mixture_says_its_gap() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write_base(&folder.join("base"));
    write_experiment(folder);
    let train = [
        "train",
        "--config",
        "killed.toml",
        "--base",
        "base",
        "--out",
        "m",
    ];
    good(folder, &train);
    let export = ["expert", "export", "m", "--task", "weather"];
    let said = json(
        folder,
        &[&export[..], &["--to", "a", "--max-gap", "1"]].concat(),
    );
    assert_eq!(
        (&said["head"], &said["gap"]["texts"]),
        (&true.into(), &8.into())
    );
    let lines = fs::read_to_string(folder.join("a/head.py")).unwrap();
    assert!(
        lines.contains("LABELS = [\"a\",\"b\"]") && lines.contains("head.safetensors"),
        "{lines}"
    );
    good(
        folder,
        &[&export[..], &["--to", "b", "--max-gap", "1", "--merged"]].concat(),
    );
    assert!(folder.join("b/head.safetensors").is_file() && folder.join("b/config.json").is_file());
    let (_, error, status) = moe_cl(
        folder,
        &[&export[..], &["--to", "c", "--max-gap", "2"]].concat(),
    );
    assert!(status == 2 && error.contains("between 0 and 1"), "{error}");
}
