//! Pages asked for before CRIU asks for them.
//!
//! While memory follows, `criu lazy-pages` has one request under way at a time, besides those for
//! pages that the container waits for, and each of the latter makes the next a small one. The link
//! idles while a request is on its way. So who passes the pages on asks ahead: as much is always
//! under way as keeps the link busy, and what comes is kept until CRIU asks for it.
//!
//! A container that begins to run needs some of the small pieces of its memory at once, one after the
//! other: stacks, what a thread keeps for itself, the variables of a library. These are asked for
//! before anybody needs them, while the container is being made.
//!
//! Each page comes over once, unless CRIU asks for it again, which it does where a process has
//! forked. What is kept here is not yet in the container's memory, so that both together are never
//! more than that memory was.
//!
//! [`Prepager`] says what to ask for and what to answer, [`pass`] does it.

mod link;
mod pagemap;
mod wire;

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::path::Path;
use std::time::Instant;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use self::link::Link;
pub use self::wire::Layout;
use self::wire::{MOST_PAGES, Message, PAGE, Span};

/// How many pages are asked for at once: few enough that whoever waits for one of them, or for what
/// comes behind them, does not wait for long.
const PIECE: u64 = 16;
/// How much in small pieces is asked for before CRIU asks for anything, in pages.
const AT_FIRST: u64 = 256;
/// How far ahead of CRIU, where it goes through the pages by itself, in pages.
const AHEAD: u64 = link::MOST;
/// How far ahead of the container, which mostly goes on with the next page, in pages.
const BEHIND_A_FAULT: u64 = 2 * PIECE;
/// How much is read at once, in bytes.
const READ: usize = 256 << 10;

/// What is known of a page; where nothing is, it is at the source.
#[derive(Debug)]
enum Page {
    Coming,
    Here(Box<[u8; PAGE]>),
    Given,
}

/// Pages that follow each other, and the place of the first among all.
#[derive(Debug, Clone, Copy)]
struct Run {
    span: Span,
    first: u64,
}

/// What to ask the source for, and what to answer CRIU. No I/O, no clock.
///
/// All pages that follow have a place, by which they are known: they are counted through, by process
/// and address.
#[derive(Debug)]
pub struct Prepager {
    /// By image and address, and so by place.
    runs: Vec<Run>,
    known: HashMap<u64, Page>,
    /// What CRIU waits for, in the order in which it asked.
    asked: VecDeque<Span>,
    /// What the source was asked for, in the order in which it answers.
    under_way: VecDeque<Span>,
    /// The pages in it.
    pages_under_way: u64,
    /// What is asked for before CRIU asks for anything: runs that are one request.
    at_first: VecDeque<Span>,
    /// From which place on CRIU will ask, where it goes through the pages by itself. Before it
    /// does, the container is still being restored, and has the processor for itself.
    goes_on_at: Option<u64>,
    /// From this place on, pages are asked for ahead of that.
    ahead: u64,
    /// Behind the page that the container waited for last: what it needs next, mostly.
    next_to_a_fault: Range<u64>,
}

impl Prepager {
    /// For pages `that_follow`, by image and address.
    ///
    /// # Errors
    /// Where they overlap, or are more than can be counted.
    fn new(that_follow: Vec<Span>) -> Result<Self, String> {
        let mut runs: Vec<Run> = Vec::with_capacity(that_follow.len());
        let mut first: u64 = 0;
        for span in that_follow {
            if let Some(Run { span: before, .. }) = runs.last()
                && before.image == span.image
                && end(before) > span.address
            {
                return Err(format!(
                    "the pages at {:#x} of process {} are listed twice",
                    span.address, span.image
                ));
            }
            runs.push(Run { span, first });
            first = first
                .checked_add(span.pages)
                .ok_or("there are more pages than can be counted")?;
        }
        let small = runs.iter().map(|run| run.span);
        let mut small: Vec<Span> = small.filter(|span| span.pages <= PIECE).collect();
        small.sort_by_key(|span| span.pages);
        let mut pages = 0;
        let at_first = small.into_iter().take_while(|span| {
            pages += span.pages;
            pages <= AT_FIRST
        });
        Ok(Self {
            at_first: at_first.collect(),
            runs,
            known: HashMap::new(),
            asked: VecDeque::new(),
            under_way: VecDeque::new(),
            pages_under_way: 0,
            goes_on_at: None,
            ahead: 0,
            next_to_a_fault: 0..0,
        })
    }

