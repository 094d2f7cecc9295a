//! Full experts of a sparse base: they train with the family's losses, and are looked at.

use moe_cl::events::read_log;

use super::*;

/// As [`base`], of two layers of which the second is sparse.
fn sparse_base() -> Base {
    let dense = base();
    let config = serde_json::json!({
        "model_type": "qwen3_moe", "vocab_size": 20, "hidden_size": 16, "intermediate_size": 24,
        "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8, "rms_norm_eps": 1e-5,
        "hidden_act": "silu", "tie_word_embeddings": true, "max_position_embeddings": 64, "eos_token_id": 1,
        "pad_token_id": 0, "num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 12,
        "norm_topk_prob": true, "mlp_only_layers": [0]
    });
    let config = ModelConfig::from_json(&config.to_string(), Path::new("tiny"));
    let config = config.expect("a valid configuration");
    let decoder = Decoder::random(&config, 4, &Device::flex());
    Base::in_memory(decoder, dense.tokenizer, None).expect("a base")
}

const ALL: &str = "method={name='sequential',weights='all'}";

#[test]
fn experts_and_routers_of_a_sparse_base_train_where_all_weights_do() {
    let folder = tempfile::tempdir().expect("a folder");
    write_data(folder.path());
    let base = sparse_base();
    let experiment = experiment(
        folder.path(),
        &[ALL, "balance.loss=balance", "balance.z_loss=0.001"],
    );
    let out = folder.path().join("run");
    run(&experiment, &base, &out, None).expect("a run");
    let trained = Trained::open(&out, &base).expect("a trained learner");
    let decoder = trained.learner().decoder(&base.decoder);
    let mixture = |decoder: &Decoder| {
        let layer = decoder.layers[1]
            .feed_forward
            .sparse()
            .expect("sparse")
            .clone();
        [
            layer
                .router
                .weight
                .float()
                .expect("numbers")
                .val()
                .unsqueeze(),
            layer.gate.val(),
            layer.up.val(),
            layer.down.val(),
        ]
        .map(|numbers: Tensor<3>| numbers.into_data())
    };
    for (was, is) in mixture(&base.decoder).into_iter().zip(mixture(decoder)) {
        assert_ne!(was, is);
    }
    // Both losses are said at every step.
    let log = read_log(&out.join("events.jsonl")).expect("a log");
    for line in log.lines {
        if let Event::Step { figures, .. } = line.event {
            let names: Vec<&str> = figures.keys().map(String::as_str).collect();
            assert_eq!(names, ["router/balance", "router/z"]);
            assert!(figures["router/balance"] > 0.5, "{figures:?}");
        }
    }
}

#[test]
fn the_loss_that_is_asked_for_falls_and_looking_changes_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    write_data(folder.path());
    let base = sparse_base();
    for name in ["balance", "importance"] {
        let run = |every: usize| {
            let out = folder.path().join(format!("{name}-{every}"));
            let loss = format!("balance.loss={name}");
            let every = format!("balance.every={every}");
            let settings = [ALL, "training.epochs=10", "balance.weight=1", &loss, &every];
            let experiment = experiment(folder.path(), &settings);
            run(&experiment, &base, &out, None).expect("a run");
            out
        };
        let (often, seldom) = (run(1), run(7));
        assert_eq!(layout(&often), layout(&seldom));
        let log = read_log(&often.join("events.jsonl")).expect("a log");
        let mut course = Vec::new();
        for line in log.lines {
            if let Event::Step {
                figures, balance, ..
            } = line.event
            {
                course.push(figures[&format!("router/{name}")]);
                let figures = &balance[0].figures;
                assert_eq!(balance[0].layer, 1);
                assert_eq!(figures.load.iter().sum::<u64>(), 2 * figures.tokens);
            }
        }
        let (first, last) = (&course[..10], &course[course.len() - 10..]);
        let sums = [first, last].map(|course| course.iter().sum::<f64>());
        assert!(sums[1] < sums[0], "{name}: {sums:?}");
    }
}

#[test]
fn a_stopped_run_with_losses_of_routers_resumes_bit_for_bit_events_included() {
    let folder = tempfile::tempdir().expect("a folder");
    write_data(folder.path());
    let base = sparse_base();
    let settings = [
        ALL,
        "balance.loss=importance",
        "balance.every=2",
        "training.accumulation=2",
    ];
    let experiment_ = experiment(folder.path(), &settings);
    let (whole, broken) = (folder.path().join("whole"), folder.path().join("broken"));
    let result = run(&experiment_, &base, &whole, None).expect("an uninterrupted run");
    for stop in [2, 3, 6] {
        assert!(run(&experiment_, &base, &broken, Some(stop)).is_err());
    }
    // Another loss would make another model; looking more or less often would not.
    let other = experiment(
        folder.path(),
        &[ALL, "balance.loss=balance", "balance.every=2"],
    );
    let message = run(&other, &base, &broken, None).unwrap_err().to_string();
    assert!(
        message.contains("`balance.loss` is \"importance\" there, now \"balance\""),
        "{message}"
    );
    let resumed = run(&experiment_, &base, &broken, None).expect("the rest of the run");
    assert_eq!(resumed.matrix, result.matrix);
    assert_eq!(layout(&broken), layout(&whole));
    let seen = |out: &Path| {
        let log = read_log(&out.join("events.jsonl")).expect("a log");
        let seen = log.lines.into_iter().filter_map(|line| match line.event {
            Event::Step { step, balance, .. } => Some((step, balance)),
            Event::Balance { task, layers, .. } => Some((task, layers)),
            _ => None,
        });
        seen.collect::<Vec<_>>()
    };
    assert_eq!(seen(&broken), seen(&whole));
    let looks = seen(&whole)
        .into_iter()
        .filter(|(_, layers)| !layers.is_empty());
    assert!(looks.count() > 8);
}

#[test]
fn a_loss_of_routers_that_do_not_train_or_are_not_there_is_refused_by_name() {
    let folder = tempfile::tempdir().expect("a folder");
    write_data(folder.path());
    let experiment = experiment(folder.path(), &[ALL, "balance.z_loss=0.1"]);
    let out = folder.path().join("dense");
    let message = run(&experiment, &base(), &out, None)
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("`balance.z_loss`") && message.contains("moe-cl upcycle"),
        "{message}"
    );
    let text =
        "name = 'x'\n[[tasks]]\nname = 'a'\ntrain = 't'\ntest = 't'\n[balance]\nloss = 'balance'\n";
    let refused = Experiment::parse(text, Path::new("x.toml"), &[]).unwrap_err();
    let message = refused.to_string();
    assert!(
        message.starts_with("x.toml:7:8: `balance.loss` needs routers that train"),
        "{message}"
    );
}
