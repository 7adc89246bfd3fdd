//! Frame Streams, the sender's side of a bidirectional stream
//! (farsightsec.github.io/fstrm: control frames `READY`, `ACCEPT`, `START`, `STOP`, `FINISH`).
//!
//! Owns the framing of control frames and the order of the handshake. Data frames come ready made.

use std::io::{self, Read, Write};

/// What the frames hold.
const CONTENT_TYPE: &[u8] = b"protobuf:dnstap.Dnstap";

/// The greatest length of a control frame in octets (fstrm's own bound).
const CONTROL_MOST: usize = 512;

/// The field of a control frame that names a content type.
const FIELD_CONTENT_TYPE: u32 = 1;

const ACCEPT: u32 = 1;
const START: u32 = 2;
const STOP: u32 = 3;
const READY: u32 = 4;
const FINISH: u32 = 5;

/// Agrees with the collector on what comes: READY, ACCEPT, START. Afterwards data frames follow.
pub(super) fn open(stream: &mut (impl Read + Write)) -> io::Result<()> {
    stream.write_all(&control(READY, CONTENT_TYPE))?;
    stream.flush()?;
    let accepted = receive(stream)?;
    if word(&accepted, 0) != Some(ACCEPT) {
        return Err(malformed("no ACCEPT frame"));
    }
    if !accepts(&accepted) {
        return Err(malformed("the collector takes other content"));
    }
    stream.write_all(&control(START, CONTENT_TYPE))?;
    stream.flush()
}

/// Says that nothing more comes, and waits until the collector has seen it.
pub(super) fn close(stream: &mut (impl Read + Write)) -> io::Result<()> {
    stream.write_all(&control(STOP, &[]))?;
    stream.flush()?;
    match word(&receive(stream)?, 0) {
        Some(FINISH) => Ok(()),
        _ => Err(malformed("no FINISH frame")),
    }
}

/// An escape, the length, the type, and the content type where there is one.
fn control(kind: u32, content: &[u8]) -> Vec<u8> {
    let mut body = kind.to_be_bytes().to_vec();
    if !content.is_empty() {
        body.extend_from_slice(&FIELD_CONTENT_TYPE.to_be_bytes());
        body.extend_from_slice(&(content.len() as u32).to_be_bytes());
        body.extend_from_slice(content);
    }
    let mut frame = vec![0; 4];
    frame.extend_from_slice(&(body.len() as u32).to_be_bytes());
    frame.extend_from_slice(&body);
    frame
}

/// The body of the next frame, which must be a control frame.
fn receive(stream: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut head = [0; 8];
    stream.read_exact(&mut head)?;
    let length = word(&head, 4).unwrap_or_default() as usize;
    if word(&head, 0) != Some(0) || !(4..=CONTROL_MOST).contains(&length) {
        return Err(malformed("no control frame"));
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok(body)
}

/// Whether an ACCEPT frame names our content type, or none at all.
fn accepts(body: &[u8]) -> bool {
    let mut rest = body.get(4..).unwrap_or_default();
    if rest.is_empty() {
        return true;
    }
    while let (Some(field), Some(length)) = (word(rest, 0), word(rest, 4)) {
        let Some(behind) = rest.get(8..) else { return false };
        let Some((value, next)) = behind.split_at_checked(length as usize) else { return false };
        if field == FIELD_CONTENT_TYPE && value == CONTENT_TYPE {
            return true;
        }
        rest = next;
    }
    false
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk::<4>()?))
}

fn malformed(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("frame stream: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    /// Reads from one side and remembers what is written.
    struct Peer {
        says: Cursor<Vec<u8>>,
        heard: Vec<u8>,
    }

    impl Read for Peer {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.says.read(buffer)
        }
    }

    impl Write for Peer {
        fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
            self.heard.write(buffer)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn peer(says: &[u8]) -> Peer {
        Peer { says: Cursor::new(says.to_vec()), heard: Vec::new() }
    }

    #[test]
    fn the_handshake_is_ready_accept_start() {
        let mut collector = peer(&control(ACCEPT, CONTENT_TYPE));
        open(&mut collector).unwrap();
        let ready = b"\0\0\0\0\0\0\0\x22\0\0\0\x04\0\0\0\x01\0\0\0\x16protobuf:dnstap.Dnstap";
        let start = b"\0\0\0\0\0\0\0\x22\0\0\0\x02\0\0\0\x01\0\0\0\x16protobuf:dnstap.Dnstap";
        assert_eq!(collector.heard, [ready.as_slice(), start].concat());
    }

    #[test]
    fn stop_waits_for_finish() {
        let mut collector = peer(&control(FINISH, &[]));
        close(&mut collector).unwrap();
        assert_eq!(collector.heard, b"\0\0\0\0\0\0\0\x04\0\0\0\x03");
        assert!(close(&mut peer(&control(ACCEPT, &[]))).is_err());
        assert!(close(&mut peer(&[])).is_err());
    }

    #[test]
    fn a_collector_may_name_several_contents_or_none() {
        let mut several = control(ACCEPT, b"other");
        let ours = control(ACCEPT, CONTENT_TYPE);
        several.extend_from_slice(&ours[12..]);
        let length = (several.len() - 8) as u32;
        several[4..8].copy_from_slice(&length.to_be_bytes());
        assert!(open(&mut peer(&several)).is_ok());
        assert!(open(&mut peer(&control(ACCEPT, &[]))).is_ok());
    }

    #[test]
    fn anything_else_is_an_error() {
        let mut of_another_field = control(ACCEPT, CONTENT_TYPE);
        of_another_field[15] = 2;
        for (says, why) in [
            (control(ACCEPT, b"other"), "frame stream: the collector takes other content"),
            (control(FINISH, &[]), "frame stream: no ACCEPT frame"),
            (b"HTTP/1.1 400".to_vec(), "frame stream: no control frame"),
            (b"\0\0\0\0\xff\xff\xff\xff".to_vec(), "frame stream: no control frame"),
            (b"\0\0\0\0\0\0\0\x02\0\0".to_vec(), "frame stream: no control frame"),
            (b"\0\0\0\x04\0\0\0\x04\0\0\0\x01".to_vec(), "frame stream: no control frame"),
            (of_another_field, "frame stream: the collector takes other content"),
        ] {
            assert_eq!(open(&mut peer(&says)).unwrap_err().to_string(), why);
        }
        let mut cut = control(ACCEPT, CONTENT_TYPE);
        let length = cut.len();
        cut[length - 23] = 0xff;
        assert!(open(&mut peer(&cut)).is_err());
    }
}
