//! Who asks, and what they may.
//!
//! On the listener everybody brings a token; the file of tokens has their hashes only. On the control
//! socket, which only the book's owner can open, a caller without a token is an operator by the name that
//! they give. Whatever else can say who somebody is (a session of the operator page) puts a [`Principal`]
//! into the request before [`authenticate`] runs, and handlers see no difference.

use std::{
    fmt,
    fs::{self, File},
    io::Read as _,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    str::FromStr,
    sync::{Arc, Mutex, PoisonError},
};

use axum::{
    extract::{FromRequestParts, Request, State},
    http::{HeaderMap, HeaderName, StatusCode, header, request::Parts},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use utoipa::ToSchema;

use super::problem::Problem;
use crate::domain::action::{Operator, WORDS_BYTES_MAX};

/// Largest file of tokens, in bytes.
const TOKENS_BYTES_MAX: u64 = 64 * 1_024;
/// Longest name in it, in bytes.
const NAME_BYTES_MAX: usize = 64;
/// Longest token that is looked at, in bytes.
const TOKEN_BYTES_MAX: usize = 256;
/// Before every token, so that one that leaked is known for what it is.
const TOKEN_PREFIX: &str = "settled_";
/// Random bytes in a token.
const TOKEN_RANDOM_BYTES: usize = 32;
/// Permission bits that let others than the owner change a file.
const OTHERS_WRITE: u32 = 0o022;

/// The header with the caller's name on the control socket.
pub const WHO_HEADER: HeaderName = HeaderName::from_static("x-settled-who");

/// What somebody may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Look.
    ReadOnly,
    /// Look and act.
    Operator,
}

impl FromStr for Role {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        match word {
            "read-only" => Ok(Self::ReadOnly),
            "operator" => Ok(Self::Operator),
            _ => Err("there are the roles read-only and operator".to_owned()),
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ReadOnly => "read-only",
            Self::Operator => "operator",
        })
    }
}

/// The SHA-256 of a token: what the file has, and what a session of the page stands for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct TokenHash([u8; 32]);

impl TokenHash {
    /// The hash of a token.
    pub(super) fn of(token: &str) -> Self {
        Self(Sha256::digest(token).into())
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenHash")
    }
}

/// Somebody who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// Their name, which goes into the journal.
    pub name: String,
    /// What they may do.
    pub role: Role,
    /// Whether they have shown who they are. On the control socket a name is only said.
    pub proved: bool,
}

/// Somebody who may act.
#[derive(Clone, Debug)]
pub struct Acting(pub Principal);

impl Acting {
    /// Them with a reason.
    ///
    /// # Errors
    /// [`Problem`], when there is none.
    pub fn because(&self, reason: &str) -> Result<Operator, Problem> {
        Operator::new(&self.0.name, reason).map_err(Problem::bad)
    }
}

impl<S: Sync> FromRequestParts<S> for Principal {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        parts.extensions.get::<Self>().cloned().ok_or_else(nobody)
    }
}

impl<S: Sync> FromRequestParts<S> for Acting {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let principal = Principal::from_request_parts(parts, state).await?;
        match principal.role {
            Role::Operator => Ok(Self(principal)),
            Role::ReadOnly => {
                let name = &principal.name;
                Err(Problem::new(StatusCode::FORBIDDEN, format!("{name} may look and not act")))
            }
        }
    }
}

fn nobody() -> Problem {
    Problem::new(StatusCode::UNAUTHORIZED, "a token is needed: Authorization: Bearer TOKEN")
}

/// How somebody came in.
#[derive(Clone, Debug)]
pub enum Door {
    /// Over the listener: with a token only.
    Listener(Arc<Tokens>),
    /// Over the control socket: with a token, or as who they say they are.
    Socket(Option<Arc<Tokens>>),
}

/// Finds out who asks, and lets nobody else in.
pub async fn authenticate(State(door): State<Door>, mut request: Request, next: Next) -> Response {
    if request.extensions().get::<Principal>().is_none() {
        match admitted(&door, request.headers()) {
            Ok(principal) => {
                request.extensions_mut().insert(principal);
            }
            Err(problem) => {
                let challenge = [(header::WWW_AUTHENTICATE, "Bearer")];
                return (challenge, problem).into_response();
            }
        }
    }
    next.run(request).await
}

