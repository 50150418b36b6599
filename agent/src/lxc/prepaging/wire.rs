//! What CRIU's page server and who asks it say to each other (`struct page_server_iov` in CRIU's
//! `criu/page-xfer.c`): messages of one size, in the machine's byte order, and after some of them
//! pages.

/// A page of memory, in bytes, on every machine that CRIU runs on here.
pub const PAGE: usize = 4 << 10;
/// More pages than this are never in one answer: as many as CRIU itself asks for at most
/// (`MAX_XFER_LEN` in its `criu/uffd.c`).
pub const MOST_PAGES: u64 = 1_024;

/// `PS_IOV_GET`: pages are asked for.
const GET: u32 = 7;
/// `PS_IOV_ADD_F` with `PE_PRESENT`: here they are.
const ADD: u32 = 4 << 16 | 6;
/// `PS_IOV_FORCE_CLOSE`: nothing more is asked for. By a socket that it was given, CRIU says no
/// other word for it.
const CLOSE: u32 = 0x1024;

/// Pages of a process's memory that follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Whose: the number in the image's name.
    pub image: u64,
    /// Of the first, in the process's memory, in bytes.
    pub address: u64,
    pub pages: u64,
}

/// A message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Message {
    Get(Span),
    /// Its pages come after it.
    Add(Span),
    /// The page server answers with four bytes of its own.
    Close,
}

/// How a message looks, which depends on CRIU's version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// Before 4.2: the number of pages has 32 bits.
    Narrow,
    /// From 4.2 on it has 64, which puts four bytes without meaning before it.
    Wide,
}

impl Layout {
    /// That of the CRIU of this major and minor version.
    pub fn of(criu: (u32, u32)) -> Self {
        if criu < (4, 2) {
            Self::Narrow
        } else {
            Self::Wide
        }
    }

    /// Of a message, in bytes.
    pub fn size(self) -> usize {
        match self {
            Self::Narrow => 24,
            Self::Wide => 32,
        }
    }

    /// Reads a message of [`Layout::size`] bytes.
    ///
    /// # Errors
    /// Where it is none that is said while memory follows.
    pub fn read(self, bytes: &[u8]) -> Result<Message, String> {
        let at = |place: usize, size: usize| {
            let mut number = [0; 8];
            let field = bytes.get(place..place + size)?;
            number.get_mut(..size)?.copy_from_slice(field);
            Some(u64::from_le_bytes(number))
        };
        let (pages, rest) = match self {
            Self::Narrow => (at(4, 4), 8),
            Self::Wide => (at(8, 8), 16),
        };
        let (Some(command), Some(pages), Some(address), Some(image)) =
            (at(0, 4), pages, at(rest, 8), at(rest + 8, 8))
        else {
            return Err(format!("a message to CRIU of {} bytes", bytes.len()));
        };
        let span = Span {
            image,
            address,
            pages,
        };
        match command as u32 {
            GET => Ok(Message::Get(span)),
            ADD => Ok(Message::Add(span)),
            CLOSE => Ok(Message::Close),
            command => Err(format!(
                "CRIU's page server or who asks it says {command:#x}, which is not known here"
            )),
        }
    }

    /// Adds to `bytes` what [`Layout::read`] reads.
    pub fn write(self, message: Message, bytes: &mut Vec<u8>) {
        let (command, span) = match message {
            Message::Get(span) => (GET, span),
            Message::Add(span) => (ADD, span),
            Message::Close => {
                let nothing = Span {
                    image: 0,
                    address: 0,
                    pages: 0,
                };
                (CLOSE, nothing)
            }
        };
        bytes.extend(command.to_le_bytes());
        match self {
            // Never more than `MOST_PAGES`.
            Self::Narrow => bytes.extend((span.pages as u32).to_le_bytes()),
            Self::Wide => {
                bytes.extend([0; 4]);
                bytes.extend(span.pages.to_le_bytes());
            }
        }
        bytes.extend(span.address.to_le_bytes());
        bytes.extend(span.image.to_le_bytes());
    }
}
