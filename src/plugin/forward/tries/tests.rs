//! Which upstreams are asked, in which order and when, with a clock that the test moves.

use super::*;
use crate::plugin::forward::Policy;
use rand::SeedableRng;

fn order(count: usize) -> Order {
    Order::new(Policy::Sequential, count, 0, &mut StdRng::seed_from_u64(1))
}

/// Plays a question: every try fails after `takes`. Gives the upstreams asked with their time
/// in ms, and the error.
fn play(
    options: &Options,
    count: usize,
    takes: Duration,
    is_down: impl Fn(usize) -> bool,
) -> (Vec<(usize, u128)>, String) {
    let (asked, text, _) = play_out(options, count, (Fault::Bad, takes), is_down);
    (asked, text)
}

/// The same, and when it was over.
fn play_out(
    options: &Options,
    count: usize,
    (fault, takes): (Fault, Duration),
    is_down: impl Fn(usize) -> bool,
) -> (Vec<(usize, u128)>, String, Duration) {
    play_on(Tries::new(options, order(count), BUDGET), (fault, takes), is_down)
}

fn play_on(
    mut tries: Tries<'_>,
    (fault, takes): (Fault, Duration),
    is_down: impl Fn(usize) -> bool,
) -> (Vec<(usize, u128)>, String, Duration) {
    let mut random = StdRng::seed_from_u64(1);
    let mut now = Duration::ZERO;
    let mut asked = Vec::new();
    loop {
        match tries.next(now, &is_down, &mut random) {
            Move::Ask { upstream, .. } => {
                asked.push((upstream, now.as_millis()));
                now += takes;
                let error = format!("error {}", asked.len());
                tries.failed(upstream, error.into(), fault, takes);
            }
            Move::Pause(pause) => now += pause,
            Move::End => break,
        }
        assert!(asked.len() < 100);
    }
    let text = tries.outcome().unwrap_err().text.into_string();
    (asked, text, now)
}

#[test]
fn a_silent_upstream_is_asked_twice_in_the_budget() {
    let (asked, error) = play(&Options::default(), 1, Duration::from_secs(2), |_| false);
    assert_eq!(asked, [(0, 0), (0, 2000)]);
    assert_eq!(error, "error 2");
}

#[test]
fn an_upstream_that_refuses_is_asked_again_with_pauses_for_a_second() {
    let refused = (Fault::Away, Duration::ZERO);
    let moments = [0, 100, 300, 600, 900];
    let (asked, _, over) = play_out(&Options::default(), 1, refused, |_| false);
    assert_eq!(asked.iter().map(|(_, at)| *at).collect::<Vec<_>>(), moments);
    assert_eq!(over.as_millis(), 900, "nothing is waited for at the end");
    let options = Options { failfast: true, ..Options::default() };
    assert!(play_out(&options, 1, refused, |_| true).0.is_empty());
    let options = Options { max_connect_attempts: 3, ..Options::default() };
    assert_eq!(play_out(&options, 1, refused, |_| false).0.len(), 3);
}

#[test]
fn who_waited_for_a_silent_upstream_has_time_for_it_again_whatever_others_refuse() {
    let options = Options::default();
    let mut tries = Tries::new(&options, order(2), BUDGET);
    let mut random = StdRng::seed_from_u64(1);
    let (mut now, mut asked) = (Duration::ZERO, Vec::new());
    loop {
        match tries.next(now, |_| false, &mut random) {
            Move::Ask { upstream, .. } => {
                asked.push((upstream, now.as_millis()));
                let (fault, took) = match upstream {
                    0 => (Fault::Bad, Duration::from_secs(2)),
                    _ => (Fault::Away, Duration::ZERO),
                };
                now += took;
                tries.failed(upstream, "error".into(), fault, took);
            }
            Move::Pause(pause) => now += pause,
            Move::End => break,
        }
    }
    assert_eq!(asked, [(0, 0), (1, 2000), (0, 2000)]);
}

