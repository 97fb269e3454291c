//! What the benchmarks of the gateway's own package have, and the bars here share.
#![allow(dead_code, reason = "both use a part of it")]

#[path = "../../benches/rig/machine.rs"]
pub(crate) mod machine;
#[path = "../../benches/rig/markers.rs"]
pub(crate) mod markers;
#[path = "../../benches/rig/stopwatch.rs"]
pub(crate) mod stopwatch;
