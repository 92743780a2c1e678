//! A disk in memory that records what is written to it, for tests: a power cut is a prefix of the record.

use std::collections::BTreeMap;
use std::io;

use super::block::{ReadBlocks, WriteBlocks};

/// One entry of the record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Op {
    /// One sector was written. Only a sector is atomic on a real disk.
    Sector(u64, Vec<u8>),
    /// Everything before this point is on the medium.
    Flush,
}

/// A sparse disk.
#[derive(Debug, Clone)]
pub(super) struct MemoryDisk {
    size: u64,
    sector_size: u32,
    sectors: BTreeMap<u64, Vec<u8>>,
    pub(super) record: Vec<Op>,
}

impl MemoryDisk {
    pub(super) fn new(size: u64, sector_size: u32) -> Self {
        Self { size, sector_size, sectors: BTreeMap::new(), record: Vec::new() }
    }

    /// Changes bytes past the record: what stood on the disk before.
    pub(super) fn poke(&mut self, offset: u64, bytes: &[u8]) {
        let sector_size = u64::from(self.sector_size);
        let (mut at, mut rest) = (offset, bytes);
        while !rest.is_empty() {
            let within = (at % sector_size) as usize;
            let (now, later) = rest.split_at(rest.len().min(sector_size as usize - within));
            let sector = self
                .sectors
                .entry(at / sector_size)
                .or_insert_with(|| vec![0; sector_size as usize]);
            sector[within..within + now.len()].copy_from_slice(now);
            at += now.len() as u64;
            rest = later;
        }
    }

    /// Does what an earlier record says.
    pub(super) fn replay<'a>(&mut self, record: impl IntoIterator<Item = &'a Op>) {
        for op in record {
            if let Op::Sector(offset, bytes) = op {
                self.poke(*offset, bytes);
            }
        }
    }
}

impl ReadBlocks for MemoryDisk {
    fn size(&self) -> u64 {
        self.size
    }

    fn sector_size(&self) -> u32 {
        self.sector_size
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        if offset + buffer.len() as u64 > self.size {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        buffer.fill(0);
        let sector_size = u64::from(self.sector_size);
        let end = offset + buffer.len() as u64;
        for (&number, sector) in self.sectors.range(offset / sector_size..end.div_ceil(sector_size))
        {
            let start = number * sector_size;
            let (from, to) = (start.max(offset), (start + sector_size).min(end));
            buffer[(from - offset) as usize..(to - offset) as usize]
                .copy_from_slice(&sector[(from - start) as usize..(to - start) as usize]);
        }
        Ok(())
    }
}

impl WriteBlocks for MemoryDisk {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let sector_size = self.sector_size as usize;
        assert!(
            offset.is_multiple_of(sector_size as u64) && bytes.len().is_multiple_of(sector_size),
            "whole sectors"
        );
        assert!(offset + bytes.len() as u64 <= self.size, "within the disk");
        for (i, sector) in bytes.chunks(sector_size).enumerate() {
            let at = offset + (i * sector_size) as u64;
            self.poke(at, sector);
            self.record.push(Op::Sector(at, sector.to_vec()));
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.record.push(Op::Flush);
        Ok(())
    }
}