fn admitted(door: &Door, headers: &HeaderMap) -> Result<Principal, Problem> {
    let token = headers.get(header::AUTHORIZATION).map(|value| {
        let text = value.to_str().ok();
        text.and_then(|text| text.strip_prefix("Bearer ")).map(str::trim)
    });
    let tokens = match door {
        Door::Listener(tokens) => Some(tokens),
        Door::Socket(tokens) => tokens.as_ref(),
    };
    match (token, door, tokens) {
        (Some(Some(token)), _, Some(tokens)) => tokens.principal(token).ok_or_else(|| {
            Problem::new(StatusCode::UNAUTHORIZED, "the token is not one of http.tokens_file")
        }),
        (Some(Some(_)), _, None) => Err(Problem::new(
            StatusCode::UNAUTHORIZED,
            "the daemon knows no tokens: http.tokens_file is not set",
        )),
        (None, Door::Socket(_), _) => said(headers),
        (Some(None) | None, _, _) => Err(nobody()),
    }
}

/// Who a caller on the control socket says they are.
fn said(headers: &HeaderMap) -> Result<Principal, Problem> {
    let who = headers.get(WHO_HEADER).map(|value| String::from_utf8_lossy(value.as_bytes()));
    let name = who.as_deref().map(str::trim).filter(|name| !name.is_empty());
    let name = name.ok_or_else(|| Problem::bad(format!("{WHO_HEADER} must say who asks")))?;
    if name.len() > WORDS_BYTES_MAX {
        return Err(Problem::bad(format!("{WHO_HEADER} is longer than {WORDS_BYTES_MAX} bytes")));
    }
    Ok(Principal { name: name.to_owned(), role: Role::Operator, proved: false })
}

/// Why a file of tokens cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TokensError {
    /// The system would not open or read it.
    #[error("http.tokens_file {path} cannot be read: {reason}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What happened.
        reason: String,
    },
    /// Others could add themselves.
    #[error(
        "http.tokens_file {path} has mode {mode:04o}: others may change it. Run: chmod go-w {path}"
    )]
    TooOpen {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A line that is none.
    #[error("http.tokens_file {path}, line {line}: {reason}")]
    BadLine {
        /// The file.
        path: PathBuf,
        /// The line, counted from one.
        line: usize,
        /// What is wrong with it. Never the line itself: somebody may have put a token there.
        reason: String,
    },
}

struct Entry {
    name: String,
    role: Role,
    hash: [u8; 32],
}

/// What tells one version of a file from another.
type Stamp = (i64, i64, u64, u64);

struct Known {
    stamp: Stamp,
    /// Nobody, while the file is not in order.
    entries: Vec<Entry>,
}

/// The tokens that are known, by their hashes. The file is read again when it has changed.
pub struct Tokens {
    path: PathBuf,
    known: Mutex<Known>,
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tokens({})", self.path.display())
    }
}

impl Tokens {
    /// Reads the file.
    ///
    /// # Errors
    /// [`TokensError`].
    pub fn open(path: &Path) -> Result<Self, TokensError> {
        let (stamp, entries) = read(path)?;
        let known = Mutex::new(Known { stamp, entries });
        Ok(Self { path: path.to_owned(), known })
    }

    /// Whose token this is.
    #[must_use]
    pub fn principal(&self, token: &str) -> Option<Principal> {
        (token.len() <= TOKEN_BYTES_MAX).then(|| self.principal_of(TokenHash::of(token))).flatten()
    }

