//! A machine: the real binary as PID 1 of namespaces of its own, with units and a config, watched through its console.

use super::*;

/// Longer than anything here takes on a busy machine.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// A machine that runs keel-init in namespaces of its own.
pub(super) struct Machine {
    pub(super) unshare: Child,
    pub(super) init: u32,
    pub(super) lines: Receiver<String>,
    pub(super) seen: Vec<String>,
    pub(super) cgroup: PathBuf,
    pub(super) directory: tempfile::TempDir,
}

impl Machine {
    /// Boots the units: file name and text. `{dir}` in a text is a directory that the machine and the test share.
    pub(super) fn boot(name: &str, units: &[(&str, &str)]) -> Self {
        Self::boot_with(name, "schema = 1\n", units)
    }

    pub(super) fn boot_with(name: &str, config_text: &str, units: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let folder = directory.path().join("units");
        fs::create_dir(&folder).expect("a folder for units");
        let shared = directory.path().to_str().expect("a path in UTF-8");
        for (file, text) in units {
            fs::write(folder.join(file), text.replace("{dir}", shared)).expect("a unit file");
        }
        let config = directory.path().join("config.toml");
        fs::write(&config, config_text).expect("a config");
        let roots = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].map(PathBuf::from);
        let root = roots
            .into_iter()
            .find(|root| root.join("cgroup.controllers").exists())
            .expect("cgroup v2");
        let cgroup = root.join(format!("keel-init-{name}-{}", std::process::id()));
        fs::create_dir(&cgroup).expect("a cgroup");
        // A cgroup namespace makes this cgroup the root of what is mounted inside.
        let enter = format!("echo $$ > {}/cgroup.procs && exec unshare \"$@\"", cgroup.display());
        let inside =
            "mount -t tmpfs tmpfs /run && mount -t cgroup2 cgroup2 /sys/fs/cgroup && exec \"$0\"";
        let mut unshare = Command::new("sh")
            .args(["-c", &enter, "sh"])
            .args([
                "--pid",
                "--mount",
                "--cgroup",
                "--fork",
                "--kill-child",
                "--mount-proc",
                "--",
                "sh",
                "-c",
                inside,
            ])
            .arg(env!("CARGO_BIN_EXE_keel-init"))
            .env("KEEL_UNITS", &folder)
            .env("KEEL_CONFIG", &config)
            .env("KEEL_REPORT", "json")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("unshare of util-linux");
        let output = BufReader::new(unshare.stdout.take().expect("a pipe"));
        let (tell, lines) = mpsc::channel();
        std::thread::spawn(move || {
            output.lines().map_while(Result::ok).try_for_each(|line| tell.send(line))
        });
        let mut machine = Self { init: 0, unshare, lines, seen: Vec::new(), cgroup, directory };
        machine.init = machine.find_init();
        machine
    }

    /// The one child of unshare.
    pub(super) fn find_init(&self) -> u32 {
        let outer = self.unshare.id();
        let path = format!("/proc/{outer}/task/{outer}/children");
        let deadline = Instant::now() + PATIENCE;
        loop {
            let children = fs::read_to_string(&path).unwrap_or_default();
            if let Some(init) = children.split_whitespace().next().and_then(|pid| pid.parse().ok())
            {
                return init;
            }
            assert!(Instant::now() < deadline, "no init");
            std::thread::yield_now();
        }
    }

    /// Waits for a line with all these words, and gives it.
    pub(super) fn line(&mut self, words: &[&str]) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(line) = self.lines.recv_timeout(left) else {
                panic!("no line with {words:?} among\n{}", self.seen.join("\n"));
            };
            self.seen.push(line.clone());
            if words.iter().all(|word| line.contains(word)) {
                return line;
            }
        }
    }

    /// Waits for the boot to end; its report.
    pub(super) fn report(&mut self) -> serde_json::Value {
        let line = self.line(&["KEEL-REPORT "]);
        serde_json::from_str(line.trim_start_matches("KEEL-REPORT ")).expect("JSON")
    }

    pub(super) fn signal(&self, signal: &str) {
        let status =
            Command::new("kill").args([&format!("-{signal}"), &self.init.to_string()]).status();
        assert!(status.expect("kill").success());
    }

    /// Waits for the end of the namespace; the signal with which the kernel ended its init.
    pub(super) fn end(&mut self) -> Option<i32> {
        let status = self.unshare.wait().expect("unshare's status");
        self.seen.extend(self.lines.iter());
        // unshare dies of the signal that its child died of, or says it as a shell does.
        status.signal().or(status.code().filter(|code| *code > 128).map(|code| code - 128))
    }

    /// Where in the console's output a line with these words stands.
    pub(super) fn position(&self, words: &[&str]) -> usize {
        let found = self.seen.iter().position(|line| words.iter().all(|word| line.contains(word)));
        found.unwrap_or_else(|| panic!("no line with {words:?} among\n{}", self.seen.join("\n")))
    }

    pub(super) fn shared(&self, file: &str) -> PathBuf {
        self.directory.path().join(file)
    }

    /// A shared file as the machine sees it, with what it has mounted there.
    pub(super) fn in_namespace(&self, file: &str) -> PathBuf {
        let root = format!("/proc/{}/root{}", self.init, self.directory.path().display());
        PathBuf::from(root).join(file)
    }

    /// Init's socket, through the root of its mount namespace.
    pub(super) fn control_socket(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root/run/keel/control.sock", self.init))
    }

    pub(super) fn read(&self, file: &str) -> String {
        fs::read_to_string(self.shared(file)).unwrap_or_default()
    }

    /// Waits until the shared file says something that satisfies.
    pub(super) fn until(&self, file: &str, satisfies: impl Fn(&str) -> bool) -> String {
        let look = || Some(self.read(file)).filter(|text| satisfies(text));
        look_at_changes(self.directory.path(), look)
            .unwrap_or_else(|| panic!("{file} says only {:?}", self.read(file)))
    }

    pub(super) fn status(&self, key: &str) -> String {
        let status =
            fs::read_to_string(format!("/proc/{}/status", self.init)).expect("init's status");
        let line = status.lines().find_map(|line| line.strip_prefix(key)).expect("the key");
        line.trim_start_matches(':').trim().to_owned()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = fs::write(self.cgroup.join("cgroup.kill"), "1");
        let _ = self.unshare.wait();
        let mut found = vec![self.cgroup.clone()];
        let mut next = 0;
        while let Some(directory) = found.get(next).cloned() {
            let entries = fs::read_dir(directory).into_iter().flatten().flatten();
            found.extend(entries.map(|entry| entry.path()).filter(|path| path.is_dir()));
            next += 1;
        }
        let events = self.cgroup.join("cgroup.events");
        let empty = || fs::read_to_string(&events).ok()?.contains("populated 0").then_some(());
        let _ = look_at_changes(&events, empty);
        found.iter().rev().for_each(|directory| drop(fs::remove_dir(directory)));
    }
}

/// Looks at a file or folder until it finds something, again whenever something has changed there. Nothing if it takes too long.
pub(super) fn look_at_changes<T>(path: &Path, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let changes = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).ok()?;
    let kinds = AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO;
    changes.add_watch(path, kinds).ok()?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        let mut readable = [PollFd::new(changes.as_fd(), PollFlags::POLLIN)];
        if poll(&mut readable, PollTimeout::try_from(left).ok()?) == Ok(0) {
            return None;
        }
        let _ = changes.read_events();
    }
}