    /// For the container whose images are in this directory.
    ///
    /// # Errors
    /// Where they do not say which pages follow.
    pub fn of(images: &Path) -> Result<Self, String> {
        Self::new(pagemap::pages_that_follow(images)?)
    }

    /// CRIU asks for pages.
    fn ask(&mut self, wanted: Span) -> Result<(), String> {
        let places = self.places(&wanted)?;
        // A page in the midst of others is what the container waits for. All else is what CRIU
        // goes through by itself, by address.
        if wanted.pages > 1 || places.end == self.end_of_run(places.start) {
            self.goes_on_at = Some(places.end);
        } else {
            self.next_to_a_fault = places.end..places.end.saturating_add(BEHIND_A_FAULT);
        }
        self.asked.push_back(wanted);
        Ok(())
    }

    /// What to ask the source for next, if anything. Where CRIU waits for nothing else, no more than
    /// `window` pages are under way when it is asked.
    fn next_request(&mut self, window: u64) -> Option<Span> {
        let request = self
            .demanded()
            .or_else(|| self.asked_at_first(window))
            .or_else(|| self.prepaged(window))?;
        self.under_way.push_back(request);
        self.pages_under_way += request.pages;
        for place in self.places(&request).ok()? {
            self.known.insert(place, Page::Coming);
        }
        Some(request)
    }

    /// What CRIU waits for, and what is neither here nor coming.
    fn demanded(&self) -> Option<Span> {
        let is_missing = |place: &u64| match self.known.get(place) {
            Some(Page::Coming | Page::Here(_)) => false,
            // Asked for again.
            Some(Page::Given) | None => true,
        };
        self.asked.iter().find_map(|wanted| {
            let places = self.places(wanted).ok()?;
            let asked = places.clone().take_while(is_missing).count() as u64;
            if asked == 0 {
                return None;
            }
            // What is beside a page that is needed is needed soon.
            let behind = (places.start + asked..self.end_of_run(places.start))
                .take_while(|place| !self.known.contains_key(place))
                .take(PIECE.saturating_sub(asked) as usize)
                .count() as u64;
            Some(Span {
                pages: (asked + behind).min(MOST_PAGES),
                ..*wanted
            })
        })
    }

    /// Where nobody has asked for a part of it since.
    fn asked_at_first(&mut self, window: u64) -> Option<Span> {
        while self.pages_under_way < window
            && let Some(span) = self.at_first.pop_front()
        {
            let mut places = self.places(&span).ok()?;
            if !places.any(|place| self.known.contains_key(&place)) {
                return Some(span);
            }
        }
        None
    }

    /// What CRIU will ask for: for the container, and by itself.
    fn prepaged(&mut self, window: u64) -> Option<Span> {
        let start = self.goes_on_at?;
        if self.pages_under_way >= window {
            return None;
        }
        if let Some((_, piece)) = self.piece(&self.next_to_a_fault) {
            return Some(piece);
        }
        let end = start.saturating_add(AHEAD).min(self.end());
        if !(start..=end).contains(&self.ahead) {
            self.ahead = start;
        }
        // What was passed over is known, and is not looked at again.
        let piece = self.piece(&(self.ahead..end));
        self.ahead = piece.map_or(end, |(behind, _)| behind);
        piece.map(|(_, piece)| piece)
    }

