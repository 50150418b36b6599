//! What there is for a container that is about to be frozen and dumped: all that can be had before it
//! stands still.

use super::criu::Dumper;
use super::definition::Mac;
use super::frames::{self, Kept};
use super::grace::NoGracePeriods;
use crate::runtime::ContainerName;

#[derive(Debug)]
pub struct Ready {
    /// The host's end of its veth.
    pub host_interface: String,
    /// What comes for it is heard, and counts for nothing yet. `None` where it cannot be heard: what
    /// is sent to it meanwhile is lost then.
    pub listener: Option<Kept>,
    pub dumper: Dumper,
    pub grace: NoGracePeriods,
}

impl Ready {
    /// For the container `name`, whose veth has `mac` at its end and `host_interface` on `bridge`.
    ///
    /// # Errors
    /// Where CRIU does not begin.
    pub fn begin(
        name: &ContainerName,
        mac: Mac,
        host_interface: String,
        bridge: &str,
    ) -> Result<Self, String> {
        // First: it takes effect a while later.
        let grace = NoGracePeriods::begin();
        Ok(Self {
            host_interface,
            listener: Kept::begin(mac, bridge)
                .map_err(|error| frames::are_lost(name, &error))
                .ok(),
            dumper: Dumper::start()?,
            grace,
        })
    }
}
