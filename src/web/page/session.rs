//! Who is signed in on the page: sessions in memory, so many at most, each for so long at most.
//!
//! A session stands for a token and never outlives it: at each request the token's hash is looked for in
//! `http.tokens_file` again, so that removing a line there ends the sessions that began with it.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::{bulk::Shown, failure::Failure};
use crate::{domain::time::TimestampMs, web::auth::TokenHash};

/// How long a session lasts at most.
pub(super) const LIFE_MAX: Duration = Duration::from_secs(12 * 3_600);
/// How long one lasts in which nothing is clicked. A page that refreshes itself is no click.
const IDLE_MAX: Duration = Duration::from_secs(2 * 3_600);
/// Most sessions at a time; the one that was used longest ago gives way.
const SESSIONS_MAX: usize = 128;
/// Most sessions of one token, likewise.
const SESSIONS_PER_TOKEN_MAX: usize = 8;
/// Random bytes in a session's id, and in what its forms carry.
const RANDOM_BYTES: usize = 32;
/// Longest id or form token that is looked at, in bytes.
const WORD_BYTES_MAX: usize = 128;

/// The hash under which a session is kept, so that memory holds nothing that opens one.
type Id = [u8; 32];

/// What is said once, on the next page.
#[derive(Clone, Debug)]
pub(super) struct Said {
    /// Whether it is good news.
    pub(super) good: bool,
    /// What became of what was asked for, a line for each thing.
    pub(super) lines: Vec<String>,
}

impl Said {
    /// That something was not done, and why.
    pub(super) fn failed(failure: &Failure) -> Self {
        Self { good: false, lines: vec![failure.detail().to_owned()] }
    }

    /// That something was done.
    pub(super) fn done(line: impl Into<String>) -> Self {
        Self { good: true, lines: vec![line.into()] }
    }

    /// That something was not done.
    pub(super) fn not_done(line: impl Into<String>) -> Self {
        Self { good: false, lines: vec![line.into()] }
    }
}

struct Session {
    token: TokenHash,
    csrf: String,
    began_at: TimestampMs,
    used_at: TimestampMs,
    said: Option<Said>,
    /// What a bulk action is about, as it was shown last.
    shown: Option<Shown>,
}

/// What a request may know of its session.
#[derive(Clone)]
pub(super) struct Open {
    id: Id,
    /// The token that it stands for.
    pub(super) token: TokenHash,
    /// What its forms carry.
    pub(super) csrf: String,
}

/// All sessions.
#[derive(Default)]
pub(super) struct Sessions {
    open: Mutex<HashMap<Id, Session>>,
}

fn random_word() -> Zeroizing<String> {
    let random: [u8; RANDOM_BYTES] = rand::random();
    Zeroizing::new(hex::encode(random))
}

fn hashed(word: &str) -> Option<Id> {
    (word.len() <= WORD_BYTES_MAX).then(|| Sha256::digest(word).into())
}

impl Session {
    fn is_over(&self, now: TimestampMs) -> bool {
        now.since(self.began_at) > LIFE_MAX || now.since(self.used_at) > IDLE_MAX
    }
}

impl Sessions {
    /// Begins a session for whoever has brought a token. Answers what their browser is to keep.
    pub(super) fn begin(&self, token: TokenHash, now: TimestampMs) -> Zeroizing<String> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|_, session| !session.is_over(now));
        let of_token = |session: &Session| session.token == token;
        if open.values().filter(|session| of_token(session)).count() >= SESSIONS_PER_TOKEN_MAX {
            forget_oldest(&mut open, of_token);
        }
        if open.len() >= SESSIONS_MAX {
            forget_oldest(&mut open, |_| true);
        }
        let word = random_word();
        let session = Session {
            token,
            csrf: random_word().to_string(),
            began_at: now,
            used_at: now,
            said: None,
            shown: None,
        };
        open.insert(Sha256::digest(word.as_bytes()).into(), session);
        word
    }

    /// The session that a browser's word opens. `is_used` is false for a page that refreshes itself.
    pub(super) fn find(&self, word: &str, is_used: bool, now: TimestampMs) -> Option<Open> {
        let id = hashed(word)?;
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let session = open.get_mut(&id)?;
        if session.is_over(now) {
            open.remove(&id);
            return None;
        }
        if is_used {
            session.used_at = now;
        }
        Some(Open { id, token: session.token, csrf: session.csrf.clone() })
    }

    /// Ends a session.
    pub(super) fn end(&self, session: &Open) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).remove(&session.id);
    }

    fn with<T>(&self, session: &Open, act: impl FnOnce(&mut Session) -> T) -> Option<T> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.get_mut(&session.id).map(act)
    }

    /// Keeps what the next page says.
    pub(super) fn say(&self, session: &Open, said: Said) {
        self.with(session, |session| session.said = Some(said));
    }

    /// What is to be said now, once.
    pub(super) fn hear(&self, session: &Open) -> Option<Said> {
        self.with(session, |session| session.said.take()).flatten()
    }

    /// Keeps what a bulk action is about; only the last one is kept.
    pub(super) fn show(&self, session: &Open, shown: Shown) {
        self.with(session, |session| session.shown = Some(shown));
    }

    /// Takes what was shown last, if it is that.
    pub(super) fn take_shown(&self, session: &Open, id: uuid::Uuid) -> Option<Shown> {
        self.with(session, |session| session.shown.take_if(|shown| shown.id == id)).flatten()
    }
}