    /// The first pages among these of which nothing is known, as many as are asked for at once, and
    /// the place behind them.
    fn piece(&self, places: &Range<u64>) -> Option<(u64, Span)> {
        let is_unknown = |place: &u64| !self.known.contains_key(place);
        let mut places = places.start..places.end.min(self.end());
        let first = places.find(is_unknown)?;
        let run = self.run_of(first)?;
        let pages = (first..run.first + run.span.pages)
            .take_while(is_unknown)
            .take(PIECE as usize)
            .count() as u64;
        let piece = Span {
            address: run.span.address + (first - run.first) * PAGE as u64,
            pages,
            ..run.span
        };
        Some((first + pages, piece))
    }

    /// The source answers: these are the pages that it gives.
    ///
    /// # Errors
    /// Where it gives others than it was asked for.
    fn come(&mut self, given: Span, mut pages: impl Buf) -> Result<(), String> {
        let Some(request) = self.under_way.pop_front() else {
            return Err("the source gives pages that it was not asked for".to_owned());
        };
        self.pages_under_way -= request.pages;
        // It may give fewer, where its own pieces of memory end.
        let is_answer = given.image == request.image
            && given.address == request.address
            && (1..=request.pages).contains(&given.pages);
        if !is_answer {
            return Err(format!(
                "the source was asked for {request:?}, and gives {given:?}"
            ));
        }
        let given_places = self.places(&given)?;
        for place in self.places(&request)? {
            if !given_places.contains(&place) {
                self.known.remove(&place);
                continue;
            }
            let mut page = Box::new([0; PAGE]);
            pages
                .try_copy_to_slice(page.as_mut_slice())
                .map_err(|_| "the source gives pages that are not whole".to_owned())?;
            self.known.insert(place, Page::Here(page));
        }
        if given.pages < request.pages {
            // The rest is asked for ahead.
            self.ahead = self.ahead.min(given_places.end);
        }
        Ok(())
    }

    /// The next answer to CRIU, if there is one: what it is for and its pages. It may be for fewer
    /// pages than CRIU asked for, which then asks for the rest.
    fn next_answer(&mut self) -> Option<(Span, Vec<Box<[u8; PAGE]>>)> {
        let wanted = *self.asked.front()?;
        let mut pages = Vec::new();
        for place in self.places(&wanted).ok()? {
            match self.known.remove(&place) {
                Some(Page::Here(page)) => {
                    self.known.insert(place, Page::Given);
                    pages.push(page);
                }
                Some(other) => {
                    self.known.insert(place, other);
                    break;
                }
                None => break,
            }
        }
        if pages.is_empty() {
            return None;
        }
        self.asked.pop_front();
        let given = Span {
            pages: pages.len() as u64,
            ..wanted
        };
        Some((given, pages))
    }

    /// The places of pages that follow each other.
    fn places(&self, span: &Span) -> Result<Range<u64>, String> {
        let none = || format!("CRIU asks for {span:?}, and its images say nothing of them");
        let at = self.runs.partition_point(|run| {
            (run.span.image, run.span.address) <= (span.image, span.address)
        });
        let run = at
            .checked_sub(1)
            .and_then(|at| self.runs.get(at))
            .filter(|run| run.span.image == span.image)
            .ok_or_else(none)?;
        let offset = span.address - run.span.address;
        let before = offset / PAGE as u64;
        let is_within = offset.is_multiple_of(PAGE as u64)
            && span.pages > 0
            && before
                .checked_add(span.pages)
                .is_some_and(|end| end <= run.span.pages);
        if !is_within {
            return Err(none());
        }
        let start = run.first + before;
        Ok(start..start + span.pages)
    }

    fn run_of(&self, place: u64) -> Option<Run> {
        let at = self.runs.partition_point(|run| run.first <= place);
        self.runs.get(at.checked_sub(1)?).copied()
    }

    fn end_of_run(&self, place: u64) -> u64 {
        self.run_of(place)
            .map_or(place, |run| run.first + run.span.pages)
    }

    fn end(&self) -> u64 {
        self.runs.last().map_or(0, |run| run.first + run.span.pages)
    }
}

