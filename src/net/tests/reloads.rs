//! What a reload changes: answers, addresses, and nothing where one cannot be bound.

use super::*;

#[test]
fn a_reload_changes_the_answers_and_the_addresses() {
    // Ports that nobody else gets once they are free again.
    let (first, second) = (ports::free_port(), ports::free_port());
    let server = Running::start(&answering(&format!(".:{first}"), 1, ""), 2);
    let mut stream = server.tcp();
    stream.write_all(&framed(&query("a.test.", 3))).unwrap();
    assert_eq!(last_octet(&read_frame(&mut stream).unwrap()), Some(1));

    server.publish(&answering(&format!(".:{first}"), 2, "")).unwrap();
    assert_eq!(server.address().port(), first);
    assert_eq!(server.ask("a.test."), Some(2));
    stream.write_all(&framed(&query("a.test.", 3))).unwrap();
    assert_eq!(last_octet(&read_frame(&mut stream).unwrap()), Some(2));

    server.publish(&answering(&format!(".:{second}"), 3, "")).unwrap();
    assert_eq!(server.address().port(), second);
    assert_eq!(server.ask("a.test."), Some(3));
    assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0, "its address is gone");
    ports::is_given_up(first);
    server.stop();
}

#[test]
fn once_a_reload_is_done_nobody_listens_at_what_is_gone() {
    let both = [ports::free_port(), ports::free_port()];
    let server = Running::start(&answering(&format!(".:{}", both[0]), 1, ""), 2);
    for turn in 1..100 {
        let port = both[turn % 2];
        server.publish(&answering(&format!(".:{port}"), 1, "")).unwrap();
        assert!(!ports::listens(both[(turn + 1) % 2]), "{turn}");
        assert!(ports::listens(port) && TcpStream::connect(("127.0.0.1", port)).is_ok(), "{turn}");
    }
    server.stop();
    both.into_iter().for_each(ports::is_given_up);
}

#[test]
fn a_reload_that_cannot_bind_changes_nothing() {
    let server = Running::start(&answering(".:0", 1, ""), 2);
    let foreign = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = foreign.local_addr().unwrap().port();
    let corefile = answering(".:0", 2, "") + &answering(&format!(".:{taken}"), 3, "");
    let error = server.publish(&corefile).unwrap_err();
    assert!(error.0.ends_with("bind: address already in use"), "{error}");
    assert_eq!(server.ask("a.test."), Some(1));
    assert_eq!(server.workers.addresses().len(), 1);
    server.publish(&answering(".:0", 2, "")).unwrap();
    assert_eq!(server.ask("a.test."), Some(2));
    server.stop();
}
