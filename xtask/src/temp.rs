//! Folders that vanish when the command ends.

use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use crate::Result;

/// A new, empty folder that only this user may enter; dropping it removes it with all it holds.
pub(crate) struct TempDir(PathBuf);

impl TempDir {
    /// Creates one below the system's folder for temporary files.
    ///
    /// # Errors
    /// It can't be created.
    pub(crate) fn new(purpose: &str) -> Result<TempDir> {
        TempDir::below(&std::env::temp_dir(), purpose)
    }

    /// Creates one below this folder, where that of temporary files might be in memory alone.
    ///
    /// # Errors
    /// It can't be created.
    pub(crate) fn below(folder: &Path, purpose: &str) -> Result<TempDir> {
        let path = folder.join(format!("mote-{purpose}-{}", std::process::id()));
        std::fs::DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .map_err(|error| format!("the folder {} can't be created: {error}", path.display()))?;
        Ok(TempDir(path))
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            eprintln!("the folder {} could not be removed: {error}", self.0.display());
        }
    }
}
