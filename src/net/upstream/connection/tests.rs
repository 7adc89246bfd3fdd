//! A connection whose clock the test moves: when it takes queries, ends, and is silent.

use super::*;
use rand::SeedableRng;

const EXPIRE: Duration = Duration::from_secs(10);
const AGE: Duration = Duration::from_secs(60);
const TIME: Duration = Duration::from_secs(2);

/// A connection that takes two queries, and one of them at a time in flight.
fn connection(transport: Transport, now: Instant) -> Arc<Connection> {
    let lifetime = Lifetime::new(2, EXPIRE, AGE, now);
    let pace = Arc::new(Pace::new(1, 1));
    Arc::new(Connection::new(1, transport, "192.0.2.1:53", pace, lifetime, now))
}

fn park(connection: &Arc<Connection>, now: Instant) -> Ticket {
    park_for(connection, Times { asked: now, deadline: now + TIME, telling: TIME })
}

fn park_for(connection: &Arc<Connection>, times: Times) -> Ticket {
    let wire = *b"\0\0\x01\0\0\x01\0\0\0\0\0\0\x01a\x04test\0\0\x01\0\x01";
    let query = Asked::new(wire.into(), wire.len());
    let mut random = StdRng::seed_from_u64(1);
    connection.park(&query, None, &mut random, times).unwrap()
}

fn is_ready(waiting: impl Future<Output = ()>) -> bool {
    let waiting = std::pin::pin!(waiting);
    waiting.poll(&mut std::task::Context::from_waker(std::task::Waker::noop())).is_ready()
}

/// An empty response to the query of a ticket, whose name begins with this letter.
fn response(ticket: &Ticket, letter: u8) -> Vec<u8> {
    let mut message = b"\0\0\x81\x80\0\x01\0\0\0\0\0\0\x01a\x04test\0\0\x01\0\x01".to_vec();
    message[..2].copy_from_slice(&ticket.id.to_be_bytes());
    message[13] = letter;
    message
}

#[test]
fn a_message_to_another_question_ends_a_query_only_where_it_is_surely_meant_for_it() {
    for (transport, gives_up, ends) in [
        (Transport::Udp, false, false),
        (Transport::Tcp, false, true),
        // It may be the late answer to the query that was given up, whose id was the same.
        (Transport::Tcp, true, false),
    ] {
        let now = Instant::now();
        let connection = connection(transport, now);
        if gives_up {
            park(&connection, now).leave();
        }
        let mut ticket = park(&connection, now);
        assert_eq!(connection.deliver(&response(&ticket, b'b'), now), ends, "{transport:?}");
        assert_eq!(ticket.receiver.try_recv().is_ok(), ends, "{transport:?}");
        assert_eq!(connection.deliver(&response(&ticket, b'a'), now), !ends);
        assert_eq!(connection.load(), 0);
    }
}

#[test]
fn a_late_answer_to_a_query_whose_time_is_over_is_not_taken_for_the_next_ones() {
    let start = Instant::now();
    let connection = connection(Transport::Tcp, start);
    connection.established(None);
    let mut first = park(&connection, start);
    let heard = start + Duration::from_millis(1);
    assert!(!connection.deliver(&[0; 12], heard), "to nobody");
    connection.expire(start + TIME);
    assert!(first.receiver.try_recv().is_ok());
    let mut second = park(&connection, start + TIME);
    // Under the id that was the first one's.
    assert!(!connection.deliver(&response(&second, b'b'), start + TIME));
    assert!(second.receiver.try_recv().is_err(), "it is waited over");
    assert_eq!(connection.load(), 1);
}

