//! Processes: start them in their cgroup, reap them, read what they say, and know when they are ready.
//!
//! | module | what it answers |
//! |---|---|
//! | `command` | what to run, and what can go wrong while it starts |
//! | `clone` | the one unsafe corner: `clone3` and the few calls between it and `execve` |
//! | `reaper` | who gets an exit status; the only caller of `wait*` in the program |
//! | `cgroup` | where a unit's processes live, what they may use, how all of them end |
//! | `log` | a unit's output in bounded memory |
//! | `journal` | all units' output in the order in which it came, read from a number on |
//! | `notify` | ready by `sd_notify` |
//! | `socket` | ready because a socket answers |
//! | `program` | one activation of a service or oneshot, from its cgroup to its end |
//! | `tool` | run a helper program of the system to its end (`mkfs.ext4`, `e2fsck`) |

mod cgroup;
mod clone;
mod command;
mod descriptors;
mod journal;
mod log;
mod notify;
mod program;
mod reaper;
mod socket;
mod tool;
mod watch;

pub use cgroup::{Cgroup, CgroupError, CgroupErrorKind, Cgroups, Limits, Unapplied};
pub use command::{Command, ExecFault, SEARCH_PATH, SpawnError, SpawnErrorKind};
pub use descriptors::allow_descriptors;
pub use journal::{Journal, Lines, Reader, Unreadable, Wanted};
pub use log::{LogBounds, LogBuffer, LogLine};
pub use notify::{
    Notification, Notifications, NotifyError, NotifySocket, Said, Sender, Subscription,
    parse_notification,
};
pub use program::{Ask, Asks, Life, Program, ProgramError, ReadyBy, Surroundings, live};
pub use reaper::{Child, Exit, Reaper, ReaperError, Streams, reap_forever};
pub use socket::until_answers;
pub use tool::{FindCgroups, ReaperTools};
