//! What the link carries, where nothing is done but to send and to receive.

use std::error::Error;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::time::Instant;

use carnet_lab::host::Host;

const PORT: u16 = 9;
/// How much is sent, in MB.
const MEGABYTES: usize = 500;
/// How much at once, in bytes.
const PIECE: usize = 1_000_000;

type Failure = Box<dyn Error + Send + Sync>;

/// Sends from one host to another; MB of 10⁶ bytes a second, until all has arrived.
pub fn megabytes_per_s(from: &Host, to: &Host) -> Result<f64, Failure> {
    let address = SocketAddr::from((to.address, PORT));
    let enter = to.entry()?;
    // A socket is of the network in which it was made; the thread is thrown away.
    let listener = on_a_thread(move || {
        enter()?;
        Ok(TcpListener::bind(address)?)
    })?;
    let mut stream = from.connect(address)?;
    let (mut arriving, _) = listener.accept()?;
    let begun = Instant::now();
    let sending = std::thread::spawn(move || {
        let piece = vec![7; PIECE];
        (0..MEGABYTES).try_for_each(|_| stream.write_all(&piece))
    });
    let mut buffer = vec![0; PIECE];
    while arriving.read(&mut buffer)? != 0 {}
    let took = begun.elapsed();
    sending.join().map_err(|_| "the sender died")??;
    Ok(MEGABYTES as f64 / took.as_secs_f64())
}

fn on_a_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let done = std::thread::spawn(work).join();
    done.map_err(|_| "a thread died")?
}
