//! Processor time of this process: what a step costs on a machine that others use as well.

/// Seconds that all threads of this process have run so far, in hundredths; `None` where the system does not tell (not Linux).
pub fn processor_seconds() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The second field, the program's name, is in brackets and may hold blanks.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut ticks = fields.split_whitespace().skip(11).map(str::parse::<f64>);
    let (user, system) = (ticks.next()?.ok()?, ticks.next()?.ok()?);
    Some((user + system) / 100.0)
}

#[cfg(test)]
mod tests {
    #[test]
    #[cfg(target_os = "linux")]
    fn work_takes_time() {
        let start = super::processor_seconds().expect("Linux tells");
        let clock = std::time::Instant::now();
        while clock.elapsed().as_millis() < 300 {
            std::hint::black_box(clock);
        }
        let spent = super::processor_seconds().expect("Linux tells") - start;
        assert!(spent > 0.0, "{spent}");
    }
}
