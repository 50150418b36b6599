//! Which pages of a container's memory follow: CRIU's images say it (`pagemap-PID.img`; CRIU's
//! `images/pagemap.proto` and `criu/include/magic.h`).

use std::fs;
use std::path::Path;

use prost::Message;

use super::wire::{PAGE, Span};

/// What such an image begins with: `IMG_COMMON_MAGIC` and `PAGEMAP_MAGIC`.
const MAGIC: [u32; 2] = [0x5456_4319, 0x5608_4025];
/// `PE_LAZY`
const FOLLOWS: u32 = 1 << 1;

/// Pages that follow each other, and have the same fate.
#[derive(Clone, PartialEq, prost::Message)]
struct Entry {
    #[prost(uint64, required, tag = "1")]
    address: u64,
    /// CRIU before 4.2 knows only this number of pages.
    #[prost(uint32, required, tag = "2")]
    compatible_pages: u32,
    #[prost(uint32, optional, tag = "4")]
    flags: Option<u32>,
    #[prost(uint64, optional, tag = "5")]
    pages: Option<u64>,
}

/// The pages that follow, of every process, by address.
///
/// # Errors
/// Where an image cannot be read.
pub fn pages_that_follow(images: &Path) -> Result<Vec<Span>, String> {
    let failed = |path: &Path, error: std::io::Error| format!("{}: {error}", path.display());
    let mut spans = Vec::new();
    for entry in fs::read_dir(images).map_err(|error| failed(images, error))? {
        let path = entry.map_err(|error| failed(images, error))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        // Those of shared memory have a word before the number, and are whole.
        let Some(image) = name
            .strip_prefix("pagemap-")
            .and_then(|rest| rest.strip_suffix(".img"))
            .and_then(|number| number.parse().ok())
        else {
            continue;
        };
        let bytes = fs::read(&path).map_err(|error| failed(&path, error))?;
        let of_process = read(image, &bytes).map_err(|why| format!("{}: {why}", path.display()))?;
        spans.extend(of_process);
    }
    spans.sort_by_key(|span| (span.image, span.address));
    Ok(spans)
}

/// Reads an image: two magic numbers, then messages, each after its size.
fn read(image: u64, bytes: &[u8]) -> Result<Vec<Span>, String> {
    let mut rest = bytes;
    for magic in MAGIC {
        if number(&mut rest) != Some(magic) {
            return Err("it is no image of CRIU's that tells of pages".to_owned());
        }
    }
    let mut message = || -> Option<Option<&[u8]>> {
        if rest.is_empty() {
            return Some(None);
        }
        let size = usize::try_from(number(&mut rest)?).ok()?;
        let (message, after) = rest.split_at_checked(size)?;
        rest = after;
        Some(Some(message))
    };
    let cut = || "it ends in the midst of a message".to_owned();
    // The first names the image with the pages that do not follow.
    message().ok_or_else(cut)?;
    let mut spans = Vec::new();
    while let Some(message) = message().ok_or_else(cut)? {
        let entry = Entry::decode(message).map_err(|error| error.to_string())?;
        if entry.flags.unwrap_or_default() & FOLLOWS == 0 {
            continue;
        }
        let pages = entry.pages.unwrap_or(u64::from(entry.compatible_pages));
        let is_possible = entry.address.is_multiple_of(PAGE as u64)
            && pages
                .checked_mul(PAGE as u64)
                .and_then(|size| entry.address.checked_add(size))
                .is_some();
        if !is_possible {
            return Err(format!("{pages} pages at {:#x} cannot be", entry.address));
        }
        spans.push(Span {
            image,
            address: entry.address,
            pages,
        });
    }
    Ok(spans)
}

fn number(bytes: &mut &[u8]) -> Option<u32> {
    let (number, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(u32::from_le_bytes(*number))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(entries: &[Entry]) -> Vec<u8> {
        let mut bytes: Vec<u8> = MAGIC.iter().flat_map(|magic| magic.to_le_bytes()).collect();
        let mut add = |message: &[u8]| {
            bytes.extend((message.len() as u32).to_le_bytes());
            bytes.extend(message);
        };
        // `pages_id: 1`
        add(&[8, 1]);
        for entry in entries {
            add(&entry.encode_to_vec());
        }
        bytes
    }

    fn entry(address: u64, pages: u64, flags: u32) -> Entry {
        Entry {
            address,
            compatible_pages: 0,
            flags: Some(flags),
            pages: Some(pages),
        }
    }

    #[test]
    fn what_follows_is_read_and_the_rest_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: Vec<u8>| {
            fs::write(directory.path().join(name), bytes).unwrap();
        };
        let of_old = Entry {
            compatible_pages: 3,
            pages: None,
            ..entry(0x8000, 0, FOLLOWS)
        };
        write(
            "pagemap-7.img",
            image(&[entry(0x1000, 2, 4), entry(0x4000, 5, FOLLOWS | 4), of_old]),
        );
        write("pagemap-1.img", image(&[entry(0x7000, 1, FOLLOWS)]));
        write("pagemap-shmem-9.img", b"of no concern".to_vec());
        write("mm-7.img", b"of no concern".to_vec());
        let span = |image, address, pages| Span {
            image,
            address,
            pages,
        };
        assert_eq!(
            pages_that_follow(directory.path()).unwrap(),
            [span(1, 0x7000, 1), span(7, 0x4000, 5), span(7, 0x8000, 3)]
        );
    }

    #[test]
    fn a_broken_image_is_refused() {
        let whole = image(&[entry(0x4000, 5, FOLLOWS)]);
        for length in 0..whole.len() {
            // Cut between two messages it is one with fewer of them.
            let cut = whole.get(..length).unwrap();
            assert_eq!(
                read(1, cut).is_ok(),
                length == 8 || length == 14,
                "{length}"
            );
        }
        for (address, pages) in [(0x4001, 1), (0x4000, u64::MAX), (u64::MAX - 4095, 1)] {
            assert!(read(1, &image(&[entry(address, pages, FOLLOWS)])).is_err());
        }
    }
}
