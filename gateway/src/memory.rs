//! Giving memory back to the system after the start.

use std::{hint::black_box, time::Duration};

/// Has the allocator return what the start took: opening a sealed key needs 64 MiB for a moment, and the allocator looks at what it
/// could return only when large memory is freed a while later, which a quiet node never does.
pub(crate) async fn give_back() {
    for _ in 0..2 {
        tokio::time::sleep(SETTLES).await;
        drop(black_box(Vec::<u8>::with_capacity(LARGE_BYTES)));
    }
}

/// Longer than the allocator keeps freed memory before it may be returned (one second by default).
const SETTLES: Duration = Duration::from_millis(2_500);
/// Large enough that the allocator takes it from its reserve of whole pages; never touched.
const LARGE_BYTES: usize = 4 << 20;
