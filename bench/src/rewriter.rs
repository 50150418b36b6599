//! What the benchmark of hand-overs moves: a program that rewrites all of its memory over and over,
//! sees whether it finds what it wrote, and answers whoever asks.
//!
//! ```text
//! carnet-bench-rewriter MEGABYTES PORT
//!
//! asked by TCP:  one byte
//! answers:       how many it has answered (8 bytes), how many pages it has rewritten (8 bytes),
//!                0, or 1 where it did not find what it wrote; numbers are little-endian
//! ```

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Words of 8 bytes in a page.
const PAGE: usize = 512;
/// Pages rewritten without a pause.
const BURST: usize = 256;
/// The pause after them: about a gigabyte is rewritten in a second, by a fraction of one core.
const PAUSE: Duration = Duration::from_millis(1);

#[derive(Default)]
struct State {
    answers: AtomicU64,
    pages: AtomicU64,
    is_wrong: AtomicBool,
}

fn main() -> ExitCode {
    let mut arguments = std::env::args()
        .skip(1)
        .map_while(|word| word.parse::<usize>().ok());
    let (Some(megabytes), Some(port)) = (
        arguments.next(),
        arguments.next().and_then(|port| u16::try_from(port).ok()),
    ) else {
        eprintln!("carnet-bench-rewriter MEGABYTES PORT");
        return ExitCode::FAILURE;
    };
    let state = Arc::new(State::default());
    let mut memory = vec![0; megabytes * 1_000_000 / 8 / PAGE * PAGE];
    for (number, page) in memory.chunks_mut(PAGE).enumerate() {
        fill(page, number, 0);
    }
    let listener = match TcpListener::bind(("0.0.0.0", port)) {
        Ok(listener) => listener,
        Err(error) => {
            eprintln!("carnet-bench-rewriter: port {port}: {error}");
            return ExitCode::FAILURE;
        }
    };
    let answering = state.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let state = answering.clone();
            std::thread::spawn(move || answer(stream, &state));
        }
    });
    rewrite(&mut memory, &state)
}

fn rewrite(memory: &mut [u64], state: &State) -> ! {
    let mut round = 0;
    loop {
        for (burst, pages) in memory.chunks_mut(PAGE * BURST).enumerate() {
            for (number, page) in pages.chunks_mut(PAGE).enumerate() {
                let number = burst * BURST + number;
                if !is_filled(page, number, round) {
                    state.is_wrong.store(true, Ordering::Relaxed);
                }
                fill(page, number, round + 1);
                state.pages.fetch_add(1, Ordering::Relaxed);
            }
            std::thread::sleep(PAUSE);
        }
        round += 1;
    }
}

fn answer(mut stream: TcpStream, state: &State) {
    let mut asked = [0];
    while stream.set_nodelay(true).is_ok() && stream.read_exact(&mut asked).is_ok() {
        let mut told = Vec::with_capacity(17);
        let answers = state.answers.fetch_add(1, Ordering::Relaxed) + 1;
        told.extend(answers.to_le_bytes());
        told.extend(state.pages.load(Ordering::Relaxed).to_le_bytes());
        told.push(u8::from(state.is_wrong.load(Ordering::Relaxed)));
        if stream.write_all(&told).is_err() {
            return;
        }
    }
}

fn fill(page: &mut [u64], number: usize, round: u64) {
    for (word, expected) in page.iter_mut().zip(words(number, round)) {
        *word = expected;
    }
}

fn is_filled(page: &[u64], number: usize, round: u64) -> bool {
    page.iter()
        .copied()
        .eq(words(number, round).take(page.len()))
}

/// What a page holds in a round: nothing that compresses (splitmix64).
fn words(number: usize, round: u64) -> impl Iterator<Item = u64> {
    const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut state = (number as u64) << 32 ^ round.wrapping_mul(GAMMA) << 9;
    std::iter::repeat_with(move || {
        state = state.wrapping_add(GAMMA);
        let mixed = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    })
}
