//! The framing of netlink: requests, messages, attributes, and what an acknowledgement says.
//!
//! Bytes alone, no socket. What a kind or an attribute means is others' business.

use std::io;

/// Octets of a message's header, `nlmsghdr`.
const HEADER: usize = 16;

/// Octets of an attribute's header, `nlattr`.
const ATTRIBUTE_HEADER: usize = 4;

/// The bits of an attribute's kind that are flags (nested, network byte order).
const ATTRIBUTE_FLAGS: u16 = 0xc000;

/// An attribute that holds attributes (`NLA_F_NESTED`).
const NESTED: u16 = 0x8000;

/// The acknowledgement leaves the request out (`NLM_F_CAPPED`).
const CAPPED: u16 = 0x100;

/// The acknowledgement has attributes (`NLM_F_ACK_TLVS`).
const HAS_TEXT: u16 = 0x200;

/// The attribute of an acknowledgement that has the kernel's words (`NLMSGERR_ATTR_MSG`).
const TEXT: u16 = 1;

/// Why a request was not done.
#[derive(Debug, thiserror::Error)]
#[error("{error}{}", text.as_ref().map(|text| format!(" ({text})")).unwrap_or_default())]
pub struct Refusal {
    /// The system's error; of the kernel's number, or of the socket.
    pub error: io::Error,
    /// What the kernel said beyond the number.
    pub text: Option<String>,
}

impl Refusal {
    /// The kernel's error number, `EEXIST` and so on.
    pub fn number(&self) -> Option<i32> {
        self.error.raw_os_error()
    }
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Refusal {
        Refusal { error, text: None }
    }
}

/// One request under construction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    octets: Vec<u8>,
    pub(super) is_acknowledged: bool,
}

impl Request {
    /// A request of a kind (`RTM_NEWLINK`) with flags (`NLM_F_CREATE`); `NLM_F_REQUEST` is added.
    /// Whoever sends it adds `NLM_F_ACK` or `NLM_F_DUMP`.
    pub fn new(kind: u16, flags: u16) -> Request {
        let mut octets = vec![0; HEADER];
        octets[4..6].copy_from_slice(&kind.to_ne_bytes());
        octets[6..8].copy_from_slice(&(flags | libc::NLM_F_REQUEST as u16).to_ne_bytes());
        Request { octets, is_acknowledged: true }
    }

    /// For what the kernel does not acknowledge by itself: the begin and end of an nftables batch.
    #[must_use]
    pub fn unacknowledged(mut self) -> Request {
        self.is_acknowledged = false;
        self
    }

    /// Appends the fixed part that the kind has (`ifinfomsg`, `nfgenmsg`).
    #[must_use]
    pub fn fixed(mut self, octets: &[u8]) -> Request {
        self.octets.extend_from_slice(octets);
        self.pad();
        self
    }

    /// Appends an attribute.
    #[must_use]
    pub fn attribute(mut self, kind: u16, value: &[u8]) -> Request {
        self.push(kind, value);
        self
    }

    /// Appends an attribute that is a text with its final NUL.
    #[must_use]
    pub fn text(self, kind: u16, value: &str) -> Request {
        let mut octets = value.as_bytes().to_vec();
        octets.push(0);
        self.attribute(kind, &octets)
    }

    /// Appends an attribute that holds those that `fill` appends.
    #[must_use]
    pub fn nested(mut self, kind: u16, fill: impl FnOnce(Request) -> Request) -> Request {
        let start = self.octets.len();
        self.push(kind | NESTED, &[]);
        let mut filled = fill(self);
        let length = filled.octets.len() - start;
        // An attribute's length has sixteen bits: a longer one is our own mistake.
        debug_assert!(length <= usize::from(u16::MAX));
        filled.octets[start..start + 2].copy_from_slice(&(length as u16).to_ne_bytes());
        filled
    }

