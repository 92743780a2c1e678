//! The folder of the trusted CAs goes away, comes back, and is covered by a mount while the agent runs: it sees what then lies there.

#![cfg(test)]

mod support;

use std::fs;

use support::pki::Authority;
use support::{Agent, Start, put};

#[test]
fn a_folder_that_is_another_one_now() {
    let mut agent = Agent::start();
    put(&agent.path("trust/cluster-ca.crt"), &Authority::new("at first").pem);
    agent.logged("trusted: CN=at first");
    fs::rename(agent.path("trust"), agent.path("elsewhere")).unwrap();
    // The agent makes it anew.
    agent.logged("is watched anew");
    put(&agent.path("trust/cluster-ca.crt"), &Authority::new("after the move").pem);
    agent.logged("trusted: CN=after the move");

    fs::remove_dir_all(agent.path("trust")).unwrap();
    agent.logged("is watched anew");
    put(&agent.path("trust/cluster-ca.crt"), &Authority::new("after the removal").pem);
    agent.logged("trusted: CN=after the removal");
}

#[test]
fn a_folder_that_something_is_mounted_over() {
    let mut agent = Start::new().own_mounts().start();
    let (trust, draft) = (agent.path("trust"), agent.path("draft.crt"));
    let (trust, draft) = (trust.to_str().unwrap(), draft.to_str().unwrap());
    agent.logged("maintenance");
    // What lies on a filesystem when it is mounted is read at once.
    fs::create_dir(agent.path("data")).unwrap();
    put(&agent.path("data/cluster-ca.crt"), &Authority::new("mounted").pem);
    agent.inside(&["mount", "--bind", agent.path("data").to_str().unwrap(), trust]);
    agent.logged("trusted: CN=mounted");

    // And what comes later, there and after the unmount.
    put(&agent.path("data/cluster-ca.crt"), &Authority::new("written").pem);
    agent.logged("trusted: CN=written");
    agent.inside(&["mount", "-t", "tmpfs", "none", trust]);
    agent.logged("is not there; what was in force before stays so");
    fs::write(draft, Authority::new("on a tmpfs").pem).unwrap();
    agent.inside(&["cp", draft, &format!("{trust}/cluster-ca.crt")]);
    agent.logged("trusted: CN=on a tmpfs");
    agent.inside(&["umount", trust]);
    agent.logged("trusted: CN=written");
}
