//! `osctl dashboard` in a terminal.

use keel_control::GoalState;

use crate::link::Link;
use crate::support::Node;
use crate::terminal::Terminal;

fn dashboard(node: &Node, size: (u16, u16)) -> Terminal {
    dashboard_at(node, &node.endpoint, size)
}

fn dashboard_at(node: &Node, endpoint: &str, size: (u16, u16)) -> Terminal {
    let pin = node.fingerprint();
    let args = ["--endpoint", endpoint, "--fingerprint", &pin, "dashboard"];
    Terminal::start(&node.home(), &args, size)
}

/// It ends well, and gives the screen back.
fn ends(dashboard: Terminal) {
    let (code, screen) = dashboard.end();
    assert_eq!((code, screen.alternate_screen()), (Some(0), false), "{}", screen.contents());
}

#[test]
fn the_dashboard_runs_in_a_real_terminal() {
    let node = Node::start();
    let init = node.init(GoalState::Reached);
    let mut terminal = dashboard(&node, (30, 100));
    terminal.shows("containerd");
    terminal.keys("2");
    terminal.shows("SINCE");
    terminal.keys("4");
    init.say("something new");
    terminal.shows("something new");
    terminal.keys("?");
    terminal.shows("ctrl-c");
    terminal.keys("qq");
    ends(terminal);

    for size in [(1, 1), (3, 20)] {
        let mut tiny = dashboard(&node, size);
        tiny.until(vt100::Screen::alternate_screen);
        tiny.keys("1234?\u{3}");
        ends(tiny);
    }
    let piped = node.pinned(&["dashboard"]);
    assert_eq!(piped.code, Some(2));
    assert!(piped.stderr.contains("the dashboard needs a terminal"), "{}", piped.stderr);
}

/// What the dashboard may send while it hears nothing: the questions that are under way, each once. Asked anew whenever an answer is no
/// longer fresh, it would be several times that.
const UNDER_WAY: usize = 1_000;

/// 300 ms each way and 4 KiB/s, and for a while nothing at all.
#[test]
fn over_a_slow_link_the_dashboard_draws_and_obeys() {
    let node = Node::start();
    let init = node.init(GoalState::Reached);
    let link = Link::to(&node.endpoint);
    let mut terminal = dashboard_at(&node, &link.address.to_string(), (30, 100));
    terminal.shows("containerd");
    terminal.keys("2");
    // The log of the unit under the cursor comes too.
    terminal.shows("line 3");
    init.write(1);
    terminal.shows("line 4");

    // No byte passes: keys are obeyed all the same, and what is shown is said to be old.
    link.hold(true);
    let before = link.sent();
    terminal.keys("?");
    terminal.shows("ctrl-c");
    terminal.keys("?4");
    init.say("something new");
    terminal.until(|screen| age(&screen.contents()).is_some_and(|seconds| seconds >= 12));
    assert!(!terminal.screen().contains("something new"));
    terminal.keys("2/boot\n");
    terminal.until(|screen| !screen.contents().contains("containerd"));
    terminal.keys("\u{1b}");
    terminal.shows("containerd");
    let sent = link.sent() - before;
    assert!(sent < UNDER_WAY, "{sent} bytes of questions wait for the link");

    link.hold(false);
    terminal.keys("4");
    terminal.shows("something new");
    terminal.until(|screen| !screen.contents().contains(" s old"));
    terminal.keys("q");
    ends(terminal);
}

/// How old a screen says that it is, in seconds.
fn age(screen: &str) -> Option<u64> {
    let (before, _) = screen.split_once(" s old")?;
    before.rsplit(|letter: char| !letter.is_ascii_digit()).next()?.parse().ok()
}
