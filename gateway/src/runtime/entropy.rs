//! Randomness from the operating system, for the core that never asks for it.

use fieldgate_proto::entropy::Entropy;

/// The generator of aws-lc, seeded by the operating system.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SystemEntropy;

impl Entropy for SystemEntropy {
    fn fill(&mut self, bytes: &mut [u8]) {
        // It fails only where the system has no randomness at all; going on would make keys that others can guess.
        aws_lc_rs::rand::fill(bytes).expect("the operating system gives randomness");
    }
}
