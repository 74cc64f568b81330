//! What the status says of commands to devices.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

/// Commands to devices: what a gateway has its devices handed, and what a collector sends.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CommandsStatus {
    /// At a gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) gateway: Option<GatewayCommands>,
    /// At a collector: commands that are not finished.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) unfinished: Option<u64>,
    /// Why commands cannot be kept, if so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) problem: Option<String>,
}

/// Commands to this gateway's devices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GatewayCommands {
    /// Not finished.
    pub(crate) waiting: u64,
    /// Results that their collector has not acknowledged.
    pub(crate) unreported: u64,
    /// Accepted since the start.
    pub(crate) accepted: u64,
    /// Not accepted since the start.
    pub(crate) refused: u64,
    /// Times that a device was handed one since the start.
    pub(crate) handed: u64,
    /// Ended with an acknowledgement or an answer since the start.
    pub(crate) succeeded: u64,
    /// Ended otherwise since the start.
    pub(crate) failed: u64,
}

impl CommandsStatus {
    /// Returns what is wrong, if something is.
    pub(super) fn reason(&self) -> Option<String> {
        let problem = self.problem.as_ref()?;
        Some(format!("commands: they cannot be kept: {problem}"))
    }

    pub(super) fn write_text(&self, out: &mut String) -> std::fmt::Result {
        if let Some(gateway) = &self.gateway {
            writeln!(
                out,
                "  commands   {} waiting, {} results to tell, {} succeeded, {} failed, {} refused",
                gateway.waiting, gateway.unreported, gateway.succeeded, gateway.failed, gateway.refused
            )?;
        }
        if let Some(unfinished) = self.unfinished {
            writeln!(out, "  commands   {unfinished} under way to gateways")?;
        }
        Ok(())
    }
}