#[test]
fn while_checks_say_that_nobody_is_there_the_queries_that_wait_ask_nobody() {
    let options = Options::default();
    let mut tries = Tries::new(&options, order(1), BUDGET);
    let mut random = StdRng::seed_from_u64(1);
    let (mut now, mut asked) = (Duration::ZERO, Vec::new());
    let up_again = Duration::from_millis(500);
    loop {
        match tries.next(now, |_| now < up_again, &mut random) {
            Move::Ask { .. } if now >= up_again => break,
            Move::Ask { upstream, .. } => {
                asked.push(now);
                tries.failed(upstream, "refused".into(), Fault::Away, Duration::ZERO);
            }
            Move::Pause(pause) => now += pause,
            Move::End => panic!("{now:?}"),
        }
    }
    assert_eq!(asked, [Duration::ZERO]);
    assert_eq!(now.as_millis(), 600);
    let (asked, _, over) = play_out(&options, 1, (Fault::Away, Duration::ZERO), |_| true);
    assert_eq!((asked.len(), over.as_millis()), (1, 900));
}

#[test]
fn who_has_an_answer_to_fall_back_on_waits_for_nobody_to_come_back() {
    let options = Options::default();
    for (is_down, moments) in [(false, vec![0, 100]), (true, vec![0])] {
        let mut tries = Tries::new(&options, order(1), BUDGET);
        tries.hurry();
        let refused = (Fault::Away, Duration::ZERO);
        let (asked, ..) = play_on(tries, refused, |_| is_down);
        assert_eq!(asked.iter().map(|(_, at)| *at).collect::<Vec<_>>(), moments);
    }
}

#[test]
fn who_is_in_a_hurry_asks_a_silent_upstream_once_and_the_others_still() {
    let options = Options::default();
    let silent = (Fault::Bad, Duration::from_secs(1));
    for (count, moments) in [(1, vec![(0, 0)]), (2, vec![(0, 0), (1, 1000)])] {
        let mut tries = Tries::new(&options, order(count), BUDGET);
        tries.hurry();
        assert_eq!(play_on(tries, silent, |_| false).0, moments);
    }
}

#[test]
fn an_upstream_whose_responses_are_bad_is_asked_twice_with_a_pause() {
    let (asked, _) = play(&Options::default(), 1, Duration::ZERO, |_| false);
    assert_eq!(asked, [(0, 0), (0, 100)]);
    let (asked, _) = play(&Options::default(), 2, Duration::ZERO, |_| false);
    assert_eq!(asked, [(0, 0), (1, 0), (0, 100), (1, 100)]);
}

#[test]
fn when_all_tries_are_spent_nothing_is_waited_for() {
    for count in [1, 2] {
        let bad = (Fault::Bad, Duration::ZERO);
        let (.., over) = play_out(&Options::default(), count, bad, |_| false);
        assert_eq!(over, BETWEEN_PASSES);
    }
    let bad = (Fault::Bad, Duration::ZERO);
    let (asked, _, over) = play_out(&Options::default(), 2, bad, |one| one == 1);
    assert_eq!(asked, [(0, 0), (0, 100)]);
    assert_eq!(over, 3 * BETWEEN_PASSES, "the other one may be up again by then");
}

#[test]
fn max_connect_attempts_ends_it() {
    let options = Options { max_connect_attempts: 1, ..Options::default() };
    let (asked, error) = play(&options, 2, Duration::from_secs(2), |_| false);
    assert_eq!((asked.len(), error.as_str()), (1, "error 1"));
    let options = Options { max_connect_attempts: 5, ..Options::default() };
    let (asked, _) = play(&options, 1, Duration::ZERO, |_| false);
    assert_eq!(asked.len(), 5);
}

