//! Data by name: the suites of tasks that come with the project, and the demo's.
//!
//! Both make folders of JSON Lines, `<suite>/<task>/{train,dev,test}.jsonl` with records `{"text", "label"}`, out of what
//! public hubs serve.

pub mod demo;
pub mod suites;
