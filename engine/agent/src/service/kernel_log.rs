//! The kernel's log, from /dev/kmsg (Documentation/ABI/testing/dev-kmsg): one read is one record.

use std::collections::VecDeque;
use std::fs::OpenOptions;
use std::io::{self, ErrorKind, Read as _};
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

use keel_proto::v1::{KernelRecord, ReadKernelLogResponse};
use rustix::fs::OFlags;
use tokio::net::unix::pipe::Receiver;
use tokio::sync::mpsc::Sender;
use tonic::Status;

/// The device. Each that opens it reads for himself, from the oldest record on.
const DEVICE: &str = "/dev/kmsg";

/// Larger than any record: the kernel refuses to give one to a buffer that is too small.
const LARGEST: usize = 16 * 1024;

/// Records in one answer.
const BATCH: usize = 128;

pub(crate) type Batch = Result<ReadKernelLogResponse, Status>;

/// A record as it is read.
#[derive(Debug, PartialEq, Eq)]
struct Record {
    /// Facility and severity, RFC 5424's way.
    priority: u32,
    seq: u64,
    at: Duration,
    text: String,
}

/// Sends what the kernel wrote, and with `follow` what it writes. Of the past, `tail` records at most; 0 for all.
pub(crate) async fn pump(tail: u32, follow: bool, batches: &Sender<Batch>) -> Result<(), Status> {
    let failed = |error: io::Error| {
        Status::unavailable(format!("the kernel's log cannot be read: {DEVICE}: {error}"))
    };
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
    let device = OpenOptions::new().read(true).custom_flags(flags).open(DEVICE).map_err(failed)?;
    let mut log = Log { next: None, dropped: 0 };
    let mut past = VecDeque::new();
    let mut buffer = vec![0; LARGEST];
    let tail = usize::try_from(tail).unwrap_or(usize::MAX);
    // The past, up to where a reader would have to wait.
    let mut take = |buffer: &mut [u8]| (&device).read(buffer);
    while let Some(record) = log.read(&mut take, &mut buffer).map_err(failed)? {
        past.push_back(record);
        if tail > 0 && past.len() > tail {
            past.pop_front();
            // Of what was not asked for nothing is missing.
            log.dropped = 0;
        }
        if tail == 0 && past.len() >= BATCH {
            send(&mut past, &mut log.dropped, batches).await?;
        }
    }
    while !past.is_empty() {
        send(&mut past, &mut log.dropped, batches).await?;
    }
    if !follow {
        return Ok(());
    }
    // No pipe, but what tokio asks of one holds: it does not block, it can be waited for, and each read takes what the kernel gives.
    let device = Receiver::from_file_unchecked(device).map_err(failed)?;
    let mut take = |buffer: &mut [u8]| device.try_read(buffer);
    loop {
        device.readable().await.map_err(failed)?;
        while past.len() < BATCH
            && let Some(record) = log.read(&mut take, &mut buffer).map_err(failed)?
        {
            past.push_back(record);
        }
        if !past.is_empty() {
            send(&mut past, &mut log.dropped, batches).await?;
        }
    }
}

/// Reads records, and counts those that were overwritten before they could be read.
struct Log {
    next: Option<u64>,
    dropped: u64,
}

