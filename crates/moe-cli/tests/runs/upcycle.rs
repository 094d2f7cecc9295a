//! A dense base made sparse, and its experts trained, through the binary.

use super::*;

/// Runs the command in `folder`: exit status, standard output and standard error.
fn moe_cl(folder: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_moe-cl"))
        .current_dir(folder)
        .env("MOE_CL_CACHE", folder.join("cache"))
        .args(arguments)
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

/// By how much a logit moved at most, as `upcycle` says.
fn logit_moved(out: &str) -> f32 {
    let moved = out.split("no logit moved by more than ").nth(1).unwrap();
    moved.split(' ').next().unwrap().parse().unwrap()
}

#[test]
fn an_upcycled_base_writes_what_the_dense_one_writes_and_its_experts_train() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write_base(&folder.join("base"));
    write_experiment(folder);
    let upcycle = ["upcycle", "base", "--experts", "4", "--top-k", "2"];
    for (layers, to, architecture) in [("0..2", "all", "mixtral"), ("1..2", "some", "qwen2_moe")] {
        let arguments = [&upcycle[..], &["--layers", layers, "--to", to]].concat();
        let (status, out, err) = moe_cl(folder, &arguments);
        assert_eq!(status, Some(0), "{err}");
        for words in [
            architecture,
            &format!("{layers} of 2, 4 experts, 2 per token"),
        ] {
            assert!(out.contains(words), "{out}");
        }
        assert!(logit_moved(&out) < 1e-5, "{out}");
        let write = |base: &str| {
            let arguments = [
                "generate",
                "--base",
                base,
                "--prompt",
                "the red sun",
                "--raw",
                "--max-new",
                "12",
            ];
            let (status, out, err) = moe_cl(folder, &arguments);
            assert_eq!(status, Some(0), "{err}");
            out
        };
        assert_eq!(write(to), write("base"));
        let (_, out, _) = moe_cl(folder, &["inspect", to]);
        assert!(out.contains("2 of 4 of d_ff 24"), "{out}");
    }
    let train = [
        "train",
        "--config",
        "killed.toml",
        "--base",
        "some",
        "--out",
        "run",
        "--set",
        "method={name='sequential',weights='all'}",
        "--set",
        "balance.loss=balance",
        "--set",
        "balance.z_loss=0.001",
        "--set",
        "balance.every=4",
    ];
    let (status, _, err) = moe_cl(folder, &train);
    assert_eq!(status, Some(0), "{err}");
    let page = fs::read_to_string(folder.join("run/report.html")).unwrap();
    for title in [
        "Routers of the base: their losses",
        "how evenly the tokens are spread",
        "which task uses which",
    ] {
        assert!(page.contains(title), "{title}");
    }
    let (status, _, err) = moe_cl(folder, &["eval", "run"]);
    assert_eq!(status, Some(0), "{err}");
}

#[test]
fn noise_is_told_and_what_cannot_be_is_refused_with_the_way_out() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write_base(&folder.join("base"));
    let upcycle = |more: &[&str]| {
        let arguments = [&["upcycle", "base", "--experts", "4", "--top-k", "2"], more].concat();
        moe_cl(folder, &arguments)
    };
    let (status, out, err) = upcycle(&["--noise", "0.5", "--seed", "3", "--to", "noisy"]);
    assert_eq!(status, Some(0), "{err}");
    assert!(logit_moved(&out) > 1e-3, "{out}");
    let refused = |more: &[&str], words: &str| {
        let (status, out, err) = upcycle(more);
        assert_ne!(status, Some(0));
        assert!(out.is_empty() && err.contains(words), "{err}");
    };
    refused(&["--to", "noisy"], "noisy: it is there already");
    refused(
        &["--to", "x", "--layers", "1..3"],
        "layers 1..3 are not among the base's 2",
    );
    refused(&["--to", "x", "--layers", "one"], "20..30");
    refused(&["--to", "x", "--noise=-1"], "at least 0");
    refused(&["--to", "no/such/folder"], "no/such");
    let (_, _, err) = moe_cl(
        folder,
        &[
            "upcycle",
            "noisy",
            "--experts",
            "4",
            "--top-k",
            "2",
            "--to",
            "x",
        ],
    );
    assert!(err.contains("sparse already, with 4 experts"), "{err}");
    let (_, _, err) = moe_cl(
        folder,
        &[
            "upcycle",
            "base",
            "--experts",
            "2",
            "--top-k",
            "3",
            "--to",
            "x",
        ],
    );
    assert!(err.contains("3 is more than the 2 experts"), "{err}");
    assert!(!folder.join("x").exists());
}

#[test]
#[ignore = "needs the real base model"]
fn the_real_base_answers_alike_when_it_is_made_sparse() {
    let folder = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_moe-cl"))
            .current_dir(folder.path())
            .args(arguments)
            .output()
            .unwrap();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{error}");
        String::from_utf8(output.stdout).unwrap()
    };
    run(&[
        "upcycle",
        "--experts",
        "4",
        "--top-k",
        "2",
        "--to",
        "sparse",
    ]);
    for prompt in [
        "What is the capital of France?",
        "Write one sentence about rain.",
    ] {
        let dense = run(&["generate", "--prompt", prompt, "--max-new", "32"]);
        let sparse = run(&[
            "generate",
            "--base",
            "sparse",
            "--prompt",
            prompt,
            "--max-new",
            "32",
        ]);
        assert_eq!(sparse, dense);
        assert!(dense.len() > 10, "{dense}");
    }
}
