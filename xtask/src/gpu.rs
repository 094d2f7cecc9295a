//! The `gpu` stage.

use crate::counts::Counts;
use crate::step::Step;

/// Where Linux registers Vulkan drivers.
const DRIVERS: [&str; 3] = [
    "/usr/share/vulkan/icd.d",
    "/usr/local/share/vulkan/icd.d",
    "/etc/vulkan/icd.d",
];

/// A build of its own: with the GPU back end nearly every dependency has other features, so that nothing of the other stages' build
/// could be shared. Light optimisation and no debug information make it in a fraction of the time.
const PROFILE: [&str; 3] = [
    "profile.gpu.inherits=\"release\"",
    "profile.gpu.opt-level=1",
    "profile.gpu.debug=false",
];

/// Tests on the Vulkan device, on tiny shapes: a software driver will do.
///
/// # Errors
/// When cargo cannot be started.
pub fn run() -> anyhow::Result<Counts> {
    if !has_driver() {
        return Ok(Counts::not_run(
            "gpu",
            "no Vulkan driver found; on Debian `apt-get install mesa-vulkan-drivers` brings a software one",
        ));
    }
    let mut step = Step::cargo("tests on Vulkan", &["test", "--profile", "gpu"]);
    step.arguments(&[
        "--package",
        "moe-bench",
        "--features",
        "wgpu",
        "--test",
        "gpu",
    ]);
    for setting in PROFILE {
        step.arguments(&["--config", setting]);
    }
    // One at a time: a software driver uses all cores by itself.
    step.arguments(&["--", "--test-threads", "1"]);
    step.run()
}

fn has_driver() -> bool {
    let named = ["VK_DRIVER_FILES", "VK_ICD_FILENAMES"];
    let listed =
        |folder: &&str| std::fs::read_dir(folder).is_ok_and(|mut drivers| drivers.next().is_some());
    !cfg!(target_os = "linux")
        || named.iter().any(|name| std::env::var_os(name).is_some())
        || DRIVERS.iter().any(listed)
}
