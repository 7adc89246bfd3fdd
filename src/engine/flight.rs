//! Questions in flight: each is asked upstream once, however many wait for it.

/// The questions in flight of the whole node; `W` is what a waiting query leaves behind.
#[derive(Debug)]
pub struct Flights<W> {
    waiting: std::marker::PhantomData<W>,
}

/// What a query is to its question.
#[derive(Debug, PartialEq, Eq)]
pub enum Role {
    /// The first: it asks.
    Leader,
    /// One asked already: it waits.
    Follower,
}
