//! What every tunnel has.

use std::net::SocketAddr;

use crate::failure::Failure;
use crate::process::Running;
use crate::procfs::Usage;

/// Processes that carry what is written to `entry` to a server.
#[derive(Debug)]
pub(crate) struct Tunnel {
    /// Where clients connect.
    pub(crate) entry: SocketAddr,
    /// From the clients' side on, or in any other order.
    pub(crate) processes: Vec<Running>,
}

impl Tunnel {
    /// Returns what its processes have used, those that they have started included.
    pub(crate) fn usage(&mut self) -> Result<Usage, Failure> {
        let mut sum = Usage::default();
        for process in &mut self.processes {
            process.check_alive()?;
            let usage = Usage::read_family(process.id())?;
            sum.cpu += usage.cpu;
            sum.peak_rss_kib += usage.peak_rss_kib;
            sum.pss_kib += usage.pss_kib;
        }
        Ok(sum)
    }

    /// Stops its processes.
    pub(crate) fn stop(self) -> Result<(), Failure> {
        self.processes.into_iter().try_for_each(Running::stop)
    }
}