    /// Adds flags (`NLM_F_ACK`).
    #[must_use]
    pub fn with_flags(mut self, flags: u16) -> Request {
        let all = self.flags() | flags;
        self.octets[6..8].copy_from_slice(&all.to_ne_bytes());
        self
    }

    /// The request as it is sent, but for its length, number and sender.
    #[cfg(test)]
    pub fn octets(&self) -> &[u8] {
        &self.octets
    }

    pub(super) fn flags(&self) -> u16 {
        u16::from_ne_bytes([self.octets[6], self.octets[7]])
    }

    fn push(&mut self, kind: u16, value: &[u8]) {
        let length = ATTRIBUTE_HEADER + value.len();
        debug_assert!(length <= usize::from(u16::MAX));
        self.octets.extend_from_slice(&(length as u16).to_ne_bytes());
        self.octets.extend_from_slice(&kind.to_ne_bytes());
        self.octets.extend_from_slice(value);
        self.pad();
    }

    fn pad(&mut self) {
        self.octets.resize(aligned(self.octets.len()), 0);
    }

    /// The whole message, numbered.
    pub(super) fn finish(&self, sequence: u32, port: u32) -> Vec<u8> {
        let mut octets = self.octets.clone();
        let length = octets.len() as u32;
        octets[0..4].copy_from_slice(&length.to_ne_bytes());
        octets[8..12].copy_from_slice(&sequence.to_ne_bytes());
        octets[12..16].copy_from_slice(&port.to_ne_bytes());
        octets
    }
}

/// One message from the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// `RTM_NEWADDR` and so on.
    pub kind: u16,
    /// Its flags.
    pub flags: u16,
    /// The number of the request that it answers; 0 for news.
    pub sequence: u32,
    /// What follows the header: the fixed part, then attributes.
    pub payload: Vec<u8>,
}

impl Message {
    /// The attributes behind a fixed part of `fixed` octets.
    pub fn attributes(&self, fixed: usize) -> Attributes<'_> {
        attributes(self.payload.get(aligned(fixed)..).unwrap_or_default())
    }
}

/// The attributes in `octets`: kind without its flag bits, and value. Ends at the first that is
/// malformed.
pub fn attributes(octets: &[u8]) -> Attributes<'_> {
    Attributes { rest: octets }
}

/// The iterator of [`attributes`].
#[derive(Debug, Clone)]
pub struct Attributes<'o> {
    rest: &'o [u8],
}

