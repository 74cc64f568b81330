//! Threads with names and processors.

use std::{io, thread::JoinHandle};

use crate::sys;

/// Starts a thread called `name` (the kernel shows 15 bytes of it), bound to `processor` if one is given.
///
/// # Errors
/// The thread cannot be made, or `processor` is not one this process may use.
pub fn spawn<T, F>(name: &str, processor: Option<usize>, body: F) -> io::Result<JoinHandle<T>>
where
    T: Send + 'static,
    F: FnOnce() -> T + Send + 'static,
{
    if let Some(processor) = processor
        && !sys::allowed_processors()?.contains(&processor)
    {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("processor {processor} is not one this process may use"),
        ));
    }
    std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        if let Some(processor) = processor {
            // It was allowed a moment ago. If it has been taken away since, the thread still works, only less well.
            let _ = sys::pin(processor);
        }
        body()
    })
}

/// Returns the processors this process may use, in ascending order; never empty.
#[must_use]
pub fn processors() -> Vec<usize> {
    match sys::allowed_processors() {
        Ok(processors) if !processors.is_empty() => processors,
        // More processors than the set has bits: counting them is all that is left.
        Ok(_) | Err(_) => (0..std::thread::available_parallelism().map_or(1, usize::from)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_on_the_processor_it_was_given() {
        let last = *processors().last().expect("there is one");
        let thread = spawn("pinned", Some(last), || {
            (std::thread::current().name().map(str::to_owned), processors())
        });
        let (name, processors) = thread.expect("it starts").join().expect("it ends");
        assert_eq!(name.as_deref(), Some("pinned"));
        assert_eq!(processors, [last]);
    }

    #[test]
    fn refuses_a_processor_that_is_not_there() {
        let error = spawn("nowhere", Some(1_000_000), || ()).expect_err("no machine has so many");
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }
}
