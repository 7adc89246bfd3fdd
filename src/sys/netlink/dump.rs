//! What the kernel gives of many things: gathered until its end, and anew where they changed meanwhile.
//!
//! Never sends or receives: messages come in one by one.

use super::MOST_DUMPED;
use super::message::{Message, Refusal, acknowledgement};
use std::io;

/// How often things that change while they are read are asked for, at most.
const DUMPS_MOST: usize = 4;

/// What came for a request so far.
#[derive(Debug, Default)]
pub(super) struct Collected {
    pub(super) messages: Vec<Message>,
    /// Things changed meanwhile: some may be missing, or be there twice (`NLM_F_DUMP_INTR`).
    is_disturbed: bool,
}

impl Collected {
    /// Takes in a message of the request's; gives the end when this is it.
    pub(super) fn take(&mut self, message: Message) -> Option<Result<(), Refusal>> {
        self.is_disturbed |= i32::from(message.flags) & libc::NLM_F_DUMP_INTR != 0;
        let end = acknowledgement(&message);
        if end.is_none() {
            if self.messages.len() == MOST_DUMPED {
                return Some(Err(io::Error::other("more than can be read").into()));
            }
            self.messages.push(message);
        }
        end
    }
}

/// What `collect` gives once nothing changed meanwhile, or the last time of [`DUMPS_MOST`].
pub(super) fn undisturbed(
    mut collect: impl FnMut() -> Result<Collected, Refusal>,
) -> Result<Vec<Message>, Refusal> {
    let mut collected = collect()?;
    for _ in 1..DUMPS_MOST {
        if !collected.is_disturbed {
            break;
        }
        collected = collect()?;
    }
    Ok(collected.messages)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, flags: i32, payload: &[u8]) -> Message {
        Message { kind, flags: flags as u16, sequence: 1, payload: payload.to_vec() }
    }

    /// How often is asked, and what counts, where the flags of a link and of the end are these.
    fn asked(dumps: &[(i32, i32)]) -> (usize, Vec<u8>) {
        let mut times = 0;
        let found = undisturbed(|| {
            let (link, end) = dumps[times.min(dumps.len() - 1)];
            times += 1;
            let mut collected = Collected::default();
            let link = message(libc::RTM_NEWLINK, libc::NLM_F_MULTI | link, &[times as u8]);
            assert!(collected.take(link).is_none());
            let end = message(libc::NLMSG_DONE as u16, libc::NLM_F_MULTI | end, &[0; 4]);
            assert!(collected.take(end).unwrap().is_ok());
            Ok(collected)
        });
        (times, found.unwrap().into_iter().flat_map(|message| message.payload).collect())
    }

    #[test]
    fn what_changed_while_it_was_read_is_read_again() {
        const CHANGED: i32 = libc::NLM_F_DUMP_INTR;
        assert_eq!(asked(&[(0, 0)]), (1, vec![1]));
        assert_eq!(asked(&[(CHANGED, 0), (0, 0)]), (2, vec![2]));
        assert_eq!(asked(&[(0, CHANGED), (0, CHANGED), (0, 0)]), (3, vec![3]));
        // What changes all the time is as it was last.
        assert_eq!(asked(&[(0, CHANGED)]), (DUMPS_MOST, vec![DUMPS_MOST as u8]));
    }

    #[test]
    fn more_messages_than_a_node_has_are_an_error() {
        let mut collected = Collected::default();
        let link = || message(libc::RTM_NEWLINK, libc::NLM_F_MULTI, &[]);
        assert!((0..MOST_DUMPED).all(|_| collected.take(link()).is_none()));
        assert!(collected.take(link()).unwrap().is_err());
    }

    #[test]
    fn a_refusal_is_not_asked_again() {
        let mut times = 0;
        let refused = undisturbed(|| {
            times += 1;
            Err(io::Error::from_raw_os_error(libc::EPERM).into())
        });
        assert_eq!((times, refused.unwrap_err().number()), (1, Some(libc::EPERM)));
    }
}