    /// Whose token has this hash.
    pub(super) fn principal_of(&self, TokenHash(hash): TokenHash) -> Option<Principal> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        self.look_again(&mut known);
        let mut found = None;
        // All are compared, so that the time it takes tells nothing.
        for entry in &known.entries {
            if bool::from(entry.hash.ct_eq(&hash)) {
                found =
                    Some(Principal { name: entry.name.clone(), role: entry.role, proved: true });
            }
        }
        found
    }

    /// Reads the file again if it has changed. A file that is not in order lets nobody in: it may have been
    /// changed to keep somebody out.
    fn look_again(&self, known: &mut Known) {
        let stamp = fs::metadata(&self.path).map(|file| stamp(&file));
        if stamp.as_ref().is_ok_and(|stamp| *stamp == known.stamp) {
            return;
        }
        match read(&self.path) {
            Ok((stamp, entries)) => {
                tracing::info!(tokens = entries.len(), "http.tokens_file was read again");
                *known = Known { stamp, entries };
            }
            Err(error) => {
                tracing::error!(%error, "nobody can use the API until that is put right");
                *known = Known { stamp: stamp.unwrap_or_default(), entries: Vec::new() };
            }
        }
    }
}

fn stamp(file: &fs::Metadata) -> Stamp {
    (file.mtime(), file.mtime_nsec(), file.size(), file.ino())
}

fn read(path: &Path) -> Result<(Stamp, Vec<Entry>), TokensError> {
    let unreadable = |reason: String| TokensError::Unreadable { path: path.to_owned(), reason };
    let file = File::open(path).map_err(|error| unreadable(error.to_string()))?;
    let metadata = file.metadata().map_err(|error| unreadable(error.to_string()))?;
    if !metadata.is_file() {
        return Err(unreadable("it is not a regular file".to_owned()));
    }
    let mode = metadata.mode() & 0o777;
    if mode & OTHERS_WRITE != 0 {
        return Err(TokensError::TooOpen { path: path.to_owned(), mode });
    }
    let mut text = String::new();
    let read = file.take(TOKENS_BYTES_MAX.saturating_add(1)).read_to_string(&mut text);
    read.map_err(|error| unreadable(error.to_string()))?;
    if u64::try_from(text.len()).is_ok_and(|bytes| bytes > TOKENS_BYTES_MAX) {
        return Err(unreadable(format!("it has more than {TOKENS_BYTES_MAX} bytes")));
    }
    let mut entries = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line_no = index.saturating_add(1);
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let entry = entry(line).map_err(|reason| TokensError::BadLine {
            path: path.to_owned(),
            line: line_no,
            reason,
        })?;
        entries.push(entry);
    }
    Ok((stamp(&metadata), entries))
}

fn entry(line: &str) -> Result<Entry, String> {
    let mut parts = line.split(':');
    let (Some(name), Some(role), Some(hash), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err("it must be NAME:ROLE:HASH; `settled token new NAME` makes one".to_owned());
    };
    check_name(name)?;
    let mut bytes = [0; 32];
    hex::decode_to_slice(hash, &mut bytes).map_err(|_| {
        "HASH must be the token's SHA-256, 64 hexadecimal characters; never the token".to_owned()
    })?;
    Ok(Entry { name: name.to_owned(), role: role.parse()?, hash: bytes })
}

/// Whether a name can stand in the file.
///
/// # Errors
/// What is wrong with it.
pub fn check_name(name: &str) -> Result<(), String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "._-@".contains(c);
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.chars().all(fits) {
        return Err(format!("NAME must have 1 to {NAME_BYTES_MAX} letters, digits or . _ - @"));
    }
    Ok(())
}

/// A new token, and the line that lets its holder in.
#[must_use]
pub fn new_token(name: &str, role: Role) -> (zeroize::Zeroizing<String>, String) {
    let random: [u8; TOKEN_RANDOM_BYTES] = rand::random();
    let token = zeroize::Zeroizing::new(format!("{TOKEN_PREFIX}{}", hex::encode(random)));
    let line = format!("{name}:{role}:{}", hex::encode(Sha256::digest(token.as_bytes())));
    (token, line)
}

#[cfg(test)]
mod tests {
    use std::{io::Write as _, os::unix::fs::PermissionsExt as _};

    use super::*;

