//! `settled`.
fn main() {}
