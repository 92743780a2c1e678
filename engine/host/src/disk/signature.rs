//! Whether a disk is blank, checked in depth: marks of every format we know, and nothing unknown where data would be.

mod table;

use std::{fmt, io};

use super::block::{ReadBlocks, WriteBlocks};

pub use table::{EXT, EXT_BACKUP};

/// How much of each end of a disk must hold nothing.
const EDGE: u64 = 4 << 20;
/// How many places between the ends are sampled, and how much is read at each.
const SAMPLES: u64 = 64;
const SAMPLE: u64 = 64 << 10;
/// The size of one read; PID 1 holds no more of a disk than this.
const CHUNK: usize = 256 << 10;
/// The grain in which unknown data is reported.
const GRAIN: usize = 512;

/// Where a mark stands, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// From the start.
    Start(u64),
    /// Back from the end.
    End(u64),
    /// Back from the end, rounded down, then forward: metadata that its format keeps aligned.
    Aligned { back: u64, align: u64, plus: u64 },
}

impl At {
    /// The offset on a disk of this size; `None` if the disk is too small to have that place.
    fn offset(self, size: u64) -> Option<u64> {
        match self {
            Self::Start(offset) => (offset < size).then_some(offset),
            Self::End(back) => size.checked_sub(back),
            Self::Aligned { back, align, plus } => {
                Some(size.checked_sub(back)? / align * align + plus)
            }
        }
    }
}

/// How far a look at a device goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Known marks, both ends, and samples in between: for a whole disk of which nobody said that it is ours.
    Disk,
    /// Known marks and both ends: for a partition that is ours by its type and label, on which old data in the middle is no
    /// hint of an owner.
    Partition,
}

/// One mark that was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// The format's name.
    pub name: &'static str,
    /// Where its mark stands, in bytes from the start.
    pub offset: u64,
}

/// What is on a disk, as far as can be told without reading all of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Content {
    /// The marks that were found, the most telling first.
    pub signatures: Vec<Found>,
    /// The offset of the first data in a checked region that should hold nothing.
    pub unknown: Option<u64>,
}

impl Content {
    /// Whether nothing at all was found.
    pub fn is_blank(&self) -> bool {
        self.signatures.is_empty() && self.unknown.is_none()
    }
}

/// "GPT partition table at offset 512 (and 2 more signatures)".
impl fmt::Display for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.signatures.as_slice(), self.unknown) {
            ([], None) => write!(f, "nothing"),
            ([], Some(offset)) => write!(f, "unknown data at offset {offset}"),
            ([first], _) => write!(f, "{} at offset {}", first.name, first.offset),
            ([first, rest @ ..], _) => {
                let s = if rest.len() == 1 { "" } else { "s" };
                write!(
                    f,
                    "{} at offset {} (and {} more signature{s})",
                    first.name,
                    first.offset,
                    rest.len()
                )
            }
        }
    }
}

/// Looks at a disk. It reads at most some 13 MiB, however large the disk is.
pub fn scan(disk: &dyn ReadBlocks, depth: Depth) -> io::Result<Content> {
    Ok(Content { signatures: signatures(disk)?, unknown: find_unknown(disk, depth)? })
}

/// The known marks on a disk alone. It reads some hundred small places, each no longer than a mark.
pub fn signatures(disk: &dyn ReadBlocks) -> io::Result<Vec<Found>> {
    let mut found = Vec::new();
    let mut buffer = [0; 32];
    for signature in table::TABLE {
        let buffer = &mut buffer[..signature.magic.len()];
        for offset in places(signature, disk.size()) {
            disk.read_at(offset, buffer)?;
            if buffer == signature.magic {
                found.push(Found { name: signature.name, offset });
            }
        }
    }
    Ok(found)
}

/// The places on a disk of this size where all of a signature's magic fits.
fn places(signature: &table::Signature, size: u64) -> impl Iterator<Item = u64> {
    let length = signature.magic.len() as u64;
    signature
        .at
        .iter()
        .filter_map(move |at| at.offset(size))
        .filter(move |offset| offset.checked_add(length).is_some_and(|end| end <= size))
}

/// The first grain that is neither all zeros nor all ones (what erased flash reads as).
fn find_unknown(disk: &dyn ReadBlocks, depth: Depth) -> io::Result<Option<u64>> {
    let mut buffer = vec![0; CHUNK];
    for (start, end) in regions(disk.size(), depth) {
        let mut offset = start;
        while offset < end {
            let length = usize::try_from(end - offset).map_or(CHUNK, |rest| rest.min(CHUNK));
            let chunk = &mut buffer[..length];
            disk.read_at(offset, chunk)?;
            let unknown = chunk.chunks(GRAIN).position(|grain| !is_erased(grain));
            if let Some(grain) = unknown {
                return Ok(Some(offset + (grain * GRAIN) as u64));
            }
            offset += length as u64;
        }
    }
    Ok(None)
}

fn is_erased(grain: &[u8]) -> bool {
    // Comparing with a constant is one memcmp, also in a build that is not optimised.
    [&[0; GRAIN], &[0xff; GRAIN]].into_iter().any(|erased| *grain == erased[..grain.len()])
}

