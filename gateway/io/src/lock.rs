//! Files that one process at a time may change.

use std::{
    fs::{File, TryLockError},
    ops::Deref,
};

/// A file that no other process has locked (`flock`) while this exists.
///
/// Dropping it gives the lock back at once. To close the file would not do: a program that another thread is starting has a
/// copy of each descriptor from its fork to its exec, and the lock lives as long as the last copy.
#[derive(Debug)]
pub struct LockedFile(File);

impl LockedFile {
    /// Locks an open file.
    ///
    /// # Errors
    /// `WouldBlock` when another process, or another opening of the file in this one, has the lock; otherwise the kernel's.
    pub fn new(file: File) -> Result<Self, TryLockError> {
        file.try_lock()?;
        Ok(Self(file))
    }
}

impl Deref for LockedFile {
    type Target = File;

    fn deref(&self) -> &File {
        &self.0
    }
}

impl Drop for LockedFile {
    fn drop(&mut self) {
        // If that fails, the lock ends with the last descriptor.
        let _ = self.0.unlock();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_of_the_descriptor_does_not_keep_the_lock() {
        let file = tempfile::NamedTempFile::new().expect("room for a file");
        let open = || File::open(file.path()).expect("it exists");
        let locked = LockedFile::new(open()).expect("nobody has it");
        // What a child has between fork and exec.
        let copy = locked.try_clone().expect("a descriptor");
        assert!(matches!(LockedFile::new(open()), Err(TryLockError::WouldBlock)));
        drop(locked);
        LockedFile::new(open()).expect("it is free again");
        drop(copy);
    }
}
