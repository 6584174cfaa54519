//! Reading a secret from a file that nobody else can read.
//!
//! Secrets come from files only: never from arguments, where every process of the machine sees
//! them, and never from the environment, where children and crash reports do.

use std::{
    env,
    fs::File,
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use zeroize::Zeroizing;

/// Largest secret file, in bytes: a token, an extended key or a password with room to spare.
pub const SECRET_BYTES_MAX: u64 = 16 * 1_024;

/// The variable in which systemd names the folder of a unit's credentials.
const CREDENTIALS_VARIABLE: &str = "CREDENTIALS_DIRECTORY";

/// Before a name: it is a credential of the systemd unit, not a path.
const CREDENTIAL_PREFIX: &str = "credential:";

/// Bits of a file's mode that say who may do what.
const PERMISSION_BITS: u32 = 0o777;

/// Why a secret cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SecretFileError {
    /// The system would not open or read it.
    #[error("cannot read {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A folder, a device or a pipe.
    #[error("{path} is not a regular file")]
    NotAFile {
        /// The file.
        path: PathBuf,
    },
    /// Somebody else can read or change it.
    #[error("{path} has mode {mode:04o}: others may read or change it. Run: chmod 600 {path}")]
    TooOpen {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It belongs to another user.
    #[error(
        "{path} belongs to user {owner}, and this process runs as user {user}. Run: chown {user} {path}"
    )]
    ForeignOwner {
        /// The file.
        path: PathBuf,
        /// Its owner.
        owner: u32,
        /// The user of this process.
        user: u32,
    },
    /// More than a secret can be.
    #[error("{path} is larger than {SECRET_BYTES_MAX} bytes: it is not a secret file")]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// Nothing in it.
    #[error("{path} is empty")]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// Not text.
    #[error("{path} is not UTF-8 text")]
    NotText {
        /// The file.
        path: PathBuf,
    },
    /// A `credential:` name outside a systemd unit.
    #[error(
        "{name:?} names a systemd credential, and {CREDENTIALS_VARIABLE} is not set: start from a unit with LoadCredential={name}:PATH, or give a path"
    )]
    NoCredentials {
        /// The credential.
        name: String,
    },
    /// A `credential:` name that is a path.
    #[error("{name:?} is not the name of a systemd credential")]
    BadCredential {
        /// The credential.
        name: String,
    },
}

/// Where a configured secret is: a path, or `credential:NAME` for a systemd credential.
///
/// # Errors
/// [`SecretFileError::NoCredentials`] and [`SecretFileError::BadCredential`].
fn locate(configured: &Path) -> Result<(PathBuf, bool), SecretFileError> {
    let credentials = env::var_os(CREDENTIALS_VARIABLE).map(PathBuf::from);
    let name = configured.to_str().and_then(|text| text.strip_prefix(CREDENTIAL_PREFIX));
    match (name, credentials) {
        (Some(name), _) if name.is_empty() || name.contains('/') || name.starts_with('.') => {
            Err(SecretFileError::BadCredential { name: name.to_owned() })
        }
        (Some(name), Some(folder)) => Ok((folder.join(name), true)),
        (Some(name), None) => Err(SecretFileError::NoCredentials { name: name.to_owned() }),
        (None, Some(folder)) => Ok((configured.to_owned(), configured.starts_with(folder))),
        (None, None) => Ok((configured.to_owned(), false)),
    }
}

/// Reads the secret in a file, without the white space around it. Owner and mode are checked on the
/// open descriptor, so that no other file can be put in its place in between.
///
/// # Errors
/// [`SecretFileError`], without a word of the secret.
pub fn read(configured: &Path) -> Result<Zeroizing<String>, SecretFileError> {
    let (path, is_credential) = locate(configured)?;
    let io = |source| SecretFileError::Io { path: path.clone(), source };
    let file = File::open(&path).map_err(io)?;
    let metadata = file.metadata().map_err(io)?;
    if !metadata.is_file() {
        return Err(SecretFileError::NotAFile { path });
    }
    check_access(&path, metadata.uid(), metadata.mode() & PERMISSION_BITS, is_credential)?;
    let mut text = Zeroizing::new(String::new());
    match file.take(SECRET_BYTES_MAX.saturating_add(1)).read_to_string(&mut text) {
        Ok(read) if u64::try_from(read).is_ok_and(|read| read > SECRET_BYTES_MAX) => {
            return Err(SecretFileError::TooLarge { path });
        }
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            return Err(SecretFileError::NotText { path });
        }
        Err(error) => return Err(io(error)),
    }
    let secret = text.trim();
    if secret.is_empty() {
        return Err(SecretFileError::Empty { path });
    }
    Ok(Zeroizing::new(secret.to_owned()))
}

fn check_access(
    path: &Path,
    owner: u32,
    mode: u32,
    is_credential: bool,
) -> Result<(), SecretFileError> {
    let user = rustix::process::geteuid().as_raw();
    // systemd gives credentials to the unit's user with an access list, which shows as the group's
    // bits, in a folder that nobody else can enter; their owner may be root.
    let (forbidden_bits, owner_is_right) =
        if is_credential { (0o337, owner == user || owner == 0) } else { (0o177, owner == user) };
    if !owner_is_right {
        Err(SecretFileError::ForeignOwner { path: path.to_owned(), owner, user })
    } else if mode & forbidden_bits != 0 {
        Err(SecretFileError::TooOpen { path: path.to_owned(), mode })
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;

    fn file(mode: u32, content: &[u8]) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        (folder, path)
    }

    #[test]
    fn reads_what_only_its_owner_can_read() {
        for mode in [0o600, 0o400] {
            let (_folder, path) = file(mode, b" secret\n");
            assert_eq!(read(&path).unwrap().as_str(), "secret");
        }
    }

    #[test]
    fn refuses_what_others_can_read_or_change() {
        for mode in [0o640, 0o604, 0o620, 0o602, 0o700, 0o644, 0o777] {
            let (_folder, path) = file(mode, b"secret");
            assert!(matches!(read(&path), Err(SecretFileError::TooOpen { .. })), "{mode:o}");
        }
    }

    #[test]
    fn refuses_what_is_no_secret_and_never_repeats_it() {
        let (_folder, empty) = file(0o600, b" \n");
        assert!(matches!(read(&empty), Err(SecretFileError::Empty { .. })));
        let (_folder, binary) = file(0o600, b"\xff\xfe");
        assert!(matches!(read(&binary), Err(SecretFileError::NotText { .. })));
        let (_folder, large) = file(0o600, &vec![b'x'; 20_000]);
        assert!(matches!(read(&large), Err(SecretFileError::TooLarge { .. })));
        let (folder, secret) = file(0o644, b"very-secret");
        assert!(!read(&secret).unwrap_err().to_string().contains("very-secret"));
        assert!(matches!(read(folder.path()), Err(SecretFileError::NotAFile { .. })));
    }

    #[test]
    fn a_credential_may_be_readable_by_its_group() {
        let user = rustix::process::geteuid().as_raw();
        let path = Path::new("/run/credentials/settled.service/key");
        assert!(check_access(path, 0, 0o440, true).is_ok());
        assert!(check_access(path, user, 0o400, true).is_ok());
        assert!(check_access(path, user, 0o444, true).is_err());
        assert!(check_access(path, user.wrapping_add(1), 0o400, true).is_err() || user == u32::MAX);
        assert!(check_access(path, user, 0o440, false).is_err());
    }
}
