//! Randomness as an argument: the core never asks the operating system.

/// A source of random bytes fit for keys.
///
/// A node passes the operating system's generator, the simulator a seeded one.
pub trait Entropy {
    /// Fills `bytes` with random values.
    fn fill(&mut self, bytes: &mut [u8]);

    /// Returns a random `u32`.
    fn u32(&mut self) -> u32 {
        let mut bytes = [0; 4];
        self.fill(&mut bytes);
        u32::from_be_bytes(bytes)
    }

    /// Returns a random `u64`.
    fn u64(&mut self) -> u64 {
        let mut bytes = [0; 8];
        self.fill(&mut bytes);
        u64::from_be_bytes(bytes)
    }
}
