//! The table, and the same as JSON.

use std::collections::BTreeMap;
use std::fmt::{self, Display};

use serde::{Serialize, Serializer, ser::SerializeStruct};

use super::agreement::Agreement;
use super::pairs::{Pairs, Spread};
use moe_core::model::BaseDtype;

use super::Peer;

/// Everything that a run found.
#[derive(Default)]
pub struct Report {
    /// Per type, how near the two steps are.
    pub agreements: Vec<(BaseDtype, Agreement)>,
    /// What was timed.
    pub peers: Vec<Outcome>,
}

/// One peer against us.
pub struct Outcome {
    peer: &'static Peer,
    /// What the peer said of itself.
    about: String,
    pairs: Pairs,
}

impl Outcome {
    /// What the pairs of a peer say.
    pub fn new(peer: &'static Peer, about: String, pairs: Pairs) -> Self {
        Self { peer, about, pairs }
    }

    fn figures(&self) -> Figures {
        let Self { peer, about, pairs } = self;
        let ratios = pairs.ratios();
        let ours = Spread::of(pairs.ours.clone()).median;
        let published = peer.published_at(pairs.gflops());
        let ratio_published = published / ours;
        let ratio_held = ratios.median.min(ratio_published);
        Figures {
            name: peer.name,
            peer_s: Spread::of(pairs.theirs.clone()).median,
            ours_s: ours,
            ratio: ratios.median,
            ratio_quartiles: [ratios.lower, ratios.upper],
            ratio_range: [ratios.least, ratios.greatest],
            pairs: pairs.ours.len(),
            published_s: peer.published,
            published_scaled_s: published,
            ratio_published,
            ratio_held,
            bar: peer.bar,
            reached: peer.bar.map(|bar| ratio_held >= bar),
            peer_gflops: pairs.their_gflops,
            ours_gflops: pairs.our_gflops,
            peer_peak_bytes: pairs.their_memory,
            ours_peak_bytes: pairs.our_memory,
            other_cpus: pairs.other_cpus,
            peer: about.clone(),
        }
    }

    /// Its row of the table.
    pub fn line(&self) -> String {
        let figures = self.figures();
        let gigabytes = |bytes: Option<u64>| {
            bytes.map_or("–".into(), |bytes| format!("{:.2}", bytes as f64 / 1e9))
        };
        let [least, greatest] = figures.ratio_range;
        format!(
            "{:<22} {:>7.3} {:>7.3} {:>6.2} {:>13} {:>7.3} {:>6.2} {:>6.2} {:>5} {:>5} {:>5} {:>9} {:>9} {:>6}",
            figures.name,
            figures.peer_s,
            figures.ours_s,
            figures.ratio,
            format!("{least:.2} to {greatest:.2}"),
            figures.published_scaled_s,
            figures.ratio_published,
            figures.ratio_held,
            figures.bar.map_or("–".into(), |bar| format!("{bar:.1}")),
            gigabytes(figures.peer_peak_bytes),
            gigabytes(figures.ours_peak_bytes),
            format!(
                "{:.0} {:.0}",
                figures.peer_gflops[0], figures.peer_gflops[1]
            ),
            format!(
                "{:.0} {:.0}",
                figures.ours_gflops[0], figures.ours_gflops[1]
            ),
            figures
                .other_cpus
                .map_or("–".into(), |cpus| format!("{cpus:.2}")),
        )
    }
}

#[derive(Serialize)]
struct Figures {
    name: &'static str,
    peer_s: f64,
    ours_s: f64,
    /// Median over pairs of peer / ours.
    ratio: f64,
    ratio_quartiles: [f64; 2],
    ratio_range: [f64; 2],
    pairs: usize,
    published_s: f64,
    published_scaled_s: f64,
    ratio_published: f64,
    /// The lesser of the two: what bars are held by.
    ratio_held: f64,
    bar: Option<f64>,
    reached: Option<bool>,
    peer_gflops: [f64; 2],
    ours_gflops: [f64; 2],
    peer_peak_bytes: Option<u64>,
    ours_peak_bytes: Option<u64>,
    other_cpus: Option<f64>,
    peer: String,
}

impl Serialize for Report {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let peers: Vec<Figures> = self.peers.iter().map(Outcome::figures).collect();
        let agreements: BTreeMap<String, &Agreement> = self
            .agreements
            .iter()
            .map(|(dtype, agreement)| (dtype.to_string(), agreement))
            .collect();
        let mut report = serializer.serialize_struct("Report", 2)?;
        report.serialize_field("peers", &peers)?;
        report.serialize_field("agreement", &agreements)?;
        report.end()
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (dtype, agreement) in &self.agreements {
            writeln!(f, "{}: {agreement}", dtype)?;
        }
        if let Some(first) = self.peers.first() {
            writeln!(
                f,
                "\n{:<22} {:>7} {:>7} {:>6} {:>13} {:>7} {:>6} {:>6} {:>5} {:>5} {:>5} {:>9} {:>9} {:>6}",
                "peer",
                "its s",
                "ours s",
                "ratio",
                "range",
                "publ. s",
                "ratio",
                "held",
                "bar",
                "GB",
                "ours",
                "GFLOP/s",
                "ours",
                "others"
            )?;
            for outcome in &self.peers {
                writeln!(f, "{}", outcome.line())?;
            }
            writeln!(
                f,
                "\n{}; medians of {} pairs, one step of each in turn. publ. s: the published figure, scaled by the best rate of the \
                 base's products in this run against the rate then;\nheld: the lesser ratio, by which bars are held. GB: peak resident \
                 memory during the steps. GFLOP/s: before and after. others: CPUs used by other processes.",
                first.about,
                first.pairs.ours.len()
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::peer::PEERS;
    use super::*;

    fn report() -> Report {
        let pairs = Pairs {
            theirs: vec![2.0, 3.0, 4.0],
            ours: vec![1.0, 1.0, 2.0],
            their_gflops: [407.5, 300.0],
            our_gflops: [200.0, 200.0],
            their_memory: Some(4_000_000_000),
            our_memory: None,
            other_cpus: Some(0.1),
        };
        Report {
            peers: vec![Outcome::new(&PEERS[0], "fake".into(), pairs)],
            agreements: Vec::new(),
        }
    }

    #[test]
    fn the_json_names_peers_and_both_ratios() {
        let json = serde_json::to_value(report()).expect("numbers");
        let peer = &json["peers"][0];
        assert_eq!(peer["name"], "torch_tuned_f32");
        assert_eq!(
            (&peer["peer_s"], &peer["ours_s"]),
            (&3.0.into(), &1.0.into())
        );
        assert_eq!(peer["ratio"], 2.0);
        assert_eq!(peer["ratio_range"], serde_json::json!([2.0, 3.0]));
        // At the rate of the published figures they stand as they are.
        assert_eq!(peer["published_scaled_s"], 2.26);
        assert_eq!(peer["ratio_held"], 2.0);
        assert_eq!(peer["reached"], true);
        assert_eq!(peer["ours_peak_bytes"], serde_json::Value::Null);
    }

    #[test]
    fn the_table_shows_what_ran_and_what_did_not() {
        let text = report().to_string();
        assert!(text.contains("torch_tuned_f32"), "{text}");
        assert!(text.contains("2.00 to 3.00"), "{text}");
    }
}
