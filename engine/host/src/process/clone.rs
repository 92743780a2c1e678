//! The unsafe corner of processes: `clone3`, what the child does until `execve`, and `waitpid` with the status as it came.
//!
//! PID 1 has threads (blocking work runs off the deciding one), and after a fork in a program with threads the child owns a
//! copy of every lock in whatever state another thread left it. So between `clone3` and `execve` the child touches nothing but
//! system calls: no allocation, no formatting, no lock. All that it needs is made by the parent, beforehand, in [`Image`].
//!
//! Not `CLONE_VM`: the child would share our memory, and a mistake here would be a mistake in PID 1. Not `CLONE_VFORK`: the
//! deciding thread would stand still until the child has read its program from a disk that may be slow.

#![expect(
    unsafe_code,
    reason = "clone3 has no safe wrapper, and its child may only make bare system calls"
)]

use std::ffi::{CString, c_char, c_int};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;

// The constants of these names in the libc crate are `c_int`, in which neither value fits.
const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
const CLONE_PIDFD: u64 = 0x1000;

/// The highest signal number of Linux on every architecture that we build for.
const LAST_SIGNAL: c_int = 64;

/// How the child exits when it never became the program; the parent learns why from the fault pipe.
const NOT_EXECUTED: c_int = 127;

/// What the child was doing when it failed. The number is what travels through the fault pipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum ExecStage {
    Session = 1,
    Output = 2,
    OomScore = 3,
    Directory = 4,
    Exec = 5,
}

impl ExecStage {
    pub(super) fn from_wire(byte: u8) -> Option<Self> {
        [Self::Session, Self::Output, Self::OomScore, Self::Directory, Self::Exec]
            .into_iter()
            .find(|stage| *stage as u8 == byte)
    }
}

/// The size of a fault message: a stage byte and an errno. Far under `PIPE_BUF`, so that it arrives whole or not at all.
pub(super) const FAULT_LEN: usize = 5;

/// Everything the child needs, allocated before it exists.
///
/// The pointer arrays point into the boxed bytes of the `CString`s beside them. Those do not move when an `Image` does, and
/// they are never changed after construction.
pub(super) struct Image {
    program: CString,
    _argv: Vec<CString>,
    argv_pointers: Vec<*const c_char>,
    _env: Vec<CString>,
    env_pointers: Vec<*const c_char>,
    directory: CString,
    oom_score_adj: Option<Vec<u8>>,
}

impl Image {
    pub(super) fn new(
        program: CString,
        argv: Vec<CString>,
        env: Vec<CString>,
        directory: CString,
        oom_score_adj: Option<i16>,
    ) -> Self {
        let argv_pointers = pointers(&argv);
        let env_pointers = pointers(&env);
        let oom_score_adj = oom_score_adj.map(|score| score.to_string().into_bytes());
        Self {
            program,
            _argv: argv,
            argv_pointers,
            _env: env,
            env_pointers,
            directory,
            oom_score_adj,
        }
    }
}

fn pointers(strings: &[CString]) -> Vec<*const c_char> {
    strings.iter().map(|string| string.as_ptr()).chain([std::ptr::null()]).collect()
}

/// Starts a child in `cgroup` (or in ours) that executes `image` with `streams` as its input, output and errors; returns its pid
/// and its pidfd.
///
/// When the child cannot become the program it writes a fault of [`FAULT_LEN`] bytes to `fault` and exits. `fault` is
/// close-on-exec, so the reader sees end-of-file exactly when `execve` succeeded.
pub(super) fn clone_and_exec(
    image: &Image,
    streams: [BorrowedFd<'_>; 3],
    fault: BorrowedFd<'_>,
    cgroup: Option<BorrowedFd<'_>>,
) -> io::Result<(libc::pid_t, OwnedFd)> {
    // `dup2` of a descriptor onto itself leaves close-on-exec set, and one onto a source that is still needed loses it. Both
    // are impossible when every source lies above the three targets, which holds because ours are never closed.
    for fd in streams.iter().chain([&fault]) {
        if fd.as_raw_fd() <= libc::STDERR_FILENO {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "a stream of a child must be above descriptor 2",
            ));
        }
    }

    let mut pidfd: RawFd = -1;
    // SAFETY: an all-zero clone_args is the documented default of every field.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    // Cleared handlers: no handler of ours may run in the child, where it would write into pipes that it shares with us.
    arguments.flags = CLONE_PIDFD | CLONE_CLEAR_SIGHAND;
    arguments.pidfd = (&raw mut pidfd) as u64;
    arguments.exit_signal = libc::SIGCHLD as u64;
    if let Some(cgroup) = cgroup {
        arguments.flags |= CLONE_INTO_CGROUP;
        arguments.cgroup = cgroup.as_raw_fd() as u64;
    }

    // SAFETY: without CLONE_VM and without a stack this is fork(2) with flags: the child continues on its own copy of this
    // stack. The pointers in `arguments` are valid for the call. The child enters `become_program`, which never returns.
    let pid = unsafe {
        libc::syscall(libc::SYS_clone3, &raw mut arguments, size_of::<libc::clone_args>())
    };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        // SAFETY: we are the child; `image` and `streams` are our own copies, made whole before the clone.
        0 => unsafe { become_program(image, streams, fault.as_raw_fd()) },
        pid => {
            // SAFETY: on success with CLONE_PIDFD the kernel stored a new descriptor (close-on-exec) that nobody else owns.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok((pid as libc::pid_t, pidfd))
        }
    }
}