impl<'o> Iterator for Attributes<'o> {
    type Item = (u16, &'o [u8]);

    fn next(&mut self) -> Option<(u16, &'o [u8])> {
        let header = self.rest.get(..ATTRIBUTE_HEADER)?;
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let kind = u16::from_ne_bytes([header[2], header[3]]) & !ATTRIBUTE_FLAGS;
        let value = self.rest.get(ATTRIBUTE_HEADER..length)?;
        self.rest = self.rest.get(aligned(length)..).unwrap_or_default();
        Some((kind, value))
    }
}

pub(super) fn aligned(length: usize) -> usize {
    length.next_multiple_of(4)
}

/// The messages of a datagram; ends at the first that is malformed.
pub(super) fn messages(mut octets: &[u8]) -> Vec<Message> {
    let mut found = Vec::new();
    while let Some((message, rest)) = split_message(octets) {
        found.push(message);
        octets = rest;
    }
    found
}

fn split_message(octets: &[u8]) -> Option<(Message, &[u8])> {
    let header = octets.get(..HEADER)?;
    let number = |at: usize| -> u32 {
        u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
    };
    let length = number(0) as usize;
    let payload = octets.get(HEADER..length)?.to_vec();
    let message = Message {
        kind: u16::from_ne_bytes([header[4], header[5]]),
        flags: u16::from_ne_bytes([header[6], header[7]]),
        sequence: number(8),
        payload,
    };
    Some((message, octets.get(aligned(length)..).unwrap_or_default()))
}

/// What an acknowledgement says; `None` for other messages.
pub(super) fn acknowledgement(message: &Message) -> Option<Result<(), Refusal>> {
    let is_error = i32::from(message.kind) == libc::NLMSG_ERROR;
    let is_end = i32::from(message.kind) == libc::NLMSG_DONE;
    if !is_error && !is_end {
        return None;
    }
    let number = message
        .payload
        .get(..4)
        .map_or(0, |octets| i32::from_ne_bytes([octets[0], octets[1], octets[2], octets[3]]));
    if number == 0 {
        return Some(Ok(()));
    }
    let request = if is_error { length_of_request(message) } else { Some(0) };
    let text = request.filter(|_| message.flags & HAS_TEXT != 0);
    let text = text.and_then(|request| text_behind(message, request));
    let error = io::Error::from_raw_os_error(number.saturating_neg());
    Some(Err(Refusal { error, text }))
}

/// The octets that an error gives back of the request it is about.
fn length_of_request(message: &Message) -> Option<usize> {
    if message.flags & CAPPED != 0 {
        return Some(HEADER);
    }
    let length = message.payload.get(4..8)?;
    Some(u32::from_ne_bytes([length[0], length[1], length[2], length[3]]) as usize)
}

/// What the kernel says in words, behind `request` octets of the request.
fn text_behind(message: &Message, request: usize) -> Option<String> {
    let (_, text) = message.attributes(4 + aligned(request)).find(|(kind, _)| *kind == TEXT)?;
    let text = String::from_utf8_lossy(text);
    Some(text.trim_end_matches('\0').trim().to_owned()).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_nest_and_are_padded() {
        let request = Request::new(16, 0)
            .fixed(&[1, 2, 3])
            .text(3, "ab")
            .nested(18, |inner| inner.attribute(1, &[9; 5]));
        let octets = request.finish(7, 0);
        assert_eq!(octets.len() % 4, 0);
        let (message, rest) = split_message(&octets).unwrap();
        assert!(rest.is_empty());
        assert_eq!((message.kind, message.sequence), (16, 7));
        let all: Vec<_> = message.attributes(3).collect();
        assert_eq!(all[0], (3, &b"ab\0"[..]));
        assert_eq!(all[1].0, 18);
        assert_eq!(attributes(all[1].1).collect::<Vec<_>>(), [(1, &[9; 5][..])]);
    }

    #[test]
    fn malformed_messages_and_attributes_end_the_reading() {
        assert!(messages(&[1, 2, 3]).is_empty());
        let mut octets = Request::new(16, 0).fixed(&[0; 4]).finish(1, 0);
        octets[0..4].copy_from_slice(&999_u32.to_ne_bytes());
        assert!(messages(&octets).is_empty());
        octets[0..4].copy_from_slice(&3_u32.to_ne_bytes());
        assert!(messages(&octets).is_empty());
        for broken in [&[0, 0, 1, 0][..], &[3, 0, 1, 0], &[9, 0, 1, 0, 5]] {
            assert_eq!(attributes(broken).count(), 0, "{broken:?}");
        }
    }

    #[test]
    fn a_refusal_has_the_kernels_words() {
        let mut payload = (-libc::EOPNOTSUPP).to_ne_bytes().to_vec();
        payload.extend_from_slice(&[0; HEADER]);
        let mut octets = Request::new(libc::NLMSG_ERROR as u16, CAPPED | HAS_TEXT)
            .fixed(&payload)
            .text(TEXT, "Unknown device type")
            .finish(1, 0);
        let message = messages(&octets).remove(0);
        let refusal = acknowledgement(&message).unwrap().unwrap_err();
        assert_eq!(refusal.number(), Some(libc::EOPNOTSUPP));
        assert!(refusal.to_string().ends_with("(Unknown device type)"), "{refusal}");
        // Without the flag there is no text to look for.
        octets[6..8].copy_from_slice(&CAPPED.to_ne_bytes());
        let message = messages(&octets).remove(0);
        assert_eq!(acknowledgement(&message).unwrap().unwrap_err().text, None);
    }
}
