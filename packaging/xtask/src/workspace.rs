//! Where the workspace is and which crates it has.

use std::fs;
use std::path::{Path, PathBuf};

use crate::failure::Failure;

/// The work tree of the workspace.
pub(crate) struct Workspace {
    root: PathBuf,
}

impl Workspace {
    /// Finds the root from the place of this crate, which is two folders below it.
    pub(crate) fn locate() -> Result<Self, Failure> {
        // cargo sets the variable when it runs the recipe; the compiled-in value serves a copied binary.
        let here = std::env::var_os("CARGO_MANIFEST_DIR")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let root = here.join("../..");
        let root = root
            .canonicalize()
            .map_err(|source| Failure::File { path: root, source })?;
        Ok(Self { root })
    }

    /// Returns the root folder, absolute.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Returns the absolute path of something in the tree.
    pub(crate) fn path(&self, relative: impl AsRef<Path>) -> PathBuf {
        self.root.join(relative)
    }

    /// Returns where cargo builds.
    pub(crate) fn target_dir(&self) -> PathBuf {
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| self.path("target"), |folder| self.path(folder))
    }

    /// Reads a text file of the tree.
    pub(crate) fn read(&self, relative: impl AsRef<Path>) -> Result<String, Failure> {
        let path = self.path(relative);
        fs::read_to_string(&path).map_err(|source| Failure::File { path, source })
    }
}