/// The child's whole life before its program.
///
/// # Safety
///
/// Only in the child of [`clone_and_exec`]. It makes system calls (directly or through async-signal-safe functions of libc) and
/// reads memory that the parent prepared; it must not allocate, lock, unwind or return.
unsafe fn become_program(image: &Image, streams: [BorrowedFd<'_>; 3], fault: RawFd) -> ! {
    // SAFETY: see above; every pointer is into `image`, into a local, or null where the call allows it.
    unsafe {
        reset_signals();
        libc::umask(0o022);
        // A session of its own: no controlling terminal, and a process group that `kill` can name.
        check(fault, ExecStage::Session, libc::setsid());
        for (source, target) in
            streams.into_iter().zip([libc::STDIN_FILENO, libc::STDOUT_FILENO, libc::STDERR_FILENO])
        {
            check(fault, ExecStage::Output, libc::dup2(source.as_raw_fd(), target));
        }
        if let Some(score) = &image.oom_score_adj {
            let file =
                libc::open(c"/proc/self/oom_score_adj".as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
            check(fault, ExecStage::OomScore, file);
            let written = libc::write(file, score.as_ptr().cast(), score.len());
            check(fault, ExecStage::OomScore, if written < 0 { -1 } else { 0 });
        }
        usual_descriptors();
        check(fault, ExecStage::Directory, libc::chdir(image.directory.as_ptr()));
        // All our descriptors are close-on-exec already. This says it once more for one that a library opened without it: a
        // service that inherits a socket of PID 1 would be a leak that nobody sees. An error (an older kernel) changes nothing.
        libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC);
        libc::execve(
            image.program.as_ptr(),
            image.argv_pointers.as_ptr(),
            image.env_pointers.as_ptr(),
        );
        report(fault, ExecStage::Exec)
    }
}

/// How many descriptors a program may have that does not ask for more. Some of those that use select(2) break with more.
const USUAL_DESCRIPTORS: libc::rlim_t = 1024;

/// PID 1 has many descriptors, and a program gets what is usual: few at first, and as many as it asks for.
///
/// # Safety
///
/// As [`become_program`].
unsafe fn usual_descriptors() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both calls are given a local. A failure leaves more than is usual, which is no reason not to run.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) == 0 {
            limit.rlim_cur = limit.rlim_max.min(USUAL_DESCRIPTORS);
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
        }
    }
}

/// Default dispositions and an empty mask: `execve` keeps an ignored signal ignored (Rust's runtime ignores SIGPIPE, and whoever
/// started us may have ignored others) and keeps the mask of the thread that called `clone3`.
///
/// # Safety
///
/// As [`become_program`].
unsafe fn reset_signals() {
    // The kernel's struct sigaction and sigset_t, not libc's: libc refuses to touch the two signals that it keeps for itself.
    // All zero is SIG_DFL, no flags, no restorer, an empty mask; the set is one bit per signal.
    let default = [0_u64; 4];
    let nothing_blocked = 0_u64;
    let no_old = std::ptr::null_mut::<u64>();
    // SAFETY: the calls read the locals given. SIGKILL and SIGSTOP are refused, which is right.
    unsafe {
        for signal in 1..=LAST_SIGNAL {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                default.as_ptr(),
                no_old,
                size_of::<u64>(),
            );
        }
        let set = &raw const nothing_blocked;
        libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, set, no_old, size_of::<u64>());
    }
}

/// # Safety
///
/// As [`become_program`]; `result` is that of the system call just made.
unsafe fn check(fault: RawFd, stage: ExecStage, result: c_int) {
    if result < 0 {
        // SAFETY: the same contract.
        unsafe { report(fault, stage) }
    }
}

/// # Safety
///
/// As [`become_program`]. `errno` is that of the system call just made.
unsafe fn report(fault: RawFd, stage: ExecStage) -> ! {
    let mut message = [stage as u8, 0, 0, 0, 0];
    // SAFETY: the buffer is a local; `_exit` runs no destructor and no exit function of the parent's.
    unsafe {
        message[1..].copy_from_slice(&(*libc::__errno_location()).to_ne_bytes());
        libc::write(fault, message.as_ptr().cast(), message.len());
        libc::_exit(NOT_EXECUTED)
    }
}

/// Sends a signal to the process that `pidfd` names. Never reaches another process that was given the same number later.
pub(super) fn send_signal(pidfd: BorrowedFd<'_>, signal: c_int) -> Result<(), Errno> {
    // SAFETY: a null siginfo is documented to mean what kill(2) sends; the flags must be 0.
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    Errno::result(result).map(drop)
}

/// What `waitpid(-1, WNOHANG)` found.
pub(super) enum Waited {
    /// This child is dead and now gone; its raw status.
    Dead(libc::pid_t, c_int),
    /// There are children, and none is dead.
    Alive,
    /// There is no child.
    NoChild,
}

/// Collects any dead child.
///
/// Not nix's `waitpid`: a child that a real-time signal killed makes it return EINVAL, after the kernel has given the status
/// away. Whoever owns that child would wait for ever.
pub(super) fn wait_any() -> Waited {
    let mut status = 0;
    loop {
        // SAFETY: `status` is a valid place for the result.
        match unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) } {
            -1 if Errno::last() == Errno::EINTR => {}
            -1 => return Waited::NoChild,
            0 => return Waited::Alive,
            pid => return Waited::Dead(pid, status),
        }
    }
}

/// Waits for one child and drops its status; false if there is none to wait for.
pub(super) fn wait_blocking() -> bool {
    // SAFETY: a null status is allowed.
    unsafe { libc::waitpid(-1, std::ptr::null_mut(), 0) != -1 || Errno::last() != Errno::ECHILD }
}
