//! What is sent to a container while it stands still.
//!
//! Its veth is off the bridge then, and what comes for it would be lost: whoever sent it by TCP
//! sends it again after 200 ms at the earliest (RFC 6298, Linux's bound), and so waits for longer
//! than the container stands still; by UDP nobody does. So frames are kept, up to the end of the
//! dump, go over with the images, and are handed to the container before it runs on, here or there.
//! What comes later, until the network knows where the container is now, is lost.
//!
//! Nothing depends on it: where it fails, what was sent is lost as it was before. A frame may come
//! twice, as in any network.

use std::fs;
use std::io::{self, ErrorKind};
use std::mem::size_of;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::Path;

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, socket};

use super::definition::Mac;
use super::network;
use crate::runtime::ContainerName;

/// The file among the images: frames, each after its size.
const FILE: &str = "frames";
/// As much is kept at most, in bytes; the kernel counts more for each frame than its own size.
const MOST: libc::c_int = 1 << 20;
/// The largest frame, with what the kernel knows of its checksum and its parts before it.
const FRAME: usize = 65_536 + 256;

/// Keeps the frames for one container.
#[derive(Debug)]
pub struct Kept {
    socket: PacketSocket,
}

/// A socket for whole frames.
#[derive(Debug)]
struct PacketSocket(Option<OwnedFd>);

impl Drop for PacketSocket {
    /// The kernel takes 10 ms for that, for which nobody waits.
    fn drop(&mut self) {
        let socket = self.0.take();
        std::thread::spawn(move || drop(socket));
    }
}

impl AsRawFd for PacketSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_ref().map_or(-1, AsRawFd::as_raw_fd)
    }
}

impl Kept {
    /// From now on, those for `mac`: what comes by any interface of this host, and what the host
    /// itself says on `bridge`.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn begin(mac: Mac, bridge: &str) -> io::Result<Self> {
        let Mac([a, b, c, d, e, f]) = mac;
        let socket = packet_socket()?;
        let step = |code: u32, jt, jf, k| libc::sock_filter {
            code: code as u16,
            jt,
            jf,
            k,
        };
        let of_packet = |what: libc::c_int| (libc::SKF_AD_OFF + what).cast_unsigned();
        let load_word = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
        let load_half = libc::BPF_LD | libc::BPF_H | libc::BPF_ABS;
        let is_equal = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
        let give = libc::BPF_RET | libc::BPF_K;
        let mut filter = [
            // What leaves by another interface has been seen before.
            step(load_word, 0, 0, of_packet(libc::SKF_AD_PKTTYPE)),
            step(is_equal, 0, 2, u32::from(libc::PACKET_OUTGOING)),
            step(load_word, 0, 0, of_packet(libc::SKF_AD_IFINDEX)),
            step(is_equal, 0, 5, network::index(bridge)?.cast_unsigned()),
            step(load_word, 0, 0, 0),
            step(is_equal, 0, 3, u32::from_be_bytes([a, b, c, d])),
            step(load_half, 0, 0, 4),
            step(is_equal, 0, 1, u32::from(u16::from_be_bytes([e, f]))),
            step(give, 0, 0, u32::MAX),
            step(give, 0, 0, 0),
        ];
        let program = libc::sock_fprog {
            len: filter.len() as u16,
            filter: filter.as_mut_ptr(),
        };
        set(&socket, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program)?;
        set(&socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, &MOST)?;
        // Only now does anything come.
        let place = at_interface(0);
        #[expect(
            unsafe_code,
            reason = "the kernel reads the address, which is that long"
        )]
        Errno::result(unsafe {
            libc::bind(
                socket.as_raw_fd(),
                (&raw const place).cast(),
                size_of::<libc::sockaddr_ll>() as libc::socklen_t,
            )
        })?;
        Ok(Self { socket })
    }

    /// What has come until now counts for nothing.
    pub fn forget(&self) {
        drop(self.take());
    }

    /// What has come since it was asked last.
    pub fn take(&self) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        let mut buffer = vec![0; FRAME];
        while let Ok(size) = recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
            frames.push(buffer.get(..size).unwrap_or_default().to_vec());
        }
        frames
    }
}

