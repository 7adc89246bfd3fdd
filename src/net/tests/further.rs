//! Further questions, and what becomes of them when nobody waits any more.

use super::*;
use crate::dns::Rcode;
use crate::plugin::cache::KeptAs;
use std::sync::atomic::Ordering;

/// `a.test.`, as it was known a minute ago.
fn expired() -> Kept {
    let mut message = query("a.test.", 0);
    message[2] |= 0x80;
    message[7] = 1;
    message.extend_from_slice(b"\xc0\x0c\0\x01\0\x01\0\0\0\x1e\0\x04\xc0\0\x02\x07");
    Kept {
        message: message.into(),
        rcode: Rcode::NOERROR,
        kind: KeptAs::Success,
        dnssec_ok: false,
        checking_disabled: false,
        ttl: 30,
        age: 60_000,
        hits: 0,
        last_hit: None,
    }
}

#[test]
fn further_questions_end_also_where_every_one_is_answered_stale_before_upstream_answers() {
    // Every answer leads to the same further question, and comes when its asker is gone.
    let alias = b"\xc0\x0c\0\x05\0\x01\0\0\0\0\0\x08\x01b\x04test\0";
    let late = Duration::from_millis(500);
    let (port, asked) = upstream_saying(late, alias);
    let corefile = format!(
        ".:0 {{\nbind 127.0.0.1\ncache {{\nsuccess 1024 3600 0\nserve_stale 1h verify 10ms\n}}\n\
         rewrite cname exact b.test. a.test.\n{}}}\n",
        asking_once(port)
    );
    let server = Running::start_knowing(&corefile, 1, Arc::default(), &[expired()]);
    assert!(server.ask("x.test.").is_some());
    // The client's question, and one at each depth.
    let all = 1 + usize::from(super::drive::DEPTH_MOST);
    let begun = Instant::now();
    while asked.load(Ordering::Relaxed) < all {
        assert!(begun.elapsed() < PATIENCE, "{asked:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
    // The last one's answer would bring one more.
    std::thread::sleep(2 * late);
    assert_eq!(asked.load(Ordering::Relaxed), all);
    server.stop();
}
