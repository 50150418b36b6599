//! The prepager against a page server and a CRIU that do all that the real ones may.

use proptest::collection::vec;
use proptest::prelude::*;
use tokio::io::DuplexStream;

use super::*;

/// What every page has in it: no two are alike.
fn contents(image: u64, address: u64) -> Vec<u8> {
    let mut page = Vec::with_capacity(PAGE);
    while page.len() < PAGE {
        page.extend(image.to_le_bytes());
        page.extend((address + page.len() as u64).to_le_bytes());
    }
    page
}

fn contents_of(span: &Span) -> Vec<u8> {
    (0..span.pages)
        .flat_map(|page| contents(span.image, span.address + page * PAGE as u64))
        .collect()
}

/// Processes with pages that follow, in runs with nothing between some of them.
fn memory() -> impl Strategy<Value = Vec<Span>> {
    let run = (0_u64..3, 1_u64..40);
    vec(vec(run, 0..8), 1..4).prop_map(|processes| {
        let mut spans = Vec::new();
        for (image, runs) in processes.into_iter().enumerate() {
            let mut address = 0x10_000;
            for (gap, pages) in runs {
                address += gap * PAGE as u64;
                spans.push(Span {
                    image: image as u64 * 3 + 1,
                    address,
                    pages,
                });
                address += pages * PAGE as u64;
            }
        }
        spans
    })
}

/// What CRIU asks for: which run, from where in it, how many pages; each as a part of what there is.
type Ask = (
    prop::sample::Index,
    prop::sample::Index,
    prop::sample::Index,
);

fn span_of((run, start, pages): &Ask, memory: &[Span]) -> Span {
    let run = run.get(memory);
    let start = start.index(run.pages as usize) as u64;
    Span {
        image: run.image,
        address: run.address + start * PAGE as u64,
        pages: 1 + pages.index((run.pages - start) as usize) as u64,
    }
}

/// What the page server gives: no more than is left of one of its own pieces, of so many pages.
fn given_for(request: Span, piece: u64) -> Span {
    let page = request.address / PAGE as u64;
    Span {
        pages: request.pages.min(piece - page % piece),
        ..request
    }
}

