//! One worker on the test's own thread, of a process whose CPU quota is used up: nothing happens but
//! when the test lets it.

use super::*;
use crate::net::between::{CROWD, UNSEEN_BESIDE_LONG, in_turns, works_here};
use crate::net::listener::SocketsAfter;
use crate::net::rest::{Rests, woke};
use crate::net::sockets::{Address, bind};
use crate::net::upstream::Shared;
use crate::net::worker::{Command, Node, REFRESHES_MOST, Worker, run};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::task::{Context, Waker};
use tokio::runtime;
use tokio::sync::mpsc;
use tokio::task::{LocalSet, spawn_local, yield_now};

/// A quota of 100m, of which much more is used while it is busy.
#[derive(Default)]
struct FakeMeter {
    is_idle: AtomicBool,
    used: Mutex<Duration>,
}

impl Meter for FakeMeter {
    fn used(&self) -> Duration {
        let mut used = self.used.lock().unwrap();
        if !self.is_idle.load(Ordering::Relaxed) {
            *used += Duration::from_secs(1);
        }
        *used
    }

    fn quota(&self) -> Option<Duration> {
        Some(Duration::from_millis(100))
    }
}

/// What the test holds of the worker.
struct Lone {
    worker: Rc<Worker>,
    meter: Arc<FakeMeter>,
    client: UdpSocket,
    upstream: UdpSocket,
    commands: mpsc::UnboundedSender<Command>,
}

impl Lone {
    /// Sends a query for each name; nothing is read of them before the next await.
    fn send(&self, names: impl IntoIterator<Item = String>) {
        for (id, name) in names.into_iter().enumerate() {
            self.client.send(&query(&name, id as u16)).unwrap();
        }
    }

    /// The reply to the next query that is answered, if one is.
    fn replied(&self) -> Option<Vec<u8>> {
        let mut buffer = [0; 512];
        let length = self.client.recv(&mut buffer).ok()?;
        Some(buffer[..length].to_vec())
    }

    /// The first of `look` that is there.
    async fn until<T>(&self, mut look: impl FnMut() -> Option<T>) -> T {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = look() {
                return found;
            }
            assert!(Instant::now() < end, "it does not come");
            yield_now().await;
        }
    }

    /// The value of a counter.
    fn counted(&self, counter: &str) -> usize {
        let text = self.worker.equipment.metrics.text();
        let line = text.lines().find_map(|line| line.strip_prefix(counter));
        line.map_or(0, |value| value.trim().parse().unwrap())
    }
}

/// Runs `test` beside a worker, and answers its queries of `hit.test` with 192.0.2.9. Others go to an
/// upstream that says nothing by itself.
fn beside_a_worker<F: Future<Output = ()>>(test: impl FnOnce(Lone) -> F) {
    beside_a_worker_with("", test);
}

/// The same, with more directives.
fn beside_a_worker_with<F: Future<Output = ()>>(more: &str, test: impl FnOnce(Lone) -> F) {
    let upstream = UdpSocket::bind("127.0.0.1:0").unwrap();
    upstream.set_nonblocking(true).unwrap();
    let corefile = format!(
        ".:0 {{\nbind 127.0.0.1\n{more}\nhosts {{\n192.0.2.9 hit.test\nfallthrough\n}}\nforward . {}\n}}\n",
        upstream.local_addr().unwrap()
    );
    let meter = Arc::new(FakeMeter::default());
    let equipment = Equipment {
        workers: 1,
        clock: Clock::start(),
        metrics: Registry::new(1),
        journal: Arc::new(FakeJournal::default()),
        budget: Arc::default(),
        meter: meter.clone(),
    };
    let snapshot = snapshot(&corefile, &equipment.metrics);
    let bound = bind(&Address::of(&snapshot.servers[0]), 1).unwrap();
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.connect(bound[0].local).unwrap();
    client.set_nonblocking(true).unwrap();
    let rests = Arc::new(Rests::new(meter.clone()));
    while !rests.has_quota() {
        std::thread::sleep(Duration::from_millis(100));
        rests.look();
    }
    let shared = Shared::new(&equipment.metrics, 1);
    let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let tasks = Rc::new(LocalSet::new());
    let known = Rc::downgrade(&tasks);
    tasks.block_on(&runtime, async move {
        let worker = Worker::new(equipment, Arc::new(Node::new(1)), shared, 0, rests);
        let worker = Rc::new(worker);
        works_here(&known, &worker);
        let (commands, given) = mpsc::unbounded_channel();
        spawn_local(run(worker.clone(), given));
        let (done, _all_done) = channel();
        assert!(commands.send(Command::Publish { snapshot, bound, done }).is_ok());
        test(Lone { worker, meter, client, upstream, commands }).await;
    });
}

