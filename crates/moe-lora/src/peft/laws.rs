//! What holds for adapters that are read and written.

use std::fs;
use std::path::Path;

use burn::tensor::{Device, Tolerance};
use moe_core::config::ModelConfig;
use moe_core::model::Decoder;
use moe_core::parameters::to_bytes;
use serde_json::{Value, json};

use super::*;
use crate::{
    AdapterConfig, Error, ExpertId, Gate, LayerRange, LoraInit, Mix, Projection, Routing, Texts,
    tiny,
};

const FFN: [Projection; 3] = [Projection::Gate, Projection::Up, Projection::Down];

/// Experts off the autodiff device, trained by hand.
fn catalogue(config: &AdapterConfig, experts: usize) -> Catalogue {
    use burn::module::Module;
    let mut catalogue = Catalogue::new(config, &tiny::model()).unwrap();
    for seed in 0..experts as u64 {
        let device = Device::flex().autodiff();
        catalogue.add_expert(&config.lora, "task", seed, &device);
    }
    tiny::train_by_hand(&mut catalogue);
    catalogue.valid()
}

fn adapter(catalogue: &Catalogue, id: u64) -> PeftAdapter {
    PeftAdapter::of(catalogue, catalogue.expert(ExpertId(id)), &tiny::model()).unwrap()
}

fn written(adapter: &PeftAdapter, dir: &Path) -> std::path::PathBuf {
    let to = dir.join("adapter");
    adapter.write(&to, "base", |_| Ok(())).unwrap();
    to
}

fn read(dir: &Path, base: &ModelConfig) -> crate::Result<PeftAdapter> {
    PeftAdapter::read(dir, base, &Device::flex())
}

/// Changes the settings of the adapter in `dir`.
fn set(dir: &Path, key: &str, value: Value) {
    let path = dir.join(CONFIG);
    let mut settings: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    settings[key] = value;
    fs::write(path, settings.to_string()).unwrap();
}

#[test]
fn a_round_trip_is_the_identity_bit_for_bit() {
    let dir = tempfile::tempdir().unwrap();
    for (place, (targets, layers)) in [
        (&Projection::ALL[..], LayerRange::All),
        (&[Projection::Value, Projection::Query], LayerRange::Last(2)),
        (&FFN, LayerRange::Last(1)),
    ]
    .into_iter()
    .enumerate()
    {
        for rslora in [false, true] {
            let mut config = tiny::config(targets, layers);
            config.lora.rslora = rslora;
            config.lora.alpha = 3.7;
            config.lora.dropout = 0.05;
            config.lora.init = LoraInit::Gaussian;
            let from = catalogue(&config, 2);
            let dir = dir.path().join(format!("{place}-{rslora}"));
            fs::create_dir(&dir).unwrap();
            let to = written(&adapter(&from, 1), &dir);
            let read = read(&to, &tiny::model()).unwrap();
            let mut other = Catalogue::new(&config, &tiny::model()).unwrap();
            let id = other.import(&read, "task").unwrap();
            let (was, is) = (from.expert(ExpertId(1)), other.expert(id));
            assert_eq!(to_bytes(was), to_bytes(is));
            assert_eq!(was.info.lora, is.info.lora);
            assert_eq!(
                is.info.placed, None,
                "it has the form of an expert made here"
            );
            assert_eq!(is.info.origin.imported.as_ref().unwrap().len(), 64);
            let weights = fs::read(to.join(WEIGHTS)).unwrap();
            fs::remove_dir_all(&to).unwrap();
            let to = written(&PeftAdapter::of(&other, is, &tiny::model()).unwrap(), &dir);
            assert_eq!(fs::read(to.join(WEIGHTS)).unwrap(), weights);
        }
    }
}