#[test]
fn a_down_upstream_is_passed_over() {
    let (asked, _) = play(&Options::default(), 3, Duration::ZERO, |upstream| upstream == 0);
    assert_eq!(asked, [(1, 0), (2, 0), (1, 100), (2, 100)]);
}

#[test]
fn when_all_are_down_one_is_tried_by_chance_or_none_with_failfast() {
    let (asked, error) = play(&Options::default(), 3, Duration::ZERO, |_| true);
    assert_eq!((asked.len(), error.as_str()), (1, "error 1"));
    let options = Options { failfast: true, ..Options::default() };
    let (asked, error) = play(&options, 3, Duration::ZERO, |_| true);
    assert_eq!((asked.len(), error.as_str()), (0, "no healthy proxies"));
}

#[test]
fn a_try_that_took_long_is_not_the_last_while_there_is_time() {
    let count_of = |takes, is_down: bool| {
        let takes = Duration::from_millis(takes);
        play(&Options::default(), 1, takes, |_| is_down).0.len()
    };
    assert_eq!([999, 1000, 2000].map(|takes| count_of(takes, true)), [1, 4, 2]);
    assert_eq!([999, 1000, 2000].map(|takes| count_of(takes, false)), [2, 4, 2]);
}

#[test]
fn failover_goes_round_once_and_returns_the_last_response() {
    let options = Options { failover: vec![Rcode::SERVFAIL], ..Options::default() };
    let mut tries = Tries::new(&options, order(2), BUDGET);
    let mut random = StdRng::seed_from_u64(1);
    let meaning = Meaning { rcode: Rcode::SERVFAIL, truncated: false, is_response: true };
    for number in 0..2u8 {
        let next = tries.next(Duration::ZERO, |_| false, &mut random);
        assert!(
            matches!(next, Move::Ask { upstream, .. } if upstream == usize::from(number)),
            "{next:?}"
        );
        assert_eq!(tries.answered(Arc::from([number]), meaning), None);
    }
    assert_eq!(tries.next(Duration::ZERO, |_| false, &mut random), Move::End);
    assert_eq!(tries.outcome(), Ok(Arc::from([1])));
}

#[test]
fn a_response_that_failover_does_not_name_is_the_answer() {
    let options = Options { failover: vec![Rcode::REFUSED], ..Options::default() };
    let mut tries = Tries::new(&options, order(2), BUDGET);
    let meaning = Meaning { rcode: Rcode::NXDOMAIN, truncated: false, is_response: true };
    assert!(tries.answered(Arc::from([1]), meaning).is_some());
}

#[test]
fn a_message_to_another_question_does_not_fail_over_whatever_its_rcode() {
    let options = Options { failover: vec![Rcode::FORMERR], ..Options::default() };
    let mut tries = Tries::new(&options, order(2), BUDGET);
    let meaning = Meaning { rcode: Rcode::FORMERR, truncated: false, is_response: false };
    assert!(tries.answered(Arc::from([1]), meaning).is_some());
}

#[test]
fn what_an_earlier_forward_used_of_the_budget_is_gone() {
    let options = Options::default();
    let mut random = StdRng::seed_from_u64(1);
    let mut tries = Tries::new(&options, order(1), Duration::from_secs(1));
    let first = tries.next(Duration::ZERO, |_| false, &mut random);
    assert_eq!(first, Move::Ask { upstream: 0, patience: Duration::from_secs(1) });
    assert_eq!(tries.next(Duration::from_secs(1), |_| false, &mut random), Move::End);
}