    fn file(lines: &str) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        write!(file, "{lines}").unwrap();
        file
    }

    #[test]
    fn a_token_is_known_by_its_hash_and_taken_back_by_removing_its_line() {
        let (alice, one) = new_token("alice", Role::Operator);
        let (bob, two) = new_token("bob", Role::ReadOnly);
        let mut file = file(&format!("# who may do what\n{one}\n\n{two}\n"));
        let tokens = Tokens::open(file.path()).unwrap();
        let found = tokens.principal(&alice).unwrap();
        assert_eq!(
            (found.name.as_str(), found.role, found.proved),
            ("alice", Role::Operator, true)
        );
        assert_eq!(tokens.principal(&bob).unwrap().role, Role::ReadOnly);
        for other in ["", "settled_", &alice[1..], &format!("{}x", *alice), &"x".repeat(10_000)] {
            assert_eq!(tokens.principal(other), None, "{other}");
        }
        assert!(!one.contains(&*alice) && !format!("{tokens:?}").contains(&one[10..]));

        file.as_file().set_len(0).unwrap();
        std::io::Seek::rewind(&mut file).unwrap();
        writeln!(file, "{two}").unwrap();
        assert_eq!(tokens.principal(&alice), None);
        assert!(tokens.principal(&bob).is_some());
    }

    #[test]
    fn a_file_that_is_not_in_order_is_refused_without_showing_it_and_lets_nobody_in() {
        let (token, line) = new_token("alice", Role::Operator);
        for bad in [
            format!("alice:operator:{}", *token),
            format!("alice:{}", *token),
            "al ice:operator:00".to_owned(),
            line.replace("operator", "root"),
            format!("{line}:"),
        ] {
            let error = Tokens::open(file(&bad).path()).unwrap_err().to_string();
            assert!(error.contains("line 1") && !error.contains(&*token), "{error}");
        }
        let mut good = file(&format!("{line}\n"));
        let tokens = Tokens::open(good.path()).unwrap();
        writeln!(good, "half a line").unwrap();
        assert_eq!(tokens.principal(&token), None, "it is closed while it is not in order");

        let open = file(&line);
        open.as_file().set_permissions(fs::Permissions::from_mode(0o664)).unwrap();
        let error = Tokens::open(open.path()).unwrap_err().to_string();
        assert!(error.contains("chmod go-w"), "{error}");
        assert!(Tokens::open(Path::new("/nowhere/tokens")).is_err());
    }

    #[test]
    fn on_the_socket_a_name_is_said_and_a_token_proves_it() {
        let (token, line) = new_token("alice", Role::ReadOnly);
        let file = file(&line);
        let tokens = Arc::new(Tokens::open(file.path()).unwrap());
        let ask = |door: &Door, headers: &[(HeaderName, String)]| {
            let headers: HeaderMap = headers
                .iter()
                .map(|(name, value)| (name.clone(), value.parse().unwrap()))
                .collect();
            admitted(door, &headers)
        };
        let (listener, socket) =
            (Door::Listener(Arc::clone(&tokens)), Door::Socket(Some(Arc::clone(&tokens))));
        let who = (WHO_HEADER, "bob (uid 0)".to_owned());
        let bearer = (header::AUTHORIZATION, format!("Bearer {}", *token));
        let said = ask(&socket, std::slice::from_ref(&who)).unwrap();
        assert_eq!(
            (said.name.as_str(), said.role, said.proved),
            ("bob (uid 0)", Role::Operator, false)
        );
        let proved = ask(&socket, &[who.clone(), bearer.clone()]).unwrap();
        assert_eq!(
            (proved.name.as_str(), proved.role, proved.proved),
            ("alice", Role::ReadOnly, true)
        );
        assert_eq!(ask(&listener, &[bearer]).unwrap().name, "alice");
        let wrong = (header::AUTHORIZATION, "Bearer settled_0".to_owned());
        let basic = (header::AUTHORIZATION, "Basic Ym9iOng=".to_owned());
        for (door, headers) in [
            (&listener, vec![who.clone()]),
            (&listener, vec![]),
            (&listener, vec![wrong.clone()]),
            (&listener, vec![basic.clone()]),
            // A token that is none is not overlooked because the socket is open.
            (&socket, vec![who.clone(), wrong.clone()]),
            (&socket, vec![who, basic]),
            (&Door::Socket(None), vec![wrong]),
            (&socket, vec![]),
        ] {
            let problem = ask(door, &headers).unwrap_err();
            assert!(!problem.detail().contains(&*token), "{problem:?}");
        }
    }
}