#[test]
fn queries_end_together_or_alone_each_way_with_its_own_failure() {
    let now = Instant::now();
    let text = || Box::<str>::from("why");
    let ended = |ticket: &mut Ticket| ticket.receiver.try_recv().ok().and_then(Result::err);

    let lives_on = connection(Transport::Udp, now);
    let [mut one, mut other] = [(); 2].map(|()| park(&lives_on, now));
    lives_on.fail("why", Some(other.id));
    assert_eq!(ended(&mut one), Some(Failure::Refused(text())));
    assert_eq!((ended(&mut other), lives_on.load()), (None, 1), "it is spared");
    lives_on.fail_one(other.id, "why");
    assert_eq!((ended(&mut other), lives_on.load()), (Some(Failure::Response(text())), 0));
    assert_eq!(lives_on.upkeep(now), Upkeep::End, "worn");
    assert!(lives_on.take_outgoing().is_some(), "not closed");

    for (is_taken, failure) in [(true, Failure::Closed(text())), (false, Failure::Refused(text()))]
    {
        let over = connection(Transport::Tcp, now);
        let mut ticket = park(&over, now);
        for why in ["why", "again"] {
            match is_taken {
                true => over.close(why),
                false => over.refuse(why),
            }
        }
        assert_eq!(ended(&mut ticket), Some(failure));
        assert_eq!((over.load(), over.fitness(now)), (0, Fitness::Unfit));
        assert_eq!((over.take_outgoing(), over.upkeep(now)), (None, Upkeep::End));
        assert!(is_ready(over.woken()) && is_ready(over.closed()));
        let query = Asked::new([0; 17].into(), 17);
        let mut random = StdRng::seed_from_u64(2);
        let times = Times { asked: now, deadline: now + TIME, telling: TIME };
        let late = over.park(&query, None, &mut random, times);
        assert_eq!(late.unwrap_err().text, text(), "what ended it first");
    }
}

#[test]
fn its_task_looks_again_earlier_for_a_query_whose_time_ends_before_the_next_look() {
    let start = Instant::now();
    let connection = connection(Transport::Udp, start);
    // Nothing is in flight: the next look is far.
    assert_eq!(connection.expire(start), start + LOOK);
    for (time, is_hurried) in [(LOOK, false), (LOOK / 2, true)] {
        let times = Times { asked: start, deadline: start + time, telling: TIME };
        let _ticket = park_for(&connection, times);
        assert_eq!(is_ready(connection.hurried()), is_hurried, "{time:?}");
    }
    assert_eq!(connection.expire(start), start + LOOK / 2);
}

#[test]
fn it_ends_when_nothing_is_in_flight_and_it_is_idle_old_worn_or_retiring() {
    let start = Instant::now();
    let after = |seconds| start + Duration::from_secs(seconds);
    let tcp = || connection(Transport::Tcp, start);
    assert_eq!(tcp().upkeep(after(9)), Upkeep::At(after(10)));
    assert_eq!(tcp().upkeep(after(10)), Upkeep::End, "idle");
    assert_eq!(tcp().fitness(after(9)), Fitness::Fit);
    assert_eq!(tcp().fitness(after(10)), Fitness::Unfit);

    let slow = tcp();
    let _ticket = park(&slow, start);
    assert_eq!(slow.fitness(after(11)), Fitness::Fit, "it is not idle");

    let in_use = tcp();
    let ticket = park(&in_use, after(55));
    assert_eq!(in_use.fitness(after(59)), Fitness::Fit);
    assert_eq!(in_use.fitness(after(60)), Fitness::Unfit, "old");
    assert_eq!(in_use.upkeep(after(60)), Upkeep::At(after(70)), "with a query in flight");
    ticket.leave();
    assert_eq!(in_use.upkeep(after(59)), Upkeep::At(after(60)));
    assert_eq!(in_use.upkeep(after(60)), Upkeep::End);

    let worn = tcp();
    for _ in 0..2 {
        assert_eq!(worn.fitness(start), Fitness::Fit);
        park(&worn, start).leave();
    }
    assert_eq!((worn.fitness(start), worn.upkeep(start)), (Fitness::Worn, Upkeep::End));

    let retiring = tcp();
    let ticket = park(&retiring, start);
    retiring.retire();
    assert_eq!(retiring.fitness(start), Fitness::Unfit);
    assert_eq!(retiring.upkeep(start), Upkeep::At(after(10)));
    ticket.leave();
    assert_eq!(retiring.upkeep(start), Upkeep::End);
}

#[test]
fn it_waits_since_a_query_was_first_in_flight_or_something_came() {
    let start = Instant::now();
    let after = |seconds| start + Duration::from_secs(seconds);
    let waited = |connection: &Connection, seconds| connection.seen(after(seconds)).waited;
    let connection = connection(Transport::Tcp, start);
    assert_eq!(waited(&connection, 4), Duration::ZERO);
    let first = park(&connection, after(5));
    let _second = park(&connection, after(6));
    assert_eq!(waited(&connection, 8), Duration::from_secs(3));
    assert!(connection.deliver(&response(&first, b'a'), after(9)));
    assert_eq!(waited(&connection, 11), Duration::from_secs(2));
    assert_eq!(
        (connection.is_heard_since(after(8)), connection.is_heard_since(after(9))),
        (true, false)
    );
}