fn end(span: &Span) -> u64 {
    span.address + span.pages * PAGE as u64
}

/// Passes pages from the source on to CRIU, until CRIU has all of them and the source has ended.
///
/// # Errors
/// Where either ends before that, or says what it should not.
pub async fn pass<N, F>(
    near: N,
    far: F,
    mut prepager: Prepager,
    layout: Layout,
) -> Result<(), String>
where
    N: AsyncRead + AsyncWrite,
    F: AsyncRead + AsyncWrite,
{
    let near_failed = |error: std::io::Error| format!("the way to CRIU: {error}");
    let far_failed = |error: std::io::Error| format!("the way to the source: {error}");
    let (mut near_reader, mut near_writer) = tokio::io::split(near);
    let (mut far_reader, mut far_writer) = tokio::io::split(far);
    let (mut said, mut given) = (BytesMut::new(), BytesMut::new());
    let (mut link, mut is_closed) = (Link::default(), false);
    // Whoever reads here waits for what was written. That may be, for CRIU reads while it asks, and
    // what is asked for is so little that it never waits for a source that writes.
    let mut requests = Vec::new();
    loop {
        while !is_closed && let Some(request) = prepager.next_request(link.window()) {
            link.ask(Instant::now());
            layout.write(Message::Get(request), &mut requests);
        }
        far_writer.write_all(&requests).await.map_err(far_failed)?;
        far_writer.flush().await.map_err(far_failed)?;
        requests.clear();
        if is_closed && prepager.under_way.is_empty() {
            break;
        }
        let read = tokio::select! {
            read = near_reader.read_buf(&mut said), if !is_closed => read.map_err(near_failed)?,
            read = far_reader.read_buf(&mut given) => read.map_err(far_failed)?,
        };
        if read == 0 {
            return Err("pages stopped coming before all were here".to_owned());
        }
        given.reserve(READ);
        let mut answers = Vec::new();
        while let Some(message) = take(&mut said, layout)? {
            match message {
                Message::Get(wanted) => prepager.ask(wanted)?,
                Message::Close => {
                    is_closed = true;
                    layout.write(Message::Close, &mut requests);
                }
                Message::Add(_) => return Err("CRIU gives pages to the source".to_owned()),
            }
        }
        while let Some((span, pages)) = take_pages(&mut given, layout)? {
            link.come(Instant::now(), span.pages);
            prepager.come(span, pages)?;
        }
        while let Some((span, pages)) = prepager.next_answer() {
            layout.write(Message::Add(span), &mut answers);
            for page in pages {
                answers.extend_from_slice(page.as_slice());
            }
        }
        near_writer.write_all(&answers).await.map_err(near_failed)?;
    }
    // What the page server answers to the last word, and then nothing.
    near_writer.write_all(&given).await.map_err(near_failed)?;
    tokio::io::copy(&mut far_reader, &mut near_writer)
        .await
        .map(drop)
        .map_err(|error| format!("the last word of the source: {error}"))
}

/// Takes a message of CRIU's, once all of it is there.
fn take(said: &mut BytesMut, layout: Layout) -> Result<Option<Message>, String> {
    if said.len() < layout.size() {
        return Ok(None);
    }
    layout.read(&said.split_to(layout.size())).map(Some)
}

/// Takes an answer of the source's, once all of it is there.
fn take_pages(given: &mut BytesMut, layout: Layout) -> Result<Option<(Span, BytesMut)>, String> {
    let Some(head) = given.get(..layout.size()) else {
        return Ok(None);
    };
    let Message::Add(span) = layout.read(head)? else {
        return Err("the source asks CRIU".to_owned());
    };
    if span.pages > MOST_PAGES {
        return Err(format!("the source gives {} pages at once", span.pages));
    }
    let size = layout.size() + span.pages as usize * PAGE;
    if given.len() < size {
        return Ok(None);
    }
    let mut answer = given.split_to(size);
    answer.advance(layout.size());
    Ok(Some((span, answer)))
}

#[cfg(test)]
mod tests;
