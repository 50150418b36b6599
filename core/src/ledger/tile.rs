//! How a ledger is read: in tiles of 256 (C2SP tlog-tiles).
//!
//! ```text
//! checkpoint                    the signed note
//! tile/LEVEL/N[.p/WIDTH]        256 hashes, or WIDTH of them, of tree level 8 × LEVEL
//! tile/entries/N[.p/WIDTH]      256 entries, or WIDTH of them, each behind its length (16 bits,
//!                               big-endian)
//! ```
//!
//! `N` is written in groups of three digits: `x001/x234/067`.

use tlog_tiles::stored_hash_index;

use super::tree::{Hash, Node, Unproven};

/// How many hashes, or entries, a whole tile has.
pub const TILE_WIDTH: u64 = 256;
/// The tree levels that one tile level spans.
const TILE_HEIGHT: u8 = 8;

/// What a path below a ledger's address names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tile {
    /// Hashes of the tree level `8 × level`.
    Hashes { level: u8, index: u64, width: u64 },
    /// Entries.
    Entries { index: u64, width: u64 },
}

impl Tile {
    /// From a path such as `tile/0/x001/067.p/8`; `None` where it is none.
    pub fn from_path(path: &str) -> Option<Self> {
        let (kind, rest) = path.strip_prefix("tile/")?.split_once('/')?;
        let (number, width) = match rest.rsplit_once(".p/") {
            Some((number, width)) => (number, width.parse().ok()?),
            None => (rest, TILE_WIDTH),
        };
        let mut index: u64 = 0;
        for group in number.split('/') {
            let group: u64 = group.trim_start_matches('x').parse().ok()?;
            index = index.checked_mul(1_000)?.checked_add(group)?;
        }
        let tile = match kind {
            "entries" => Self::Entries { index, width },
            level => Self::Hashes {
                level: level.parse().ok()?,
                index,
                width,
            },
        };
        // A tile has one path and no second.
        ((1..=TILE_WIDTH).contains(&width) && tile.path() == path).then_some(tile)
    }

    pub fn path(&self) -> String {
        let (kind, index, width) = match *self {
            Self::Hashes {
                level,
                index,
                width,
            } => (level.to_string(), index, width),
            Self::Entries { index, width } => ("entries".to_owned(), index, width),
        };
        let mut number = format!("{:03}", index % 1_000);
        let mut rest = index / 1_000;
        while rest > 0 {
            number = format!("x{:03}/{number}", rest % 1_000);
            rest /= 1_000;
        }
        if width == TILE_WIDTH {
            format!("tile/{kind}/{number}")
        } else {
            format!("tile/{kind}/{number}.p/{width}")
        }
    }

    /// The nodes whose hashes are in it, none for entries; `None` where a ledger of `size`
    /// entries has no such tile.
    pub fn nodes(&self, size: u64) -> Option<Vec<Node>> {
        if !self.is_in(size) {
            return None;
        }
        Some(match *self {
            Self::Hashes {
                level,
                index,
                width,
            } => (0..width)
                .map(|at| stored_hash_index(TILE_HEIGHT * level, index * TILE_WIDTH + at))
                .collect(),
            Self::Entries { .. } => Vec::new(),
        })
    }

    /// Whether a ledger of `size` entries has it.
    pub fn is_in(&self, size: u64) -> bool {
        let (level, index, width) = match *self {
            Self::Hashes {
                level,
                index,
                width,
            } => (u32::from(level), index, width),
            Self::Entries { index, width } => (0, index, width),
        };
        let complete = size
            .checked_shr(u32::from(TILE_HEIGHT) * level)
            .unwrap_or(0);
        index
            .checked_mul(TILE_WIDTH)
            .and_then(|first| first.checked_add(width))
            .is_some_and(|end| end <= complete)
    }

    /// Every tile of a ledger of `size` entries, entries first, each as wide as it is.
    pub fn all(size: u64) -> impl Iterator<Item = Self> {
        let counts = std::iter::successors(Some(size), |count| Some(count / TILE_WIDTH))
            .take_while(|count| *count > 0);
        tiles(size)
            .map(|(index, width)| Self::Entries { index, width })
            .chain((0..).zip(counts).flat_map(|(level, count)| {
                tiles(count).map(move |(index, width)| Self::Hashes {
                    level,
                    index,
                    width,
                })
            }))
    }
}

/// Number and width of each tile that `count` hashes or entries fill.
fn tiles(count: u64) -> impl Iterator<Item = (u64, u64)> {
    (0..count.div_ceil(TILE_WIDTH))
        .map(move |index| (index, (count - index * TILE_WIDTH).min(TILE_WIDTH)))
}

/// The entries of a tile, one behind the other.
pub fn bundle<'a>(entries: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut bundled = Vec::new();
    for entry in entries {
        // Longer ones are never entered.
        let length = u16::try_from(entry.len()).unwrap_or(u16::MAX);
        bundled.extend(length.to_be_bytes());
        bundled.extend(entry);
    }
    bundled
}

/// The entries of a tile that was read.
///
/// # Errors
/// Where it breaks off in the midst of one.
pub fn unbundle(mut bundled: &[u8]) -> Result<Vec<&[u8]>, Unproven> {
    let broken = || Unproven("the entries break off in the midst of one".to_owned());
    let mut entries = Vec::new();
    while !bundled.is_empty() {
        let (length, rest) = bundled.split_first_chunk::<2>().ok_or_else(broken)?;
        let length = usize::from(u16::from_be_bytes(*length));
        let (entry, rest) = rest.split_at_checked(length).ok_or_else(broken)?;
        entries.push(entry);
        bundled = rest;
    }
    Ok(entries)
}

/// The hashes of a tile, one behind the other.
///
/// # Errors
/// Where they break off in the midst of one.
pub fn hashes(bytes: &[u8]) -> Result<Vec<Hash>, Unproven> {
    let (whole, rest) = bytes.as_chunks::<32>();
    if rest.is_empty() {
        Ok(whole.iter().map(|hash| Hash(*hash)).collect())
    } else {
        Err(Unproven(
            "the hashes break off in the midst of one".to_owned(),
        ))
    }
}
