//! The whole life of PID 1, in order, and what happens when one of its stages cannot.

use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use keel_host::process::{Reaper, allow_descriptors, reap_forever};
use keel_plan::ShutdownKind;
use nix::sys::reboot::set_cad_enabled;

use crate::arguments::Arguments;
use crate::boot::Loaded;
use crate::run::{Beginning, End, Run};
use crate::screen::Screen;
use crate::teardown::{self, Inherited};
use crate::{boot, console, rootfs, signals};

/// Lives until the kernel ends it. The type says so: there is nobody to return to.
pub(crate) fn live(started: Instant) -> ! {
    let screen = Screen::start();
    hear_of_panics(&screen);
    let why = survive(|| whole_life(started, &screen));
    // Nothing decides any more, either after a panic or because the kernel refused to end the machine. What runs goes on running:
    // that is worth more than a restart, which an operator can still have from here, with Ctrl-Alt-Del.
    screen.line(format!("init no longer supervises this machine: {why}"));
    screen.line("What runs keeps running. Ctrl-Alt-Del reboots at once.");
    // Ctrl-Alt-Del first: a disk that does not answer holds up a sync for ever.
    let _ = set_cad_enabled(true);
    nix::unistd::sync();
    reap_forever()
}

/// Why a life that has no end has ended.
fn survive(life: impl FnOnce() -> Result<Infallible, String>) -> String {
    match catch_unwind(AssertUnwindSafe(life)) {
        Ok(Err(why)) => why,
        Err(_) => "a defect in keel-init, told above".to_owned(),
    }
}

/// Only an error comes back, in words.
fn whole_life(started: Instant, screen: &Screen) -> Result<Infallible, String> {
    keel_host::memory::share();
    allow_descriptors();
    let inherited = Inherited::now();
    let arguments = prepare(started, screen);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        // Each of these turns may start a process. Whoever asks something is heard after the next one.
        .event_interval(2)
        // A stack in PID 1 is memory for good; none of ours is deep.
        .thread_stack_size(512 * 1024)
        // Blocking threads that have nothing to do leave: at rest there are none.
        .thread_keep_alive(Duration::from_secs(2))
        .build()
        .map_err(|error| format!("no runtime: {error}"))?;
    runtime.block_on(async {
        let reaper = Reaper::start().map_err(|error| error.to_string())?;
        let mut requests = signals::listen(rootfs::is_machine())
            .map_err(|error| format!("cannot listen for signals: {error}"))?;
        let run = |boot, beginning| {
            Run::new(boot, beginning, arguments.clone(), reaper.clone(), screen.clone(), started)
        };
        let first = match boot::load(&arguments) {
            Loaded::Whole(boot) => Some(run(boot, Beginning::default())),
            Loaded::Rescue(boot, why) => {
                emergency(&why, screen);
                screen
                    .line("It comes up as far as that it can be reached; nothing else is started.");
                let why = "its units and its config make no graph";
                Some(run(boot, Beginning::default()).in_emergency(why))
            }
            Loaded::Nothing(why) => {
                emergency(&why, screen);
                None
            }
        };
        let (how, condemned) = match first {
            Some(mut current) => loop {
                match current.until_down(&mut requests).await {
                    End::Down(how, condemned) => break (how, condemned),
                    End::Switch(next) => {
                        let (boot, beginning) = *next;
                        current = run(boot, beginning);
                    }
                }
            },
            // The senders live as long as the runtime.
            None => (requests.recv().await.unwrap_or(ShutdownKind::Halt), None),
        };
        let errno = teardown::end(how, condemned, &reaper, inherited, screen).await;
        Err(format!("the kernel refuses to end the machine: {}", errno.desc()))
    })
}

/// What has to be right before anything else can be. None of it is worth not booting for.
fn prepare(started: Instant, screen: &Screen) -> Arguments {
    let note = |text: String| screen.line(console::note(started.elapsed(), &text));
    if let Err(error) = rootfs::leave_rootfs() {
        note(format!("{error}; containers will not start"));
    }
    // Ctrl-Alt-Del comes to us as SIGINT instead of rebooting on the spot. In a PID namespace that is not ours to say.
    let _ = set_cad_enabled(false);
    let command_line = rootfs::command_line().unwrap_or_else(|error| {
        note(format!("{error}; going on with the defaults"));
        String::new()
    });
    let arguments =
        Arguments::parse(&command_line).with_environment(|name| std::env::var(name).ok());
    for unknown in &arguments.unknown {
        note(format!("{unknown} on the kernel's command line means nothing to keel"));
    }
    if !arguments.kernel_talks {
        rootfs::quieten_kernel();
    }
    arguments
}

/// There is no graph to run. The machine stays up and says why.
fn emergency(why: &str, screen: &Screen) {
    screen.line("");
    screen.line(
        "EMERGENCY: this machine cannot boot, because its units and its config make no graph:",
    );
    why.lines().for_each(|line| screen.line(format!("  {line}")));
    screen.line(
        "Mend them, check with `osctl validate`, and build the image anew. Ctrl-Alt-Del reboots.",
    );
}

/// A panic says where it was, on the console and in the kernel's log, whichever thread it is on.
fn hear_of_panics(screen: &Screen) {
    let screen = screen.clone();
    std::panic::set_hook(Box::new(move |panic| {
        screen.line(format!("DEFECT in keel-init: {panic}"));
        screen.flush(Duration::from_millis(200));
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_ends_nothing_but_the_deciding() {
        let check = |life: fn() -> Result<Infallible, String>, expect: &str| {
            assert_eq!(survive(life), expect)
        };
        check(|| Err("the kernel refuses".to_owned()), "the kernel refuses");
        check(|| panic!("on purpose"), "a defect in keel-init, told above");
    }
}