/// The byte ranges that a blank disk of this size keeps empty. Ranges start on a 4 KiB boundary, but for the last one,
/// which ends where the disk ends.
fn regions(size: u64, depth: Depth) -> Vec<(u64, u64)> {
    if size <= 2 * EDGE {
        return vec![(0, size)];
    }
    let mut regions = vec![(0, EDGE), (size - EDGE, size)];
    if depth == Depth::Disk {
        let stride = (size - 2 * EDGE) / (SAMPLES + 1);
        regions.extend((1..=SAMPLES).map(|i| {
            let start = (EDGE + i * stride) & !4095;
            (start, (start + SAMPLE).min(size))
        }));
    }
    regions
}

/// Makes a disk blank as far as [`scan`] at [`Depth::Partition`] looks, within these bytes: everything in the first and
/// last MiBs, and each known mark wherever it stands.
///
/// # Errors
/// As the disk does; the disk is then blank in part.
pub fn erase(disk: &mut dyn WriteBlocks) -> io::Result<()> {
    let size = disk.size();
    for (start, end) in regions(size, Depth::Partition) {
        let mut offset = start;
        while offset < end {
            let length = usize::try_from(end - offset).map_or(CHUNK, |rest| rest.min(CHUNK));
            erase_chunk(disk, offset, length)?;
            offset += length as u64;
        }
    }
    for found in signatures(disk)? {
        // A whole aligned block: the mark, the header that it stands in, and no half sector.
        let start = found.offset & !4095;
        let length = usize::try_from((size - start).min(4096)).unwrap_or(4096);
        erase_chunk(disk, start, length)?;
    }
    disk.flush()
}

/// Writes zeros, unless they are there: what is blank is spared the wear.
fn erase_chunk(disk: &mut dyn WriteBlocks, offset: u64, length: usize) -> io::Result<()> {
    let mut chunk = vec![0; length];
    disk.read_at(offset, &mut chunk)?;
    if chunk.chunks(GRAIN).all(|grain| *grain == [0; GRAIN][..grain.len()]) {
        return Ok(());
    }
    chunk.fill(0);
    disk.write_at(offset, &chunk)
}

#[cfg(test)]
mod tests {
    use super::super::memory::MemoryDisk;
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn each_signature_at_each_of_its_places_is_found_by_name_and_erased() {
        // Large enough for every place but the btrfs mirror at 256 GiB; the disk is sparse.
        for size in [512 * MIB + 4096 * 3 + 512, 300 << 30] {
            for signature in table::TABLE {
                for offset in places(signature, size) {
                    let mut disk = MemoryDisk::new(size, 512);
                    disk.poke(offset, signature.magic);
                    let content = scan(&disk, Depth::Disk).unwrap();
                    let expect = Found { name: signature.name, offset };
                    assert!(content.signatures.contains(&expect), "{expect:?} in {content:?}");
                    erase(&mut disk).unwrap();
                    assert!(scan(&disk, Depth::Disk).unwrap().is_blank(), "{expect:?} is left");
                }
            }
        }
    }

    #[test]
    fn unknown_data_is_found_at_both_ends_and_between() {
        let check = |size: u64, offset: u64, depth: Depth, expect: Option<u64>| {
            let mut disk = MemoryDisk::new(size, 512);
            disk.poke(offset, b"\x07");
            assert_eq!(scan(&disk, depth).unwrap().unknown, expect, "{offset} of {size}");
        };
        let size = 64 * MIB;
        check(size, 0, Depth::Disk, Some(0));
        check(size, 4 * MIB - 1, Depth::Disk, Some(4 * MIB - 512));
        check(size, size - 1, Depth::Disk, Some(size - 512));
        check(size, size - 4 * MIB, Depth::Partition, Some(size - 4 * MIB));
        let stride = (size - 8 * MIB) / 65;
        let sample = (4 * MIB + 9 * stride) & !4095;
        check(size, sample + 70, Depth::Disk, Some(sample));
        check(size, sample + 70, Depth::Partition, None);
        // A disk smaller than its two ends is read wholly.
        check(6 * MIB, 5 * MIB, Depth::Disk, Some(5 * MIB));
        check(512, 511, Depth::Disk, Some(0));
    }

    #[test]
    fn zeros_and_erased_flash_are_blank() {
        let mut disk = MemoryDisk::new(9 * MIB, 4096);
        assert!(scan(&disk, Depth::Disk).unwrap().is_blank());
        disk.poke(0, &vec![0xff; 9 << 20]);
        assert!(scan(&disk, Depth::Disk).unwrap().is_blank());
    }

    #[test]
    fn places_beyond_a_small_disk_are_not_read() {
        for size in [0, 1, 511, 512, 1024, 4096, 65536] {
            assert!(scan(&MemoryDisk::new(size, 512), Depth::Disk).unwrap().is_blank(), "{size}");
        }
    }

    #[test]
    fn a_content_says_what_and_where() {
        let check = |signatures: &[Found], unknown: Option<u64>, expect: &str| {
            assert_eq!(Content { signatures: signatures.to_vec(), unknown }.to_string(), expect);
        };
        let gpt = Found { name: "GPT partition table", offset: 512 };
        let mbr = Found { name: "MBR partition table", offset: 510 };
        check(&[], None, "nothing");
        check(&[], Some(4096), "unknown data at offset 4096");
        check(&[gpt], Some(0), "GPT partition table at offset 512");
        check(&[gpt, mbr], None, "GPT partition table at offset 512 (and 1 more signature)");
        check(&[gpt, mbr, mbr], None, "GPT partition table at offset 512 (and 2 more signatures)");
    }
}
