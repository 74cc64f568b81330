//! I/O driver of fieldgate: io_uring data plane with epoll fallback.