proptest! {
    /// Whatever CRIU asks for, in whatever order, it is answered in that order, with the right
    /// pages; the source is asked only for what it has, and never for much that nobody asked for.
    #[test]
    fn criu_gets_what_it_asks_for(
        memory in memory(),
        window in 1_u64..200,
        asks in vec(any::<Ask>(), 1..60),
        turns in vec(0..3_u8, 1..200),
        piece in 1_u64..40,
    ) {
        prop_assume!(!memory.is_empty());
        let mut prepager = Prepager::new(memory.clone()).unwrap();
        let mut asks = asks.iter().map(|ask| span_of(ask, &memory));
        let mut waiting: VecDeque<Span> = VecDeque::new();
        let mut requests: VecDeque<Span> = VecDeque::new();
        // Everybody has a turn.
        let mut turns = turns.iter().chain(&[0, 1, 2]).cycle();
        loop {
            match turns.next() {
                Some(0) => {
                    if let Some(ask) = asks.next() {
                        prepager.ask(ask).unwrap();
                        waiting.push_back(ask);
                    }
                }
                Some(1) => {
                    if let Some(request) = prepager.next_request(window) {
                        let run = memory.iter().find(|run| {
                            run.image == request.image
                                && (run.address..end(run)).contains(&request.address)
                        });
                        prop_assert!(run.is_some_and(|run| end(&request) <= end(run)));
                        prop_assert!((1..=MOST_PAGES).contains(&request.pages));
                        requests.push_back(request);
                    } else if requests.is_empty() && waiting.is_empty() {
                        match asks.next() {
                            None => break,
                            Some(ask) => {
                                prepager.ask(ask).unwrap();
                                waiting.push_back(ask);
                            }
                        }
                    } else {
                        prop_assert!(!requests.is_empty(), "nobody does anything for {waiting:?}");
                    }
                }
                _ => {
                    if let Some(request) = requests.pop_front() {
                        let given = given_for(request, piece);
                        prepager.come(given, contents_of(&given).as_slice()).unwrap();
                    }
                }
            }
            let asked: u64 = waiting.iter().map(|wanted| wanted.pages.max(PIECE)).sum();
            let under_way: u64 = requests.iter().map(|request| request.pages).sum();
            prop_assert!(under_way < asked + window + PIECE);
            while let Some((given, pages)) = prepager.next_answer() {
                let wanted = waiting.pop_front().unwrap();
                prop_assert_eq!(given, Span { pages: given.pages, ..wanted });
                prop_assert!((1..=wanted.pages).contains(&given.pages));
                prop_assert_eq!(pages.len() as u64, given.pages);
                let pages: Vec<u8> = pages.iter().flat_map(|page| page.to_vec()).collect();
                prop_assert!(pages == contents_of(&given), "{given:?} got other pages");
            }
        }
    }

    /// A CRIU that goes through all pages by itself gets each over the link once, whatever else the
    /// container asks for meanwhile.
    #[test]
    fn each_page_comes_once(
        memory in memory(),
        faults in vec(proptest::option::of((any::<prop::sample::Index>(), any::<prop::sample::Index>())), 1..50),
        piece in 1_u64..40,
        at_once in 2_u64..40,
        window in 1_u64..200,
    ) {
        let mut prepager = Prepager::new(memory.clone()).unwrap();
        let mut missing: Vec<(u64, u64)> = memory
            .iter()
            .flat_map(|run| (0..run.pages).map(|page| (run.image, run.address + page * PAGE as u64)))
            .collect();
        let all = missing.len() as u64;
        let (mut came, mut faults) = (0, faults.into_iter().cycle());
        while let Some(&(image, address)) = missing.first() {
            let mut asked = Vec::new();
            // By itself: what follows, as long as CRIU does not have it.
            let pages = missing
                .iter()
                .zip(0..at_once)
                .take_while(|((its, at), page)| {
                    let run = memory.iter().find(|run| run.image == image && (run.address..end(run)).contains(&address));
                    *its == image && *at == address + page * PAGE as u64 && run.is_some_and(|run| *at < end(run))
                })
                .count() as u64;
            asked.push(Span { image, address, pages });
            if let Some(Some((at, _))) = faults.next() {
                let (image, address) = *at.get(&missing);
                if address >= end(&asked[0]) || image != asked[0].image {
                    asked.push(Span { image, address, pages: 1 });
                }
            }
            for span in &asked {
                prepager.ask(*span).unwrap();
            }
            loop {
                while let Some((given, _)) = prepager.next_answer() {
                    missing.retain(|(image, address)| {
                        *image != given.image || !(given.address..end(&given)).contains(address)
                    });
                }
                if prepager.asked.is_empty() {
                    break;
                }
                while prepager.next_request(window).is_some() {}
                let request = *prepager.under_way.front().unwrap();
                let given = given_for(request, piece);
                prepager.come(given, contents_of(&given).as_slice()).unwrap();
                came += given.pages;
            }
        }
        while let Some(request) = prepager.under_way.pop_front() {
            came += request.pages;
        }
        prop_assert_eq!(came, all);
    }
}

/// Before CRIU asks for anything: the smallest pieces first, as many as the window holds at a time.
#[test]
fn small_pieces_are_asked_for_at_first() {
    let run = |address, pages| Span {
        image: 1,
        address,
        pages,
    };
    let small = [run(0x10_000, 3), run(0x20_000, PIECE), run(0x50_000, 1)];
    let mut memory = small.to_vec();
    memory.push(run(0x80_000, PIECE + 1));
    let mut prepager = Prepager::new(memory).unwrap();
    assert_eq!(prepager.next_request(4), Some(small[2]));
    assert_eq!(prepager.next_request(4), Some(small[0]));
    assert_eq!(prepager.next_request(4), None);
    // What CRIU asks for meanwhile is not asked for twice.
    prepager
        .ask(Span {
            pages: 1,
            ..small[1]
        })
        .unwrap();
    assert_eq!(prepager.next_request(4), Some(small[1]));
    assert_eq!(prepager.next_request(100), None);

    let many = (0..1_000).map(|number| run(number * 0x10_000, PIECE));
    let mut prepager = Prepager::new(many.collect()).unwrap();
    let asked = std::iter::from_fn(|| prepager.next_request(u64::MAX));
    assert_eq!(asked.map(|span| span.pages).sum::<u64>(), AT_FIRST);
}

