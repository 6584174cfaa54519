//! What the daemon promised to others, read from the bytes on its connections: acknowledgements to the
//! broker, and updates to OES.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::recording::Event;

/// AMQP's numbers.
const METHOD_FRAME: u8 = 1;
const BODY_FRAME: u8 = 3;
const FRAME_END: u8 = 0xce;
const BASIC_DELIVER: [u8; 4] = [0, 60, 0, 60];
const BASIC_ACK: [u8; 4] = [0, 60, 0, 80];
const AMQP_GREETING: &[u8] = b"AMQP";
const AMQP_GREETING_LEN: usize = 8;

/// Something that the daemon may only say about what is on the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Promise {
    /// This message is recorded; the broker may forget it.
    Acknowledged(Vec<u8>),
    /// This body was sent to OES.
    Sent(Vec<u8>),
}

/// The connections of one process.
#[derive(Default)]
pub(crate) struct Wire {
    connections: HashMap<i32, Connection>,
}

/// The messages that were acknowledged so far.
pub(crate) fn acknowledged(events: &[Event]) -> HashSet<Vec<u8>> {
    let mut wire = Wire::default();
    let promises = events.iter().flat_map(|event| wire.apply(event));
    promises
        .filter_map(|promise| match promise {
            Promise::Acknowledged(message) => Some(message),
            Promise::Sent(_) => None,
        })
        .collect()
}

#[derive(Default)]
struct Connection {
    is_amqp: bool,
    outgoing: Vec<u8>,
    incoming: Vec<u8>,
    /// Messages by channel and delivery tag that are not acknowledged.
    open: BTreeMap<(u16, u64), Vec<u8>>,
    /// The delivery whose parts are arriving, by channel.
    arriving: HashMap<u16, u64>,
}

impl Wire {
    /// What is promised by an event.
    pub(crate) fn apply(&mut self, event: &Event) -> Vec<Promise> {
        match event {
            Event::Started => self.connections.clear(),
            Event::Closed(fd) => drop(self.connections.remove(fd)),
            Event::Arrived(fd, bytes) => self.arrive(*fd, bytes),
            Event::Left(fd, bytes) => return self.leave(*fd, bytes),
            _ => {}
        }
        Vec::new()
    }

    fn arrive(&mut self, fd: i32, bytes: &[u8]) {
        let connection = self.connections.entry(fd).or_default();
        if !connection.is_amqp {
            return;
        }
        connection.incoming.extend_from_slice(bytes);
        while let Some(frame) = take_frame(&mut connection.incoming) {
            connection.hear(&frame);
        }
    }

    /// What is promised by these bytes, with those that left before them.
    fn leave(&mut self, fd: i32, bytes: &[u8]) -> Vec<Promise> {
        let connection = self.connections.entry(fd).or_default();
        connection.outgoing.extend_from_slice(bytes);
        if connection.outgoing.starts_with(AMQP_GREETING) {
            connection.is_amqp = true;
            connection.outgoing.drain(..AMQP_GREETING_LEN);
        }
        let mut promises = Vec::new();
        if connection.is_amqp {
            while let Some(frame) = take_frame(&mut connection.outgoing) {
                promises.extend(connection.say(&frame));
            }
        } else {
            while let Some((head, body)) = take_request(&mut connection.outgoing) {
                if head.starts_with("PUT ") {
                    promises.push(Promise::Sent(body));
                }
            }
        }
        promises
    }
}

impl Connection {
    fn hear(&mut self, frame: &Frame) {
        let channel = frame.channel;
        match frame.kind {
            METHOD_FRAME if frame.payload.starts_with(&BASIC_DELIVER) => {
                let consumer_tag_len = usize::from(frame.payload[4]);
                let tag = number(&frame.payload[5 + consumer_tag_len..]);
                self.arriving.insert(channel, tag);
                self.open.insert((channel, tag), Vec::new());
            }
            BODY_FRAME => {
                if let Some(tag) = self.arriving.get(&channel) {
                    let message = self.open.get_mut(&(channel, *tag)).expect("it arrives");
                    message.extend_from_slice(&frame.payload);
                }
            }
            // The size in a header is not needed: what is acknowledged has arrived.
            _ => {}
        }
    }

    fn say(&mut self, frame: &Frame) -> Vec<Promise> {
        if frame.kind != METHOD_FRAME || !frame.payload.starts_with(&BASIC_ACK) {
            return Vec::new();
        }
        let (channel, tag) = (frame.channel, number(&frame.payload[4..]));
        let is_multiple = frame.payload[12] & 1 == 1;
        let first = if is_multiple { 0 } else { tag };
        let tags: Vec<_> =
            self.open.range((channel, first)..=(channel, tag)).map(|(key, _)| *key).collect();
        assert!(!tags.is_empty(), "nothing was delivered that acknowledgement {tag} could mean");
        tags.iter()
            .map(|key| Promise::Acknowledged(self.open.remove(key).expect("it is open")))
            .collect()
    }
}

struct Frame {
    kind: u8,
    channel: u16,
    payload: Vec<u8>,
}

fn take_frame(bytes: &mut Vec<u8>) -> Option<Frame> {
    let header = bytes.first_chunk::<7>()?;
    let (kind, channel) = (header[0], u16::from_be_bytes([header[1], header[2]]));
    let size = u32::from_be_bytes(header[3..7].try_into().unwrap()) as usize;
    if bytes.len() < 8 + size {
        return None;
    }
    let frame: Vec<u8> = bytes.drain(..8 + size).collect();
    assert_eq!(frame.last(), Some(&FRAME_END), "the bytes are not AMQP");
    Some(Frame { kind, channel, payload: frame[7..7 + size].to_vec() })
}

/// A whole HTTP/1.1 request: its head in text, and its body.
fn take_request(bytes: &mut Vec<u8>) -> Option<(String, Vec<u8>)> {
    let head_len = bytes.windows(4).position(|end| end == b"\r\n\r\n")? + 4;
    let head = String::from_utf8(bytes[..head_len].to_vec()).unwrap();
    let body_len = head
        .lines()
        .filter_map(|line| line.split_once(": "))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .map_or(0, |(_, length)| length.parse().unwrap());
    if bytes.len() < head_len + body_len {
        return None;
    }
    let request: Vec<u8> = bytes.drain(..head_len + body_len).collect();
    Some((head, request[head_len..].to_vec()))
}

fn number(bytes: &[u8]) -> u64 {
    u64::from_be_bytes(*bytes.first_chunk().unwrap())
}