fn misses(count: usize) -> impl Iterator<Item = String> {
    (0..count).map(|number| format!("n{number}.miss.test."))
}

const SHED: &str = "nodens_queries_shed_total{reason=\"cpu\"} ";
const HELD_BACK: &str = "nodens_queries_held_back_total ";

#[test]
fn a_hit_is_answered_before_misses_that_came_earlier() {
    const SENT: usize = 400;
    beside_a_worker(|lone| async move {
        lone.send(misses(SENT));
        lone.send(["hit.test.".to_owned()]);
        let reply = lone.until(|| lone.replied()).await;
        assert_eq!(last_octet(&reply), Some(9));
        // One goes on in 10 ms in any case.
        let waiting = lone.worker.thrift.waiting();
        assert!((SENT - 100..=SENT).contains(&waiting), "{waiting}");
        assert_eq!(lone.counted(HELD_BACK), SENT);
        // Once there is CPU time they are asked, but for those that waited too long meanwhile.
        lone.meter.is_idle.store(true, Ordering::Relaxed);
        let mut asked = 0;
        let none_is_left = || {
            while lone.upstream.recv(&mut [0; 512]).is_ok() {
                asked += 1;
            }
            (asked + lone.counted(SHED) == SENT).then_some(())
        };
        lone.until(none_is_left).await;
        assert_eq!(lone.worker.thrift.waiting(), 0);
    });
}

#[test]
fn misses_beyond_the_bound_are_shed_and_counted_and_hits_are_not() {
    const TOGETHER: usize = 200;
    beside_a_worker(|lone| async move {
        let (mut sent, mut replies) = (0, 0);
        while sent < TURNS_MOST + 2 * TOGETHER {
            lone.send(misses(sent + TOGETHER).skip(sent));
            sent += TOGETHER;
            let all_are_read = || {
                replies += std::iter::from_fn(|| lone.replied()).count();
                let read = lone.counted(HELD_BACK) + lone.counted(SHED);
                (read >= sent).then_some(())
            };
            lone.until(all_are_read).await;
            assert!(lone.worker.thrift.waiting() <= TURNS_MOST);
        }
        assert!(lone.counted(SHED) > 0);
        // Nothing is said to those that found no place: their clients ask again later.
        let gone = lone.counted(HELD_BACK) - lone.worker.thrift.waiting();
        assert!(replies <= gone, "{replies} of {gone}");
        lone.send(["hit.test.".to_owned()]);
        let the_hit_s = || lone.replied().filter(|reply| reply[3] & 15 == 0);
        assert_eq!(last_octet(&lone.until(the_hit_s).await), Some(9));
    });
}

#[test]
fn a_question_whose_turn_does_not_come_in_time_is_shed_and_counted() {
    beside_a_worker(|lone| async move {
        lone.send(misses(400));
        lone.until(|| (lone.counted(SHED) > 0).then_some(())).await;
        assert_eq!(lone.counted(HELD_BACK), 400, "each had a place");
    });
}

#[test]
fn what_has_arrived_when_reading_stops_is_answered_also_if_it_is_several_batches() {
    const SENT: usize = 200;
    beside_a_worker(|lone| async move {
        lone.send(std::iter::repeat_n("hit.test.".to_owned(), SENT));
        let (done, all_done) = channel();
        let stop = Command::StopReading { after: SocketsAfter::Closed, done };
        assert!(lone.commands.send(stop).is_ok());
        lone.until(|| all_done.try_recv().ok()).await;
        assert_eq!(std::iter::from_fn(|| lone.replied()).count(), SENT);
    });
}

#[test]
fn a_question_asked_by_many_has_one_turn() {
    beside_a_worker(|lone| async move {
        lone.send(std::iter::repeat_n("same.miss.test.".to_owned(), 300));
        lone.send(["hit.test.".to_owned()]);
        lone.until(|| lone.replied()).await;
        assert_eq!(lone.counted("nodens_queries_held_back_total "), 1);
        assert_eq!(lone.counted("nodens_queries_joined_total "), 299);
    });
}