#[test]
fn what_comes_must_be_what_was_asked_for() {
    let memory = Span {
        image: 1,
        address: 0x10_000,
        pages: 8,
    };
    let asked = Span { pages: 2, ..memory };
    let wrong = [
        Span { image: 2, ..asked },
        Span {
            address: 0x11_000,
            ..asked
        },
        Span { pages: 0, ..asked },
        Span { pages: 9, ..asked },
    ];
    for given in wrong {
        let mut prepager = Prepager::new(vec![memory]).unwrap();
        prepager.ask(asked).unwrap();
        assert!(prepager.next_request(0).is_some());
        assert!(
            prepager
                .come(given, contents_of(&given).as_slice())
                .is_err()
        );
    }
    let mut prepager = Prepager::new(vec![memory]).unwrap();
    assert!(
        prepager
            .come(asked, contents_of(&asked).as_slice())
            .is_err()
    );
    for beyond in [
        Span {
            address: 0xf000,
            ..asked
        },
        Span {
            address: 0x17_000,
            ..asked
        },
        Span {
            address: 0x10_001,
            ..asked
        },
        Span {
            pages: u64::MAX,
            ..asked
        },
        Span { image: 3, ..asked },
    ] {
        assert!(prepager.ask(beyond).is_err(), "{beyond:?}");
    }
    assert!(Prepager::new(vec![memory, asked]).is_err());
}

/// A page server on the other side of `far`, until it is told to end.
async fn serve(mut far: DuplexStream, layout: Layout, piece: u64) {
    let mut head = vec![0; layout.size()];
    loop {
        far.read_exact(&mut head).await.unwrap();
        let mut answer = Vec::new();
        match layout.read(&head).unwrap() {
            Message::Get(request) => {
                let given = given_for(request, piece);
                layout.write(Message::Add(given), &mut answer);
                answer.extend(contents_of(&given));
                far.write_all(&answer).await.unwrap();
            }
            Message::Close => return far.write_all(&[0; 4]).await.unwrap(),
            Message::Add(_) => panic!("pages for the page server"),
        }
    }
}

/// A CRIU that goes through a process's memory and asks for a page in between.
async fn ask_for_all(mut near: DuplexStream, layout: Layout, memory: Span) {
    let mut address = memory.address;
    let mut head = vec![0; layout.size()];
    while address < end(&memory) {
        let left = (end(&memory) - address) / PAGE as u64;
        let by_itself = Span {
            address,
            pages: left.min(16),
            ..memory
        };
        let fault = Span {
            address: end(&memory) - PAGE as u64,
            pages: 1,
            ..memory
        };
        let mut asked = Vec::new();
        layout.write(Message::Get(by_itself), &mut asked);
        layout.write(Message::Get(fault), &mut asked);
        near.write_all(&asked).await.unwrap();
        for wanted in [by_itself, fault] {
            near.read_exact(&mut head).await.unwrap();
            let Message::Add(given) = layout.read(&head).unwrap() else {
                panic!("no pages");
            };
            assert_eq!((given.image, given.address), (wanted.image, wanted.address));
            let mut pages = vec![0; given.pages as usize * PAGE];
            near.read_exact(&mut pages).await.unwrap();
            assert!(pages == contents_of(&given));
            if wanted == by_itself {
                address += given.pages * PAGE as u64;
            }
        }
    }
    let mut close = Vec::new();
    layout.write(Message::Close, &mut close);
    near.write_all(&close).await.unwrap();
    let mut last = Vec::new();
    near.read_to_end(&mut last).await.unwrap();
    assert_eq!(last, [0; 4]);
}

const MEMORY: Span = Span {
    image: 7,
    address: 0x7f00_0000_0000,
    pages: 3_000,
};

#[tokio::test]
async fn pages_pass_to_the_end() {
    for layout in [Layout::of((4, 1)), Layout::of((4, 2))] {
        let (near, criu) = tokio::io::duplex(64 << 10);
        let (far, source) = tokio::io::duplex(64 << 10);
        let prepager = Prepager::new(vec![MEMORY]).unwrap();
        let (passed, (), ()) = tokio::join!(
            pass(near, far, prepager, layout),
            ask_for_all(criu, layout, MEMORY),
            serve(source, layout, 100),
        );
        passed.unwrap();
    }
}

#[tokio::test]
async fn a_source_that_ends_is_told() {
    let layout = Layout::Wide;
    let (near, mut criu) = tokio::io::duplex(64 << 10);
    let (far, mut source) = tokio::io::duplex(64 << 10);
    let prepager = Prepager::new(vec![MEMORY]).unwrap();
    let mut asked = Vec::new();
    layout.write(Message::Get(MEMORY), &mut asked);
    criu.write_all(&asked).await.unwrap();
    let cut = async move {
        let mut request = [0; 32];
        source.read_exact(&mut request).await.unwrap();
    };
    let (passed, ()) = tokio::join!(pass(near, far, prepager, layout), cut);
    assert!(passed.unwrap_err().contains("stopped coming"));
}