#[test]
fn an_expert_of_many_ranks_is_described_stored_and_written_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let config = tiny::config(&Projection::ALL, LayerRange::All);
    let from = catalogue(&config, 2);
    let (one, two) = (adapter(&from, 0), adapter(&from, 1));
    let share = |adapter| Share {
        adapter,
        weights: vec![1.0; 3],
        attention: 1.0,
    };
    // Joined in the lowest layer, one alone above, and nothing on top but a query of another scaling.
    let mut odd = PeftAdapter::joined(&[share(&one), share(&two)]);
    odd.placed[1].clone_from(&one.placed[1]);
    odd.layers[1] = one.layers[1].clone();
    odd.layers[2] = LayerExpert {
        query: one.layers[2].query.clone(),
        ..LayerExpert::default()
    };
    odd.placed[2].retain(|it| it.target == Projection::Query);
    odd.placed[2][0] = Placed {
        target: Projection::Query,
        rank: 2,
        alpha: 3.0,
    };
    let to = written(&odd, dir.path());
    let read = read(&to, &tiny::model()).unwrap();
    assert_eq!((&read.placed, &read.lora), (&odd.placed, &odd.lora));
    assert_eq!(to_bytes(&read.layers), to_bytes(&odd.layers));
    let mut other = Catalogue::new(&config, &tiny::model()).unwrap();
    let id = other.import(&read, "odd").unwrap();
    let stored = other.expert(id);
    let info: String = serde_json::to_string(&stored.info).unwrap();
    let described = other.described_expert(&serde_json::from_str(&info).unwrap(), &Device::flex());
    let again = moe_core::parameters::from_bytes(described, &to_bytes(stored)).unwrap();
    assert_eq!(to_bytes(&again), to_bytes(stored));
    for (was, is) in stored.layers.iter().zip(&again.layers) {
        for target in Projection::ALL {
            let scaling = |layer: &LayerExpert| layer.lora(target).map(|it| it.scaling);
            assert_eq!(scaling(was), scaling(is));
        }
    }
}

#[test]
fn what_is_read_answers_as_the_expert_does_and_joined_experts_as_their_sum() {
    let (dir, device) = (tempfile::tempdir().unwrap(), Device::flex());
    let base = Decoder::random(&tiny::model(), 3, &device);
    let (tokens, real) = tiny::batch(&device);
    let texts = Texts::new(tokens, real);
    let config = tiny::config(&Projection::ALL, LayerRange::Last(2));
    let mut experts = catalogue(&config, 2);
    let (one, two) = (adapter(&experts, 0), adapter(&experts, 1));
    let read = read(&written(&one, dir.path()), &tiny::model()).unwrap();
    let again = experts.import(&read, "again").unwrap();
    let share = |adapter| Share {
        adapter,
        weights: vec![1.0; 3],
        attention: 1.0,
    };
    let joined = PeftAdapter::joined(&[share(&one), share(&two)]);
    let joined = experts.import(&joined, "joined").unwrap();
    let hidden = |mix: Mix| experts.forward_mixed(&base, &texts, &mix, None).into_data();
    let single = |id| hidden(Mix::Routed(Routing::Single(id)));
    assert_eq!(single(again), single(ExpertId(0)));
    let sum = hidden(Mix::Summed(vec![ExpertId(0), ExpertId(1)]));
    single(joined).assert_approx_eq::<f32>(&sum, Tolerance::rel_abs(1e-4, 1e-5));
}

#[test]
fn one_linear_map_with_a_constant_gate_is_joined_exactly() {
    let device = Device::flex();
    let base = Decoder::random(&tiny::model(), 3, &device);
    let (tokens, real) = tiny::batch(&device);
    let texts = Texts::new(tokens, real);
    let config = tiny::config(&[Projection::Down], LayerRange::All);
    let mut experts = catalogue(&config, 2);
    let gate = experts.add_gate(2, crate::GateInit::Zeros, "task", &device);
    assert_eq!(experts.gates().iter().map(Gate::id).next(), Some(gate));
    let shares = [adapter(&experts, 0), adapter(&experts, 1)];
    let shares = shares.iter().map(|adapter| Share {
        adapter,
        weights: vec![0.5; 3],
        attention: 1.0,
    });
    let joined = PeftAdapter::joined(&shares.collect::<Vec<_>>());
    let joined = experts.import(&joined, "joined").unwrap();
    let hidden = |routing: Routing| {
        let forward = experts.forward(&base, &texts, &routing, None, None);
        forward.hidden.into_data()
    };
    let mixed = hidden(Routing::Gated {
        experts: vec![ExpertId(0), ExpertId(1)],
        gate,
    });
    hidden(Routing::Single(joined)).assert_approx_eq::<f32>(&mixed, Tolerance::rel_abs(1e-4, 1e-5));
}

