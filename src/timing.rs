
#![allow(warnings, clippy::all, clippy::pedantic, missing_docs)]
use std::{collections::BTreeMap, sync::Mutex, time::Instant};
static T: Mutex<BTreeMap<&'static str, (u128, u64)>> = Mutex::new(BTreeMap::new());
pub fn add(name: &'static str, since: Instant) { let e = since.elapsed().as_nanos(); let mut t = T.lock().unwrap(); let x = t.entry(name).or_default(); x.0 += e; x.1 += 1; }
pub fn print() { let t = T.lock().unwrap(); let mut s = String::new(); for (k, (ns, n)) in t.iter() { s.push_str(&format!("TIMING {k:30} {:9.1} ms {n:6} x {:8.1} us\n", *ns as f64/1e6, *ns as f64/1e3/ *n as f64)); } let _ = std::fs::write("/tmp/timing.txt", s); }
pub fn count(name: &'static str, n: usize) { let mut t = T.lock().unwrap(); let x = t.entry(name).or_default(); x.0 += (n as u128)*1000; x.1 += 1; }
