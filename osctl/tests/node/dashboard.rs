//! `osctl dashboard` in a terminal.

use keel_control::GoalState;

use crate::support::Node;
use crate::terminal::Terminal;

fn dashboard(node: &Node, size: (u16, u16)) -> Terminal {
    let pin = node.fingerprint();
    let args = ["--endpoint", &node.endpoint, "--fingerprint", &pin, "dashboard"];
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
