//! The local protocol between init and agent: framed, bounded, over a Unix socket.
//!
//! PID 1 speaks no TLS, no HTTP/2 and no gRPC. It answers this instead, on [`SOCKET`], and keel-agent carries the answers
//! to the network. One conversation:
//!
//! ```text
//! init  -> Greeting { version, software, room }     closes at once when it has no room
//! agent -> Hello { version, software }
//! agent -> Request                                  again and again, or once one that follows
//! init  -> Reply                                    one or several frames per request
//! ```
//!
//! A frame is a length (u32, big endian, at most [`MAX_FRAME`]) and that many bytes of postcard. Only root may connect.
//! Whatever comes in, this crate neither panics nor allocates more than was really sent.

mod client;
mod config;
mod event_log;
mod frame;
#[cfg(feature = "fuzz")]
pub mod fuzz;
mod inventory;
mod journal;
mod message;
mod operation;
mod server;

pub use client::{Control, ControlError, ControlErrorKind, LogStream, Watch};
pub use config::{
    Answer, Applied, Apply, ApplyMode, BootChange, ConfigText, Decision, Fate, Finding, Findings,
    Generation, GenerationResult, History, KEPT, Layer, MAX_CONFIG, MAX_REMARK, MutationPlan,
    MutationProgress, Rollback, Trial, Undone, UnitChange,
};
pub use event_log::{Batch, EventLog};
pub use frame::{FrameError, FrameErrorKind, MAX_FRAME};
pub use inventory::{
    Inventory, InventoryDisk, InventoryDriver, InventoryImage, InventoryLink, InventoryPartition,
};
pub use journal::{
    BootRecord, LogBatch, LogLine, LogQuery, LogSource, MAX_RECORD, RECORD_SUFFIX, RECORDS,
    RecordHead, is_boot_id, record_number,
};
pub use message::{
    Address, BootReport, CriticalUnit, Degraded, Event, GoalState, Happened, Link, Refusal,
    RefusalKind, Shutdown, Status, Unit, UnitBoot, UnitList, UnitState, VERSION,
};
pub use operation::{
    ControlUnit, Loss, PlannedJob, Reset, ResetPlan, UnitDetail, UnitEdge, UnitPlan, UnitVerb,
};
pub use server::{ConnectionError, ConnectionErrorKind, Limits, Service, bind, serve};

/// Where init listens on a node.
pub const SOCKET: &str = "/run/keel/control.sock";

/// What each side calls itself; it shows in the other's errors.
fn software() -> String {
    concat!("keel ", env!("CARGO_PKG_VERSION")).to_owned()
}
