//! Benchmarks of moe-cl, and the runner that holds its code against fixtures computed by other programs.

pub mod balance;
pub mod conformance;
pub mod continual;
pub mod crash;
pub mod decode;
pub mod fuzz;
pub mod grow;
pub mod guards;
pub mod lower_bound;
pub mod moe;
pub mod peers;
pub mod shapes;
pub mod step;
pub mod tiny;