#[test]
fn a_hit_is_answered_between_the_turns_of_those_that_waited() {
    beside_a_worker(|lone| async move {
        lone.send(["hit.test.".to_owned()]);
        lone.until(|| lone.replied()).await;
        lone.send(["hit.test.".to_owned()]);
        let end = Instant::now() + PATIENCE;
        // Nothing else of the worker comes to its turn: nobody waits here.
        let reply = loop {
            lone.worker.look_between();
            if let Some(reply) = lone.replied() {
                break reply;
            }
            assert!(Instant::now() < end, "it does not come");
        };
        assert_eq!(last_octet(&reply), Some(9));
    });
}

#[test]
fn what_was_there_when_the_worker_woke_has_its_own_turn() {
    beside_a_worker(|lone| async move {
        // The worker's turn began when this query came.
        lone.send(["hit.test.".to_owned()]);
        lone.until(|| lone.replied()).await;
        let ages_ago = || lone.worker.received.set(Duration::ZERO);
        ages_ago();
        while woke() {}
        assert!(lone.worker.is_time_to_look(PATIENCE));
        Rests::new(Arc::new(OwnMeter)).after_waiting();
        ages_ago();
        assert!(!lone.worker.is_time_to_look(PATIENCE));
        assert!(lone.worker.is_time_to_look(UNSEEN_BESIDE_LONG), "it counts from then");
    });
}

#[test]
fn while_hundreds_wait_every_step_is_taken_for_a_long_one() {
    beside_a_worker(|lone| async move {
        let places = &lone.worker.node.places;
        let take = || places.take(lone.client.local_addr().unwrap().ip()).unwrap();
        let mut taken: Vec<_> = (0..CROWD).map(|_| take()).collect();
        lone.worker.received.set(lone.worker.now().monotonic);
        while woke() {}
        assert!(!lone.worker.is_time_to_look(PATIENCE));
        taken.push(take());
        let end = Instant::now() + PATIENCE;
        while !lone.worker.is_time_to_look(PATIENCE) {
            assert!(Instant::now() < end, "not before");
        }
        taken.iter().for_each(|place| places.give(place));
    });
}

#[test]
fn a_hit_is_answered_between_the_turns_of_connections_to_upstreams() {
    beside_a_worker(|lone| async move {
        lone.send(["hit.test.".to_owned()]);
        lone.until(|| lone.replied()).await;
        let client = lone.client.try_clone().unwrap();
        // Not among the worker's own tasks, as those of connections are not.
        let hit = tokio::spawn(async move {
            let mut connection = in_turns(std::future::pending::<()>());
            for (id, name) in [(1, "n.miss.test."), (2, "hit.test.")] {
                client.send(&query(name, id)).unwrap();
            }
            let end = Instant::now() + PATIENCE;
            let mut reply = [0; 512];
            // Nothing else of the thread comes to its turn: nobody waits here.
            loop {
                let turn = Pin::new(&mut connection).poll(&mut Context::from_waker(Waker::noop()));
                assert!(turn.is_pending());
                if let Ok(length) = client.recv(&mut reply) {
                    break reply[..length].to_vec();
                }
                assert!(Instant::now() < end, "it does not come");
            }
        });
        assert_eq!(last_octet(&hit.await.unwrap()), Some(9));
        assert_eq!(lone.counted(HELD_BACK), 1, "the miss waits, as a task of the worker's");
    });
}

#[test]
fn what_was_given_up_and_has_no_place_to_go_on_in_is_asked_anew_by_the_next() {
    beside_a_worker_with("cancel 1s", |lone| async move {
        lone.meter.is_idle.store(true, Ordering::Relaxed);
        lone.worker.node.refreshes.fetch_add(REFRESHES_MOST, Ordering::Relaxed);
        let asked = || {
            let mut buffer = [0; 512];
            let (length, from) = lone.upstream.recv_from(&mut buffer).ok()?;
            Some((buffer[..length].to_vec(), from))
        };
        lone.send(["n.miss.test.".to_owned()]);
        lone.until(asked).await;
        let cancelled = lone.until(|| lone.replied()).await;
        assert_eq!(cancelled[3] & 15, 2, "SERVFAIL");
        assert_eq!(lone.counted("nodens_queries_shed_total{reason=\"refresh\"} "), 1);
        // The upstream is asked again for the next one: nothing is left that it could wait for.
        while asked().is_some() {}
        lone.send(["n.miss.test.".to_owned()]);
        lone.until(asked).await;
        assert_eq!(lone.counted("nodens_queries_joined_total "), 0);
        lone.worker.node.refreshes.fetch_sub(REFRESHES_MOST, Ordering::Relaxed);
    });
}