#[test]
fn patience_shares_the_budget_among_the_upstreams_that_are_left() {
    let options = Options::default();
    let mut random = StdRng::seed_from_u64(1);
    for (count, expected) in [(1, 2000), (2, 1950), (4, 975), (15, 260)] {
        let mut tries = Tries::new(&options, order(count), BUDGET);
        match tries.next(Duration::ZERO, |_| false, &mut random) {
            Move::Ask { patience, .. } => assert_eq!(patience.as_millis(), expected),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_try_has_some_time_for_itself_even_at_the_end() {
    let options = Options::default();
    let mut tries = Tries::new(&options, order(3), BUDGET);
    let mut random = StdRng::seed_from_u64(1);
    let now = BUDGET - Duration::from_millis(90);
    let next = tries.next(now, |_| false, &mut random);
    assert_eq!(next, Move::Ask { upstream: 0, patience: LEAST_PATIENCE });
}

#[test]
fn who_is_in_a_hurry_does_not_wait_for_the_checks_of_one_that_refused() {
    let options = Options::default();
    let mut tries = Tries::new(&options, order(1), BUDGET);
    tries.hurry();
    let mut random = StdRng::seed_from_u64(1);
    let (mut now, mut asked) = (Duration::ZERO, 0);
    loop {
        match tries.next(now, |_| asked > 0, &mut random) {
            Move::Ask { upstream, .. } => {
                asked += 1;
                tries.failed(upstream, "refused".into(), Fault::Away, Duration::ZERO);
            }
            Move::Pause(pause) => now += pause,
            Move::End => break,
        }
    }
    assert_eq!((asked, now), (2, BETWEEN_PASSES));
}

#[test]
fn those_that_are_down_have_no_share_of_the_time() {
    let options = Options::default();
    let mut random = StdRng::seed_from_u64(1);
    let mut tries = Tries::new(&options, order(3), BUDGET);
    let next = tries.next(Duration::ZERO, |one| one > 0, &mut random);
    assert_eq!(next, Move::Ask { upstream: 0, patience: options.read_timeout });
}

#[test]
fn with_a_long_read_timeout_the_last_upstream_has_all_the_time_and_others_are_not_waited_for_alone()
{
    let options = Options { read_timeout: 2 * BUDGET, ..Options::default() };
    let mut random = StdRng::seed_from_u64(1);
    let patience = |next| match next {
        Move::Ask { patience, .. } => patience,
        other => panic!("{other:?}"),
    };
    let mut tries = Tries::new(&options, order(1), BUDGET);
    assert_eq!(patience(tries.next(Duration::ZERO, |_| false, &mut random)), BUDGET);
    let mut tries = Tries::new(&options, order(2), BUDGET);
    assert_eq!(patience(tries.next(Duration::ZERO, |_| false, &mut random)), BUDGET / 2);
    assert_eq!(patience(tries.next(BUDGET / 2, |_| false, &mut random)), BUDGET / 2);
}

#[test]
fn what_one_says_that_was_tried_when_all_were_down_is_the_answer() {
    let options = Options { failover: vec![Rcode::SERVFAIL], ..Options::default() };
    let mut random = StdRng::seed_from_u64(1);
    let mut tries = Tries::new(&options, order(2), BUDGET);
    assert!(matches!(tries.next(Duration::ZERO, |_| true, &mut random), Move::Ask { .. }));
    let meaning = Meaning { rcode: Rcode::SERVFAIL, truncated: false, is_response: true };
    assert!(tries.answered(Arc::from([1]), meaning).is_some());
}

#[test]
fn a_response_that_was_kept_gives_way_to_none_that_is_made_up() {
    let options = Options { failover: vec![Rcode::SERVFAIL], ..Options::default() };
    let mut tries = Tries::new(&options, order(2), BUDGET);
    let meaning = Meaning { rcode: Rcode::SERVFAIL, truncated: false, is_response: true };
    assert_eq!(tries.answered(Arc::from([1]), meaning), None);
    tries.keep(Arc::from([2]));
    assert_eq!(tries.outcome(), Ok(Arc::from([1])));
}

#[test]
fn the_pause_between_passes_has_a_bound_however_many_there_were() {
    assert_eq!(
        [0, 1, 2, 3, u8::MAX].map(between).map(|pause| pause.as_millis()),
        [100, 200, 300, 300, 300]
    );
}
