//! The rules: what a job is, what may happen to it, what is decided, signed and booked.
//!
//! Nothing here does I/O, awaits, or reads a clock; time arrives as an argument. What must never
//! happen in this room: a dependency on the broker, the database, HTTP or the key. A test greps for
//! it (`tests/architecture.rs`).
//!
//! Reading order: [`ids`] and [`amount`] are the vocabulary, [`job`] and [`message`] what arrives,
//! [`book`], [`ledger`] and [`limits`] what the exchange holds and accepts, [`policy`] and [`decision`] the answer,
//! [`payload`] what is signed, [`reply`] and [`record`] what OES says, [`state`] what follows, and
//! [`schedule`] and [`gate`] when to try again, and [`turns`] who goes first. [`shown`] is what OES's
//! lists show, [`decimals`] how its amounts are read, [`paging`] how a list is read to its end;
//! [`verification`] says whether a message is what OES's record says, and [`sync`], [`adopt`] and
//! [`difference`] what follows where the book and OES do not agree. [`feed`] keeps the order of what the
//! exchange feeds, and [`lag`] says whether the book is far enough for a decision. [`alert`] is what people are
//! told of, and
//! [`action`] what operators do.

pub mod action;
pub mod adopt;
pub mod alert;
pub mod amount;
pub mod announcement;
pub mod book;
pub mod decimals;
pub mod decision;
pub mod difference;
pub mod evidence;
pub mod feed;
pub mod gate;
pub mod ids;
pub mod job;
pub mod journal;
pub mod lag;
pub mod ledger;
pub mod limits;
pub mod message;
pub mod news;
pub mod object;
pub mod paging;
pub mod payload;
pub mod policy;
pub mod proof;
pub mod record;
pub mod reply;
pub mod schedule;
pub mod shown;
pub mod state;
pub mod sync;
pub mod time;
pub mod turns;
pub mod verification;

#[cfg(test)]
mod tests;
