use std::os::fd::{AsRawFd, RawFd};

use crate::{io::Io, storage::FileRef};

/// Durable writes in flight, with the buffers the kernel reads from.
#[derive(Debug)]
pub(crate) struct WriteTable {
    slots: Vec<Option<Write>>,
}

#[derive(Debug)]
pub(crate) struct Write {
    file: FileRef,
    offset: u64,
    buffer: Vec<u8>,
    written: usize,
    token: u64,
}

impl Write {
    pub(crate) fn descriptor(&self) -> RawFd {
        self.file.file().as_raw_fd()
    }

    /// What is not written yet.
    pub(crate) fn rest(&self) -> &[u8] {
        self.buffer.get(self.written..).unwrap_or_default()
    }

    /// Where in the file the rest goes.
    pub(crate) const fn position(&self) -> u64 {
        self.offset + self.written as u64
    }

    /// Notes that `count` more bytes are written.
    pub(crate) fn advance(&mut self, count: usize) {
        self.written += count;
        assert!(
            self.written <= self.buffer.len(),
            "wrote {} of {} bytes",
            self.written,
            self.buffer.len()
        );
    }
}

impl WriteTable {
    pub(crate) const fn new() -> Self {
        Self { slots: Vec::new() }
    }

    /// Puts a write in and returns its index, or gives the buffer back when the table is full.
    pub(crate) fn insert(
        &mut self,
        file: &FileRef,
        offset: u64,
        buffer: Vec<u8>,
        token: u64,
    ) -> Result<u32, Vec<u8>> {
        let index = self
            .slots
            .iter()
            .position(Option::is_none)
            .unwrap_or(self.slots.len());
        let Ok(number) = u32::try_from(index) else {
            return Err(buffer);
        };
        if index >= Io::WRITES_MAX {
            return Err(buffer);
        }
        let write = Some(Write {
            file: file.clone(),
            offset,
            buffer,
            written: 0,
            token,
        });
        match self.slots.get_mut(index) {
            Some(slot) => *slot = write,
            None => self.slots.push(write),
        }
        Ok(number)
    }

    pub(crate) fn get(&self, index: u32) -> Option<&Write> {
        self.slots.get(index as usize)?.as_ref()
    }

    pub(crate) fn get_mut(&mut self, index: u32) -> Option<&mut Write> {
        self.slots.get_mut(index as usize)?.as_mut()
    }

    /// Takes a write out that the kernel has done with, and returns its token and buffer.
    pub(crate) fn remove(&mut self, index: u32) -> Option<(u64, Vec<u8>)> {
        let write = self.slots.get_mut(index as usize)?.take()?;
        Some((write.token, write.buffer))
    }
}