#[test]
fn targets_and_patterns_mean_what_they_mean_in_peft() {
    let dir = tempfile::tempdir().unwrap();
    let to = written(
        &adapter(&catalogue(&tiny::config(&FFN, LayerRange::All), 1), 0),
        dir.path(),
    );
    let whole = fs::read(to.join(CONFIG)).unwrap();
    let placed = |changes: &[(&str, Value)]| {
        fs::write(to.join(CONFIG), &whole).unwrap();
        for (key, value) in changes {
            set(&to, key, value.clone());
        }
        let settings = super::settings::Settings::read(&to.join(CONFIG)).unwrap();
        let chosen = settings.chosen(&tiny::model()).unwrap();
        let name = |(module, it): (super::modules::Module, Placed)| {
            let name = module.name.trim_start_matches("model.layers.").to_owned();
            format!("{name} {}/{}", it.alpha, it.rank)
        };
        chosen.into_iter().map(name).collect::<Vec<_>>()
    };
    let targets = |value: Value| placed(&[("target_modules", value)]);
    assert_eq!(targets(json!("all-linear")).len(), 21);
    assert_eq!(targets(json!(r".*\.[02]\..*\.[qk]_proj")).len(), 4);
    assert_eq!(targets(json!(["q_proj", "mlp.up_proj"])).len(), 6);
    let one = targets(json!(["model.layers.1.self_attn.v_proj"]));
    assert_eq!(one, ["1.self_attn.v_proj 3/2"]);
    let some = placed(&[
        ("target_modules", json!(["q_proj"])),
        ("layers_to_transform", json!([0, 2])),
        ("layers_pattern", json!("layers")),
        (
            "rank_pattern",
            json!({r"layers\.2\.self_attn\.q_proj": 5, "q_proj": 7}),
        ),
        (
            "alpha_pattern",
            json!({"model.layers.0.self_attn.q_proj": 1.5}),
        ),
    ]);
    assert_eq!(some, ["0.self_attn.q_proj 1.5/7", "2.self_attn.q_proj 3/5"]);
    assert_eq!(placed(&[("layers_to_transform", json!(1))]).len(), 3);
    assert_eq!(placed(&[("exclude_modules", json!(["up_proj"]))]).len(), 6);
    assert_eq!(placed(&[("exclude_modules", json!(r".*\.0\..*"))]).len(), 6);
    // Settings that change no number.
    let harmless = [
        ("fan_in_fan_out", json!(true)),
        ("use_dora", Value::Null),
        ("novel_option", json!(false)),
        ("megatron_core", json!("megatron.core")),
    ];
    assert_eq!(placed(&harmless).len(), 9);
}

#[test]
fn names_with_the_adapters_name_in_them_are_read_too() {
    let dir = tempfile::tempdir().unwrap();
    let config = tiny::config(&[Projection::Key], LayerRange::All);
    let experts = catalogue(&config, 1);
    let to = written(&adapter(&experts, 0), dir.path());
    let plain = read(&to, &tiny::model()).unwrap();
    let path = to.join(WEIGHTS);
    let stored = fs::read(&path).unwrap();
    let file = safetensors::SafeTensors::deserialize(&stored).unwrap();
    let renamed = file
        .iter()
        .map(|(name, view)| (name.replace(".weight", ".default.weight"), view));
    let bytes = safetensors::serialize(renamed.collect::<Vec<_>>(), None).unwrap();
    fs::write(&path, bytes).unwrap();
    let named = read(&to, &tiny::model()).unwrap();
    assert_eq!(to_bytes(&named.layers), to_bytes(&plain.layers));
}

