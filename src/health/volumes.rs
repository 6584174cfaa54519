//! The volumes that the daemon writes to, and how much room is left on them.

use std::path::{Path, PathBuf};

use crate::config::Config;

/// What stands on which volume.
#[derive(Clone, Debug, Default)]
pub struct Volumes(Vec<(&'static str, PathBuf)>);

impl Volumes {
    /// The folders of the book, its mark and its archive, as configured.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        let mut volumes = vec![("book", folder(&config.store.path))];
        volumes.extend(config.store.mark_path.as_deref().map(|file| ("mark", folder(file))));
        volumes.extend(config.archive.path.as_deref().map(|file| ("archive", folder(file))));
        Self(volumes)
    }

    /// How many bytes may still be written to each. One that cannot be asked is left out.
    #[must_use]
    pub fn free(&self) -> Vec<(&'static str, u64)> {
        self.0
            .iter()
            .filter_map(|(what, folder)| {
                let volume = rustix::fs::statvfs(folder).ok()?;
                // What is kept back for root is no room for us.
                Some((*what, volume.f_bavail.saturating_mul(volume.f_frsize)))
            })
            .collect()
    }
}

fn folder(file: &Path) -> PathBuf {
    match file.parent() {
        Some(folder) if folder != Path::new("") => folder.to_owned(),
        Some(_) | None => PathBuf::from("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_told_for_each_volume_and_a_missing_one_is_left_out() {
        let mut config = Config::default();
        config.store.path = "book.db".into();
        config.store.mark_path = Some("/proc/self/mark".into());
        config.archive.path = Some("/no/such/folder/archive.db".into());
        let free = Volumes::of(&config).free();
        let kinds: Vec<&str> = free.iter().map(|(kind, _)| *kind).collect();
        assert_eq!(kinds, ["book", "mark"]);
        assert!(free[0].1 > 0);
    }
}
