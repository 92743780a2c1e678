//! Scalar values: never a bare string where a type exists.

mod cluster;
mod duration;
mod id;
mod net;
mod number;
mod path;
mod pem;
mod text;

pub use cluster::{ApiServer, CaHash, Hidden, JoinToken, Kubeconfig, KubeletVersion};
pub use duration::{Timespan, people};
pub use id::{Guid, MachineId};
pub use net::{Cidr, Hostname, LinkName, Listen, MacAddr, Mtu, NtpServer};
pub(crate) use number::ranged;
pub use number::{ByteSize, CpuLimit, ExitCode, FileMode, SignalName, Weight};
pub use path::{AbsPath, Source};
pub use pem::{Certificates, RevocationLists};
pub use text::{
    Argument, Content, EnvName, FsLabel, FsType, Glob, KernelArgument, Line, ModuleName,
    MountOption, PartLabel, SysctlKey, SysctlValue,
};