#[test]
fn what_would_change_the_numbers_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let to = written(
        &adapter(&catalogue(&tiny::config(&FFN, LayerRange::All), 1), 0),
        dir.path(),
    );
    let whole = fs::read(to.join(CONFIG)).unwrap();
    for (key, value, said) in [
        ("use_dora", json!(true), "`use_dora` is true"),
        ("bias", json!("lora_only"), "`bias`"),
        ("lora_bias", json!(true), "`lora_bias`"),
        ("modules_to_save", json!(["lm_head"]), "`modules_to_save`"),
        ("layer_replication", json!([[0, 2]]), "`layer_replication`"),
        ("novel_option", json!({"x": 1}), "`novel_option`"),
        ("peft_type", json!("LOHA"), "`peft_type` is \"LOHA\""),
        ("init_lora_weights", json!("pissa"), "`init_lora_weights`"),
        ("target_modules", json!(["gate_proj", "wq"]), "\"wq\""),
        (
            "target_modules",
            json!(["gate_proj", "lm_head"]),
            "\"lm_head\"",
        ),
        ("target_modules", json!(null), "`target_modules` is missing"),
        (
            "target_modules",
            json!("nothing"),
            "`target_modules` matches no",
        ),
        ("target_modules", json!("(?<=a)b"), "no regular expression"),
        ("target_modules", json!([]), "`target_modules` matches no"),
        (
            "target_modules",
            json!("all-linear"),
            "lora_A.weight` is missing",
        ),
        ("target_modules", json!(["gate_proj"]), "is of no LoRA"),
        ("layers_to_transform", json!([3]), "layer 3"),
        ("layers_to_transform", json!(["a"]), "`layers_to_transform`"),
        (
            "r",
            json!(3),
            "has shape [2, 8]; rank and base ask for [3, 8]",
        ),
        ("r", json!(0), "`r` is 0"),
        ("r", json!(1_000_000_000), "has shape"),
        ("lora_alpha", json!("x"), "`lora_alpha`"),
        ("lora_dropout", json!(1.5), "dropout"),
        ("use_rslora", json!(1), "`use_rslora`"),
        (
            "rank_pattern",
            json!({"up_proj": 0}),
            "`rank_pattern.up_proj`",
        ),
        ("rank_pattern", json!({"up_proj": 4}), "has shape"),
        ("alpha_pattern", json!(["x"]), "`alpha_pattern`"),
    ] {
        fs::write(to.join(CONFIG), &whole).unwrap();
        set(&to, key, value.clone());
        let error = read(&to, &tiny::model()).unwrap_err().to_string();
        assert!(error.contains(said), "{key} = {value}: {error}");
        assert!(error.contains("adapter_"), "the file is named: {error}");
    }
    fs::write(to.join(CONFIG), "[]").unwrap();
    assert!(read(&to, &tiny::model()).is_err());
    fs::remove_file(to.join(CONFIG)).unwrap();
    assert!(read(&to, &tiny::model()).is_err());
}

#[test]
fn damaged_weights_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let config = tiny::config(&[Projection::Key], LayerRange::All);
    let mut experts = catalogue(&config, 1);
    let to = written(&adapter(&experts, 0), dir.path());
    let path = to.join(WEIGHTS);
    let whole = fs::read(&path).unwrap();
    let refused = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        read(&to, &tiny::model()).unwrap_err().to_string()
    };
    for cut in [0, 7, 40, whole.len() - 1] {
        refused(&whole[..cut]);
    }
    let mut bad = whole.clone();
    let end = bad.len() - 4;
    bad[end..].copy_from_slice(&f32::NAN.to_le_bytes());
    let error = refused(&bad);
    assert!(
        error.contains("holds NaN at ") && error.contains("lora_B"),
        "{error}"
    );
    fs::remove_file(&path).unwrap();
    fs::write(to.join("adapter_model.bin"), "pickle").unwrap();
    let error = read(&to, &tiny::model()).unwrap_err().to_string();
    assert!(error.contains("safe_serialization"), "{error}");
    // One that is there is not written over.
    let error = adapter(&experts, 0)
        .write(&to, "base", |_| Ok(()))
        .unwrap_err();
    assert!(error.to_string().contains("exists already"));
    // A base whose layers are sparse has no such matrices there.
    fs::remove_file(to.join("adapter_model.bin")).unwrap();
    fs::write(&path, &whole).unwrap();
    assert!(read(&to, &tiny::sparse()).is_ok(), "attention is as it was");
    // Experts are in the last layer alone.
    let read = read(&to, &tiny::model()).unwrap();
    let mut last = Catalogue::new(
        &AdapterConfig {
            layers: LayerRange::Last(1),
            ..config
        },
        &tiny::model(),
    )
    .unwrap();
    let layers = 2..3;
    let refused = last.import(&read, "task").unwrap_err();
    assert_eq!(refused, Error::NotAdapted { layer: 0, layers });
    assert_eq!(experts.import(&read, "task"), Ok(ExpertId(1)));
}

#[test]
fn an_expert_inside_a_sparse_mixture_is_refused_by_its_layer() {
    let of = |targets: &[Projection]| {
        let (config, base) = (tiny::config(targets, LayerRange::All), tiny::sparse());
        let mut experts = Catalogue::new(&config, &base).unwrap();
        experts.add_expert(&config.lora, "task", 1, &Device::flex());
        PeftAdapter::of(&experts, experts.expert(ExpertId(0)), &base).map(|_| ())
    };
    assert_eq!(of(&[Projection::Query, Projection::Output]), Ok(()));
    let inside = of(&[Projection::Query, Projection::Up]);
    assert_eq!(inside, Err(Error::InsideMixture { layer: 1 }));
}
