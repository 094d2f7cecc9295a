//! The [`Dashboard`] of a program without the cargo feature `dashboard`: there is none, and it says how to get it.

use std::{convert::Infallible, io};

use moe_cl::events::{Event, Recorder};

/// burn-train's dashboard, which takes the cargo feature `dashboard`; there is no value of this type.
#[derive(Debug)]
pub struct Dashboard(Infallible);

impl Dashboard {
    /// Says that there is none.
    ///
    /// # Errors
    /// Always; the message names the feature.
    pub fn terminal() -> io::Result<Self> {
        let problem = "this program was built without the dashboard; run without it, or build it in: \
                       cargo run --release -p moe-cli --features dashboard (a library: features = [\"dashboard\"] of moe-report)";
        Err(io::Error::new(io::ErrorKind::Unsupported, problem))
    }
}

impl Recorder for Dashboard {
    fn record(&mut self, _: &Event) -> io::Result<()> {
        match self.0 {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dashboard_that_is_not_built_in_names_its_feature() {
        let error = Dashboard::terminal().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::Unsupported);
        assert!(error.to_string().contains("--features dashboard"));
    }
}