#[test]
fn its_task_is_woken_when_nothing_is_in_flight_and_it_takes_no_more() {
    let now = Instant::now();
    let is_woken = |connection: &Connection| is_ready(connection.woken());
    let retiring = connection(Transport::Tcp, now);
    let last = park(&retiring, now);
    retiring.retire();
    assert!(is_woken(&retiring), "to look when it ends");
    last.leave();
    assert!(is_woken(&retiring), "it takes no more");
    let connection = connection(Transport::Udp, now);
    let first = park(&connection, now);
    first.leave();
    assert!(!is_woken(&connection), "it takes another one");
    let second = park(&connection, now);
    assert!(!is_woken(&connection));
    second.leave();
    assert!(is_woken(&connection), "it has carried two");
}

#[test]
fn its_words_are_gos_before_and_after_it_is_established() {
    let connection = connection(Transport::Tcp, Instant::now());
    assert_eq!(connection.words("x"), "dial tcp 192.0.2.1:53: x");
    connection.established(Some("10.0.0.1:4000".parse().unwrap()));
    assert_eq!(connection.words("x"), "read tcp 10.0.0.1:4000->192.0.2.1:53: x");
}

#[test]
fn a_query_that_was_put_on_it_with_little_time_left_does_not_show_that_it_is_silent() {
    let start = Instant::now();
    for (telling, is_silent) in [(TIME + Duration::from_millis(1), false), (TIME, true)] {
        let connection = connection(Transport::Tcp, start);
        connection.established(None);
        let times = Times { asked: start, deadline: start + TIME, telling };
        let mut ticket = park_for(&connection, times);
        connection.expire(start + TIME);
        assert!(matches!(ticket.receiver.try_recv(), Ok(Err(Failure::Response(_)))));
        assert_eq!(connection.silent_since().is_some(), is_silent, "{telling:?}");
    }
}

#[test]
fn a_stream_over_which_nothing_ever_came_ends_with_the_last_query_whose_time_is_over() {
    let start = Instant::now();
    let later = start + Duration::from_secs(1);
    for (transport, has_come, is_over) in [
        (Transport::Tcp, false, true),
        (Transport::Tls, false, true),
        (Transport::Udp, false, false),
        (Transport::Tcp, true, false),
    ] {
        let pace = Arc::new(Pace::new(1, 1));
        let lifetime = Lifetime::new(3, EXPIRE, AGE, start);
        let connection =
            Arc::new(Connection::new(1, transport, "192.0.2.1:53", pace, lifetime, start));
        connection.established(None);
        if has_come {
            connection.deliver(&[0; 12], start);
        }
        // Too short a time to show that it is silent.
        let times = |asked| Times { asked, deadline: asked + TIME, telling: 2 * TIME };
        let _tickets = [start, later].map(|asked| park_for(&connection, times(asked)));
        connection.expire(start + TIME);
        assert_ne!(connection.upkeep(start + TIME), Upkeep::End, "one is in flight");
        connection.expire(later + TIME);
        let upkeep = connection.upkeep(later + TIME);
        assert_eq!(upkeep == Upkeep::End, is_over, "{transport:?} {has_come}");
    }
}

#[test]
fn one_over_which_nothing_came_since_a_query_whose_time_is_over_takes_no_more() {
    let start = Instant::now();
    let later = start + Duration::from_millis(1);
    for (transport, has_come, upkeep, fitness) in [
        (Transport::Tcp, false, Upkeep::End, Fitness::Unfit),
        (Transport::Udp, false, Upkeep::End, Fitness::Unfit),
        (Transport::Tcp, true, Upkeep::At(later + EXPIRE), Fitness::Fit),
    ] {
        let connection = connection(transport, start);
        connection.established(None);
        let mut ticket = park(&connection, later);
        if has_come {
            connection.deliver(&[0; 12], later + Duration::from_millis(1));
        }
        let before = later + TIME - Duration::from_millis(1);
        assert_eq!(connection.expire(before), later + TIME, "the next look");
        assert!(ticket.receiver.try_recv().is_err());
        connection.expire(later + TIME);
        assert!(matches!(ticket.receiver.try_recv(), Ok(Err(Failure::Response(_)))));
        assert_eq!(connection.silent_since().is_some(), !has_come);
        assert_eq!(connection.upkeep(later + TIME), upkeep, "{transport:?}");
        assert_eq!(connection.fitness(later + TIME), fitness, "{transport:?}");
    }
}