fn forget_oldest(open: &mut HashMap<Id, Session>, which: impl Fn(&Session) -> bool) {
    let mine = open.iter().filter(|(_, session)| which(session));
    if let Some(id) = mine.min_by_key(|(_, session)| session.used_at).map(|(id, _)| *id) {
        open.remove(&id);
    }
}

impl Open {
    /// Whether a form is this session's.
    pub(super) fn owns(&self, form: &str) -> bool {
        bool::from(self.csrf.as_bytes().ct_eq(form.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> TimestampMs {
        TimestampMs::from_millis(1_000).after(Duration::from_secs(seconds))
    }

    fn token(number: u8) -> TokenHash {
        TokenHash::of(&number.to_string())
    }

    #[test]
    fn a_session_is_found_by_its_word_only_and_until_it_ends() {
        let sessions = Sessions::default();
        let (one, other) = (sessions.begin(token(1), at(0)), sessions.begin(token(2), at(0)));
        let open = sessions.find(&one, true, at(1)).unwrap();
        assert_eq!(open.token, token(1));
        let another = sessions.find(&other, true, at(1)).unwrap();
        assert!(open.owns(&open.csrf) && !open.owns(&another.csrf) && !open.owns(""));
        for wrong in ["", &one[1..], &"x".repeat(10_000)] {
            assert!(sessions.find(wrong, true, at(1)).is_none());
        }
        sessions.end(&open);
        assert!(sessions.find(&one, true, at(1)).is_none());
        assert!(sessions.find(&other, true, at(1)).is_some());
    }

    #[test]
    fn a_session_ends_when_nothing_is_clicked_and_at_the_latest_after_twelve_hours() {
        let sessions = Sessions::default();
        let word = sessions.begin(token(1), at(0));
        let idle = IDLE_MAX.as_secs();
        assert!(sessions.find(&word, true, at(idle)).is_some());
        // What refreshes by itself keeps nobody signed in.
        assert!(sessions.find(&word, false, at(2 * idle)).is_some());
        assert!(sessions.find(&word, true, at(2 * idle + 1)).is_none());
        let word = sessions.begin(token(1), at(0));
        let mut now = 0;
        while now <= LIFE_MAX.as_secs() {
            assert!(sessions.find(&word, true, at(now)).is_some());
            now += idle;
        }
        assert!(sessions.find(&word, true, at(LIFE_MAX.as_secs() + 1)).is_none());
    }

    #[test]
    fn sessions_are_bounded_and_the_one_that_was_used_longest_ago_gives_way() {
        let sessions = Sessions::default();
        let words: Vec<_> =
            (0..=SESSIONS_PER_TOKEN_MAX as u64).map(|n| sessions.begin(token(1), at(n))).collect();
        assert!(sessions.find(&words[0], true, at(9)).is_none());
        assert!(sessions.find(&words[1], true, at(9)).is_some());
        for number in 0..=u8::MAX {
            sessions.begin(token(number), at(10));
        }
        assert_eq!(sessions.open.lock().unwrap().len(), SESSIONS_MAX);
    }

    #[test]
    fn what_is_said_is_heard_once_and_by_its_session() {
        let sessions = Sessions::default();
        let one = sessions.begin(token(1), at(0));
        let other = sessions.begin(token(1), at(0));
        let (one, other) = (
            sessions.find(&one, true, at(0)).unwrap(),
            sessions.find(&other, true, at(0)).unwrap(),
        );
        sessions.say(&one, Said { good: true, lines: vec!["done".to_owned()] });
        assert!(sessions.hear(&other).is_none());
        assert!(sessions.hear(&one).is_some_and(|said| said.good && said.lines == ["done"]));
        assert!(sessions.hear(&one).is_none());
    }
}
