//! A switch with four cables.

use crate::failure::Failure;
use crate::place::Place;
use crate::process::complete;

/// Namespaces of four nodes around a switch, all in 10.77.10.0/24.
pub(super) struct Network {
    /// Where the inlets are.
    pub(super) desk: Place,
    /// Where the outlets are.
    pub(super) hall: Place,
    pub(super) relays: [Place; 2],
    switch: Place,
}

impl Network {
    /// Makes it. Needs root.
    pub(super) fn new() -> Result<Self, Failure> {
        let network = Self {
            desk: Place::fresh("desk")?,
            hall: Place::fresh("hall")?,
            relays: [Place::fresh("relay1")?, Place::fresh("relay2")?],
            switch: Place::fresh("switch")?,
        };
        network
            .switch
            .ip(&["link", "add", BRIDGE, "type", "bridge", "stp_state", "0"])?;
        network.switch.ip(&["link", "set", BRIDGE, "up"])?;
        let [first, second] = &network.relays;
        let ends = [
            (&network.desk, "desk", DESK),
            (&network.hall, "hall", HALL),
            (first, PORTS[0], RELAYS[0]),
            (second, PORTS[1], RELAYS[1]),
        ];
        for (place, port, address) in ends {
            network.cable(place, port, address)?;
        }
        Ok(network)
    }

    fn cable(&self, place: &Place, port: &str, address: &str) -> Result<(), Failure> {
        place.cable("eth0", &self.switch, port)?;
        let address = format!("{address}/24");
        place.ip(&["address", "add", &address, "dev", "eth0"])?;
        place.ip(&["link", "set", "eth0", "up"])?;
        self.switch.ip(&["link", "set", port, "master", BRIDGE])?;
        self.switch.ip(&["link", "set", port, "up"])
    }

    /// Pulls a relay's cable: from now on the switch takes nothing from that port and gives nothing to it. Neither end of any link is
    /// told: the port's carrier stays, as with a cable that is pulled behind another switch.
    pub(super) fn unplug(&self, relay: usize) -> Result<(), Failure> {
        self.port(relay, DISABLED)
    }

    /// Puts it back.
    pub(super) fn plug(&self, relay: usize) -> Result<(), Failure> {
        self.port(relay, FORWARDING)
    }

    fn port(&self, relay: usize, state: &str) -> Result<(), Failure> {
        let mut bridge = self.switch.command("bridge");
        complete(bridge.args(["link", "set", "dev", PORTS[relay], "state", state])).map(drop)
    }
}

/// Addresses of the nodes.
pub(super) const DESK: &str = "10.77.10.1";
pub(super) const HALL: &str = "10.77.10.4";
pub(super) const RELAYS: [&str; 2] = ["10.77.10.2", "10.77.10.3"];
const BRIDGE: &str = "switch";
/// Ports of the relays.
const PORTS: [&str; 2] = ["relay1", "relay2"];
/// States of a port (IEEE 802.1D §8.4), as `bridge` writes them.
const DISABLED: &str = "0";
const FORWARDING: &str = "3";