/// What was sent to a container that stood still is lost, as in a network that loses frames.
pub fn are_lost(name: &ContainerName, error: &io::Error) {
    tracing::warn!(container = %name, %error, "what was sent to it meanwhile is lost");
}

/// Writes frames down among the images.
///
/// # Errors
/// Where that fails.
pub fn save(frames: &[Vec<u8>], images: &Path) -> io::Result<()> {
    let mut text = Vec::new();
    for frame in frames {
        text.extend((frame.len() as u32).to_le_bytes());
        text.extend(frame);
    }
    fs::write(images.join(FILE), text)
}

/// Reads what [`save`] wrote, if anything.
///
/// # Errors
/// Where it is there, and is not that.
pub fn load(images: &Path) -> io::Result<Vec<Vec<u8>>> {
    let text = match fs::read(images.join(FILE)) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        read => read?,
    };
    let mut rest = text.as_slice();
    let mut frames = Vec::new();
    while let Some((size, after)) = rest.split_first_chunk() {
        let size = u32::from_le_bytes(*size) as usize;
        let Some((frame, after)) = after.split_at_checked(size) else {
            return Err(io::Error::other("frames are cut off"));
        };
        frames.push(frame.to_vec());
        rest = after;
    }
    Ok(frames)
}

/// Hands frames to the container behind `interface`, the host's end of its veth.
///
/// # Errors
/// What the kernel refuses.
pub fn hand_in(frames: &[Vec<u8>], interface: &str) -> io::Result<()> {
    if frames.is_empty() {
        return Ok(());
    }
    let socket = packet_socket()?;
    let place = at_interface(network::index(interface)?);
    for frame in frames {
        #[expect(
            unsafe_code,
            reason = "the kernel reads the frame and the address, which are that long"
        )]
        Errno::result(unsafe {
            libc::sendto(
                socket.as_raw_fd(),
                frame.as_ptr().cast(),
                frame.len(),
                libc::MSG_DONTWAIT,
                (&raw const place).cast(),
                size_of::<libc::sockaddr_ll>() as libc::socklen_t,
            )
        })?;
    }
    Ok(())
}

/// A socket for whole frames, by which nothing comes until it is bound. Before each frame stands
/// what the kernel knows of it (`virtio_net_hdr`): whoever sends on the same machine leaves its
/// checksum to a network card that there is not.
fn packet_socket() -> io::Result<PacketSocket> {
    let socket = socket(
        AddressFamily::Packet,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        None,
    )?;
    let socket = PacketSocket(Some(socket));
    set(&socket, libc::SOL_PACKET, libc::PACKET_VNET_HDR, &1)?;
    Ok(socket)
}

/// Every protocol, at an interface; 0: at all.
fn at_interface(index: i32) -> libc::sockaddr_ll {
    libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: (libc::ETH_P_ALL as u16).to_be(),
        sll_ifindex: index,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    }
}

fn set<T>(socket: &PacketSocket, level: i32, option: i32, value: &T) -> io::Result<()> {
    #[expect(unsafe_code, reason = "the kernel reads the value, which is that long")]
    Errno::result(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            std::ptr::from_ref(value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_read_as_they_were_written() {
        let images = tempfile::tempdir().unwrap();
        assert!(load(images.path()).unwrap().is_empty());
        let frames = vec![vec![1, 2, 3], Vec::new(), vec![0; 70_000]];
        save(&frames, images.path()).unwrap();
        assert_eq!(load(images.path()).unwrap(), frames);
        let whole = fs::read(images.path().join(FILE)).unwrap();
        fs::write(images.path().join(FILE), &whole[..whole.len() - 1]).unwrap();
        assert!(load(images.path()).is_err());
    }
}
