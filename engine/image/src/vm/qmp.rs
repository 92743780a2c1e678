//! QEMU's monitor: one JSON object a line, a reply to each command, events in between
//! (QEMU's `docs/interop/qmp-spec.rst`).

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde_json::{Value, json};

/// The monitor answers at once or not at all.
const PATIENCE: Duration = Duration::from_secs(10);

/// A connected monitor.
#[derive(Debug)]
pub(super) struct Qmp {
    reader: BufReader<UnixStream>,
}

impl Qmp {
    /// Greets the monitor at the other end.
    pub(super) fn connect(stream: UnixStream) -> io::Result<Self> {
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut qmp = Self { reader: BufReader::new(stream) };
        qmp.message()?;
        qmp.execute("qmp_capabilities", json!({}))?;
        Ok(qmp)
    }

    /// Runs a command and returns its value. Events that come in between are dropped: the console
    /// and the exit status say everything that a caller here waits for.
    pub(super) fn execute(&mut self, command: &str, arguments: Value) -> io::Result<Value> {
        let mut line = json!({ "execute": command, "arguments": arguments }).to_string();
        line.push('\n');
        self.reader.get_mut().write_all(line.as_bytes())?;
        loop {
            let mut message = self.message()?;
            if let Some(error) = message.get("error") {
                return Err(io::Error::other(format!("{command}: {error}")));
            }
            if let Some(value) = message.get_mut("return") {
                return Ok(value.take());
            }
        }
    }

    fn message(&mut self) -> io::Result<Value> {
        let mut line = String::new();
        if self.reader.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(serde_json::from_str(&line)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A monitor that says these lines, whatever it is asked.
    fn monitor(lines: &str) -> io::Result<Qmp> {
        let (here, mut there) = UnixStream::pair()?;
        there.write_all(lines.as_bytes())?;
        there.shutdown(std::net::Shutdown::Write)?;
        // Kept open for reading, so that commands are accepted.
        std::thread::spawn(move || io::copy(&mut there, &mut io::sink()));
        Qmp::connect(here)
    }

    #[test]
    fn replies_are_told_from_events_and_errors() {
        let mut qmp = monitor(
            "{\"QMP\": {}}\n{\"return\": {}}\n{\"event\": \"RESET\"}\n{\"return\": 7}\n\
             {\"error\": {\"desc\": \"no\"}}\nnot json\n",
        )
        .unwrap();
        assert_eq!(qmp.execute("a", json!({})).unwrap(), 7);
        assert_eq!(qmp.execute("b", json!({})).unwrap_err().to_string(), "b: {\"desc\":\"no\"}");
        assert_eq!(qmp.execute("c", json!({})).unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(qmp.execute("d", json!({})).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_monitor_that_is_gone_is_an_error() {
        assert_eq!(monitor("").unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
