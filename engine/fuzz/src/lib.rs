//! Fuzz targets for whatever reads bytes that others wrote. A target fails by a panic, by endless work, or where two
//! readings of the same bytes differ.
//!
//! `cargo xtask fuzz` runs them under libFuzzer, from the seeds that Cargo.toml names; the tests of this crate run each over its
//! seeds and over mutations of them, on any toolchain.

use std::collections::BTreeMap;
use std::io;

use keel_host::device::Uevent;
use keel_host::disk::block::ReadBlocks;
use keel_host::disk::{gpt as table, signature};
use keel_plan::Trace;
use keel_unit::Input;

/// A target: takes any bytes, and panics if they show a fault.
pub type Target = fn(&[u8]);

/// Every target by its name, in the order of the names.
pub const TARGETS: &[(&str, Target)] = &[
    ("certificates", certificates),
    ("config", config),
    ("dhcp", dhcp),
    ("frames", frames),
    ("gpt", gpt),
    ("trace", trace),
    ("uevent", uevent),
    ("units", units),
];

/// A certificate, a revocation list, or a file of either.
pub fn certificates(bytes: &[u8]) {
    keel_agent::fuzz::certificates(bytes);
}

/// Frames of the control protocol, read by either side.
pub fn frames(bytes: &[u8]) {
    keel_control::fuzz::frames(bytes);
}

/// A unit file, beside a machine config that sets little.
pub fn units(bytes: &[u8]) {
    lower(bytes, |input, text| {
        input.config("config.toml", "schema = 1\n");
        input.unit("units/fuzzed.toml", text);
    });
}

/// A machine config with a secrets file, and a unit that takes values from it.
pub fn config(bytes: &[u8]) {
    const UNIT: &str = "[file]\npath = \"/x\"\ncontent = \"{{ machine.hostname }}\"\nfor-each = \"network.interfaces\"\n";

    lower(bytes, |input, text| {
        // Two files in one input: a line of dashes parts them.
        let (config, secrets) = text.split_once("\n---\n").unwrap_or((text, ""));
        input.config("config.toml", config);
        if !secrets.is_empty() {
            input.secrets("secrets.toml", secrets);
        }
        input.unit("units/takes.toml", UNIT);
    });
}

/// What is lowered resolves or is refused with findings that can be shown; either way, twice the same.
fn lower(bytes: &[u8], fill: impl Fn(&mut Input, &str)) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let outcome = || {
        let mut input = Input::default();
        fill(&mut input, text);
        match keel_unit::lower(input) {
            Ok(set) => match keel_plan::resolve(set) {
                Ok(graph) => graph.digest().to_string(),
                Err(report) => format!("{report:?}"),
            },
            Err(report) => format!("{report:?}"),
        }
    };
    assert_eq!(outcome(), outcome(), "the same text means the same");
}

/// A boot trace, as a file holds one and as a console shows one.
pub fn trace(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(trace) = Trace::parse(text) {
        let again = Trace::parse(&trace.json());
        assert!(again.is_ok_and(|again| again.json() == trace.json()), "what is written is read");
    }
    drop(Trace::from_console(text.lines()));
}

/// A conversation of the DHCP client with whoever answers.
pub fn dhcp(bytes: &[u8]) {
    keel_host::net::fuzz::dhcp(bytes);
}

/// A disk: its partition table, and the marks of other formats.
pub fn gpt(bytes: &[u8]) {
    let Some(disk) = Disk::of(bytes) else { return };
    if let Ok(Some(table)) = table::read(&disk) {
        let sectors = disk.size / u64::from(disk.sector_size);
        for entry in &table.entries {
            assert!(entry.first <= entry.last && entry.last < sectors, "{entry:?} is on the disk");
            assert!(entry.sectors() >= 1);
        }
    }
    drop(signature::signatures(&disk));
}

/// A message of the kernel about a device.
pub fn uevent(bytes: &[u8]) {
    if let Some(event) = Uevent::parse(bytes) {
        let _adds = event.adds();
        let _name = event.property("DEVNAME");
    }
}

/// A sparse disk: each piece of the input is a place, a length and that many bytes.
struct Disk {
    size: u64,
    sector_size: u32,
    pieces: BTreeMap<u64, Vec<u8>>,
}

impl Disk {
    /// The first byte says the sector size and from which end places count; pieces follow.
    fn of(bytes: &[u8]) -> Option<Self> {
        let (&[kind, megabytes], mut rest) = bytes.split_first_chunk::<2>()?;
        let sector_size = if kind & 1 == 0 { 512 } else { 4096 };
        let size = (u64::from(megabytes) + 1) << 20;
        let mut pieces = BTreeMap::new();
        while let Some((&[hi, lo, from_end, length_hi, length_lo], after)) =
            rest.split_first_chunk::<5>()
        {
            let sector = u64::from(u16::from_be_bytes([hi, lo])) * 512;
            let length = usize::from(u16::from_be_bytes([length_hi, length_lo])).min(after.len());
            let (piece, after) = after.split_at(length);
            let at = if from_end & 1 == 0 { Some(sector) } else { size.checked_sub(sector) };
            if let Some(at) = at
                && at + length as u64 <= size
            {
                pieces.insert(at, piece.to_vec());
            }
            rest = after;
        }
        Some(Self { size, sector_size, pieces })
    }
}

impl ReadBlocks for Disk {
    fn size(&self) -> u64 {
        self.size
    }

    fn sector_size(&self) -> u32 {
        self.sector_size
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let end = offset.checked_add(buffer.len() as u64).filter(|end| *end <= self.size);
        let end = end.ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.fill(0);
        for (&start, piece) in &self.pieces {
            let (from, to) = (start.max(offset), (start + piece.len() as u64).min(end));
            if from < to {
                buffer[(from - offset) as usize..(to - offset) as usize]
                    .copy_from_slice(&piece[(from - start) as usize..(to - start) as usize]);
            }
        }
        Ok(())
    }
}
