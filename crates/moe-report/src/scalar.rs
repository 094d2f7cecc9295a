//! A number of the run as a metric of burn-train, with its running mean over the task.

use std::sync::Arc;

use burn::tensor::TensorReadError;
use burn_train::{
    metric::{
        Metric, MetricAttributes, MetricDefinition, MetricEntry, MetricId, MetricMetadata,
        MetricName, Numeric, NumericAttributes, NumericEntry, SerializedEntry, format_float,
        state::NumericMetricState,
    },
    renderer::MetricState,
};

/// A metric whose values are already on the host, unlike burn-train's own that read them from tensors.
#[derive(Clone)]
pub(super) struct Scalar {
    name: MetricName,
    unit: Option<String>,
    higher_is_better: bool,
    precision: usize,
    state: NumericMetricState,
}

/// A value and the number of units that it is a mean of: its weight in the running mean.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reading {
    pub value: f64,
    pub count: usize,
}

impl Scalar {
    pub(super) fn new(
        name: &str,
        unit: Option<&str>,
        higher_is_better: bool,
        precision: usize,
    ) -> Self {
        Self {
            name: Arc::new(name.to_owned()),
            unit: unit.map(str::to_owned),
            higher_is_better,
            precision,
            state: NumericMetricState::new(),
        }
    }

    pub(super) fn definition(&self) -> MetricDefinition {
        MetricDefinition::new(MetricId::new(self.name.clone()), self)
    }

    /// Takes `reading` in and returns what a renderer shows of it.
    pub(super) fn shown(&mut self, reading: Reading) -> MetricState {
        let entry = MetricEntry::new(MetricId::new(self.name.clone()), self.take(reading));
        MetricState::Numeric(entry, self.value())
    }

    fn take(&mut self, reading: Reading) -> SerializedEntry {
        self.state.update(reading.value, reading.count);
        self.entry(self.state.current_value())
    }

    fn entry(&self, entry: NumericEntry) -> SerializedEntry {
        let unit = self
            .unit
            .as_ref()
            .map_or(String::new(), |unit| format!(" {unit}"));
        let now = format_float(entry.current(), self.precision);
        let mean = format_float(self.state.running_value().current(), self.precision);
        let shown = if now == mean {
            format!("{now}{unit}")
        } else {
            format!("{now}{unit} (mean {mean})")
        };
        SerializedEntry::new(shown, entry.serialize())
    }
}

impl Metric for Scalar {
    type Input = Reading;

    fn name(&self) -> MetricName {
        self.name.clone()
    }

    fn attributes(&self) -> MetricAttributes {
        NumericAttributes {
            unit: self.unit.clone(),
            higher_is_better: self.higher_is_better,
        }
        .into()
    }

    fn update(
        &mut self,
        reading: &Reading,
        _: &MetricMetadata,
    ) -> Result<SerializedEntry, TensorReadError> {
        Ok(self.take(*reading))
    }

    fn compute(&mut self) -> Result<SerializedEntry, TensorReadError> {
        Ok(self.entry(self.final_value()))
    }

    fn clear(&mut self) {
        self.state.reset();
    }
}

impl Numeric for Scalar {
    fn value(&self) -> Option<NumericEntry> {
        Some(self.state.current_value())
    }

    fn running_value(&self) -> Option<NumericEntry> {
        Some(self.state.running_value())
    }

    fn final_value(&self) -> NumericEntry {
        self.state.final_value()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_running_mean_weighs_readings_by_their_counts() {
        let mut scalar = Scalar::new("Loss", None, false, 3);
        scalar.shown(Reading {
            value: 1.0,
            count: 1,
        });
        let MetricState::Numeric(entry, Some(value)) = scalar.shown(Reading {
            value: 2.0,
            count: 3,
        }) else {
            panic!("a numeric state")
        };
        assert_eq!(value.current(), 2.0);
        assert_eq!(entry.serialized_entry.formatted, "2.000 (mean 1.750)");
        scalar.clear();
        scalar.shown(Reading {
            value: 5.0,
            count: 1,
        });
        assert_eq!(scalar.final_value().current(), 5.0);
    }
}
