//! The kinds that say what this machine is: `hostname`, `time`, `identity`.

use crate::keys::keys;
use crate::value::{AbsPath, Hostname, MachineId, NtpServer, Timespan};

keys! {
    /// Sets the host name.
    pub struct HostName {
        /// The name; else the one that the machine was given otherwise (by DHCP, on the kernel's command line), else one that is made
        /// from the machine id (`keel-` and its first eight digits).
        name "name": Option<Hostname>,
        /// The file with the machine id.
        machine_id "machine-id": AbsPath = "\"/etc/machine-id\"",
        /// How long it may take.
        timeout "timeout": Option<Timespan>,
    }

    /// Sets the clock. A clock that stands before the floor (a machine without battery) is set to it.
    pub struct Time {
        /// A file whose date the clock must not be before.
        floor "floor": Option<AbsPath>,
        /// Time servers (SNTP, RFC 5905) that are asked once, in this order.
        servers "servers": Vec<NtpServer> = "[]",
        /// How long it may take.
        timeout "timeout": Option<Timespan>,
    }

    /// Makes the machine id on first boot and publishes it. One that is there is never replaced; one that cannot be
    /// read is an error.
    pub struct Identity {
        /// The directory on the data partition that keeps it.
        directory "directory": AbsPath,
        /// The id that the machine must have; a different one on the disk is an error.
        machine_id "machine-id": Option<MachineId>,
        /// Where programs look for it.
        publish "publish": AbsPath = "\"/etc/machine-id\"",
        /// How long it may take.
        timeout "timeout": Option<Timespan>,
    }
}