impl Log {
    /// The next record; `None` when there is none yet.
    fn read(
        &mut self,
        take: &mut impl FnMut(&mut [u8]) -> io::Result<usize>,
        buffer: &mut [u8],
    ) -> io::Result<Option<Record>> {
        loop {
            match take(buffer) {
                Ok(count) => {
                    // A line that is no record is none that anybody misses.
                    let Some(record) = parse(&buffer[..count]) else { continue };
                    self.took(record.seq);
                    return Ok(Some(record));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                // EPIPE: what was next is gone. Reading on begins with the oldest that is left.
                Err(error)
                    if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::Interrupted) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Numbers have no gaps but where records were overwritten.
    fn took(&mut self, seq: u64) {
        self.dropped += self.next.map_or(0, |next| seq.saturating_sub(next));
        self.next = Some(seq.saturating_add(1));
    }
}

/// The record in what one read gave; `None` if there is none in it.
fn parse(bytes: &[u8]) -> Option<Record> {
    let at = bytes.iter().position(|byte| *byte == b';')?;
    let (head, text) = (std::str::from_utf8(&bytes[..at]).ok()?, &bytes[at + 1..]);
    // More fields may follow in newer kernels.
    let mut fields = head.split(',');
    let priority = fields.next()?.parse().ok()?;
    let seq = fields.next()?.parse().ok()?;
    let at = Duration::from_micros(fields.next()?.parse().ok()?);
    // What follows the first line are properties of the device that the record is about.
    let text = text.split(|byte| *byte == b'\n').next().unwrap_or_default();
    Some(Record { priority, seq, at, text: String::from_utf8_lossy(&unescaped(text)).into_owned() })
}

/// The text as it was written: the kernel gives bytes that are no printable ASCII, and backslashes, as `\xNN`.
fn unescaped(mut text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    while let Some((first, rest)) = text.split_first() {
        let escaped = rest.strip_prefix(b"x").and_then(|hex| {
            let (hex, rest) = hex.split_at_checked(2)?;
            let digits = std::str::from_utf8(hex).ok().filter(|_| *first == b'\\')?;
            // from_str_radix takes a sign too.
            let hexadecimal = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
            Some((u8::from_str_radix(digits, 16).ok().filter(|_| hexadecimal)?, rest))
        });
        let (byte, rest) = escaped.unwrap_or((*first, rest));
        bytes.push(byte);
        text = rest;
    }
    bytes
}

/// The kernel's own id of its boot; empty if it does not tell.
fn boot_id() -> String {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.trim().replace('-', "")
}

async fn send(
    records: &mut VecDeque<Record>,
    dropped: &mut u64,
    batches: &Sender<Batch>,
) -> Result<(), Status> {
    let count = records.len().min(BATCH);
    let records = records.drain(..count).map(told).collect();
    let dropped = std::mem::take(dropped);
    let batch = ReadKernelLogResponse { dropped, records, boot: boot_id() };
    batches.send(Ok(batch)).await.map_err(|_| Status::cancelled("the caller has left"))
}

fn told(record: Record) -> KernelRecord {
    let Record { priority, seq, at, text } = record;
    KernelRecord {
        seq,
        at: at.try_into().ok(),
        severity: priority & 7,
        facility: priority >> 3,
        text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records() {
        let check = |bytes: &str, expect: Option<(u32, u64, u64, &str)>| {
            let expect = expect.map(|(priority, seq, micros, text)| Record {
                priority,
                seq,
                at: Duration::from_micros(micros),
                text: text.to_owned(),
            });
            assert_eq!(parse(bytes.as_bytes()), expect, "{bytes:?}");
        };
        check(
            "7,160,424069,-;pci_root PNP0A03:00: host bridge window [io  0x0000-0x0cf7] (ignored)\n",
            Some((
                7,
                160,
                424_069,
                "pci_root PNP0A03:00: host bridge window [io  0x0000-0x0cf7] (ignored)",
            )),
        );
        // Properties of the device, a line each, begin with a blank.
        check(
            "6,339,5140900,-;NET: Registered protocol family 10\n SUBSYSTEM=net\n DEVICE=n3\n",
            Some((6, 339, 5_140_900, "NET: Registered protocol family 10")),
        );
        // The end of a line that is continued, with a caller, and a field that nobody knows yet.
        check("4,340,1,c,caller=T77,new=1;... done\n", Some((4, 340, 1, "... done")));
        check("30,5,6,-;keel: a; b\n", Some((30, 5, 6, "keel: a; b")));
        check("6,1,0,-;\n", Some((6, 1, 0, "")));
        check("6,1,0,-;no end", Some((6, 1, 0, "no end")));
        check("6,1,0;three fields", Some((6, 1, 0, "three fields")));
        check("6,18446744073709551615,2,-;x\n", Some((6, u64::MAX, 2, "x")));
        check("", None);
        check("no record\n", None);
        check("6,1;too few\n", None);
        check("-1,1,2,-;x\n", None);
        check("6,x,2,-;x\n", None);
        check("6,18446744073709551616,2,-;x\n", None);
        check(";x\n", None);
    }

    #[test]
    fn escapes() {
        let check = |text: &str, expect: &str| {
            assert_eq!(String::from_utf8_lossy(&unescaped(text.as_bytes())), expect, "{text:?}");
        };
        check("plain", "plain");
        check("a\\x09b", "a\tb");
        check("back\\x5cslash", "back\\slash");
        check("\\xc3\\xa9t\\xc3\\xa9", "été");
        check("\\xff", "\u{fffd}");
        check("\\x1b[2J", "\u{1b}[2J");
        check("\\x5cx41", "\\x41");
        check("\\x4", "\\x4");
        check("\\x", "\\x");
        check("\\", "\\");
        check("\\xg0 \\x+1", "\\xg0 \\x+1");
        check("\\\\x41", "\\A");
    }

    #[test]
    fn what_was_overwritten_is_counted() {
        let check = |seqs: &[u64], expect: u64| {
            let mut log = Log { next: None, dropped: 0 };
            seqs.iter().for_each(|seq| log.took(*seq));
            assert_eq!(log.dropped, expect, "{seqs:?}");
        };
        check(&[], 0);
        check(&[7, 8, 9], 0);
        check(&[7, 10, 11, 20], 10);
        check(&[7, 7], 0);
    }
}
