//! The heads of HTTP/1.1 messages, as far as WebSockets and tunnels need them.

use aws_lc_rs::digest;
use data_encoding::BASE64;
use httparse::Header;

/// A field that may stand there once stands there twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Repeated;

/// Header fields of a request or of an answer.
pub(crate) struct Fields<'r>(pub(crate) &'r [Header<'r>]);

impl<'r> Fields<'r> {
    fn all(&self, name: &str) -> impl Iterator<Item = &'r [u8]> {
        self.0
            .iter()
            .filter(move |header| header.name.eq_ignore_ascii_case(name))
            .map(|header| header.value.trim_ascii())
    }

    /// Returns the value of a field that may stand there once.
    pub(crate) fn one(&self, name: &str) -> Result<Option<&'r [u8]>, Repeated> {
        let mut all = self.all(name);
        let first = all.next();
        if all.next().is_some() {
            return Err(Repeated);
        }
        Ok(first)
    }

    /// Returns whether a list has `token`, in capitals or not.
    pub(crate) fn lists(&self, name: &str, token: &str) -> bool {
        self.tokens(name)
            .any(|one| one.eq_ignore_ascii_case(token.as_bytes()))
    }

    /// Returns whether a list has exactly `token`.
    pub(crate) fn names(&self, name: &str, token: &str) -> bool {
        self.tokens(name).any(|one| one == token.as_bytes())
    }

    fn tokens(&self, name: &str) -> impl Iterator<Item = &'r [u8]> {
        self.all(name)
            .flat_map(|value| value.split(|byte| *byte == b','))
            .map(<[u8]>::trim_ascii)
    }

    /// Returns whether the field is there.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.all(name).next().is_some()
    }
}

/// Finds the end of the empty line, looking from `from` on. A line may end in a line feed alone (RFC 9112 §2.2).
pub(crate) fn end_of_head(bytes: &[u8], from: usize) -> Option<usize> {
    let tail = bytes.get(from..)?;
    let at = |pattern: &[u8]| {
        let found = tail.windows(pattern.len()).position(|window| window == pattern)?;
        from.checked_add(found)?.checked_add(pattern.len())
    };
    [at(END), at(b"\n\n"), at(b"\n\r\n")].into_iter().flatten().min()
}

/// Returns the answer to a key (RFC 6455 §4.2.2, step 5.4). No secret is in it: it shows that the request was understood.
pub(crate) fn accept(key: &[u8]) -> String {
    let mut context = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    context.update(key);
    context.update(GUID);
    BASE64.encode(context.finish().as_ref())
}

/// Gathers the head of an answer from bytes that may come one by one; what follows it stays in `input`.
///
/// # Errors
/// `TooLong` when it does not end within [`ANSWER_BYTES_MAX`].
pub(crate) fn gather(gathered: &mut Vec<u8>, input: &mut &[u8]) -> Result<bool, TooLong> {
    let from = gathered.len().saturating_sub(END.len());
    let before = gathered.len();
    let room = ANSWER_BYTES_MAX.saturating_sub(before);
    let (taken, _) = input.split_at(room.min(input.len()));
    gathered.extend_from_slice(taken);
    if let Some(end) = end_of_head(gathered, from) {
        *input = input.get(end.saturating_sub(before)..).unwrap_or_default();
        gathered.truncate(end);
        return Ok(true);
    }
    *input = &[];
    if taken.len() == room {
        Err(TooLong)
    } else {
        Ok(false)
    }
}

/// The head of an answer does not end where it must.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooLong;

/// Bytes of an answer's head at most.
pub(crate) const ANSWER_BYTES_MAX: usize = 8 << 10;
/// RFC 6455 §1.3.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// The empty line.
pub(crate) const END: &[u8] = b"\r\n\r\n";
