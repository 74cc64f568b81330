//! A PKCS#11 module for tests: it passes every call on to a real module and injects the faults a file asks for.
//!
//! ```text
//!  program ──C_Sign──▶ this module ──C_Sign──▶ real module (FIELDGATE_FAULTY_MODULE)
//!                        │     │
//!   reads before a call ◀┘     └▶ appends one line for each call
//!   FIELDGATE_FAULTY_CONTROL      FIELDGATE_FAULTY_COUNTS
//! ```
//!
//! All three are paths in environment variables; the last two are optional. The control file is read before every
//! call, so a running test changes what the token does by replacing the file (write another one and rename it: a
//! file caught half-written is an error). An absent or empty file is a well-behaved token. One fault per line,
//! `#` begins a comment:
//!
//! | line | effect |
//! |---|---|
//! | `<call> delay <ms>` | the call takes that much longer |
//! | `<call> fail <value>` | it is not passed on and returns that `CK_RV` (`0x30` is `CKR_DEVICE_ERROR`) |
//! | `<call> hang` | it never returns, even if the line goes away |
//! | `<call> crash` | the process is aborted |
//! | `sign garbage` | the signature is wrong |
//! | `sign short` | the signature is one byte short |
//! | `token vanish` | no slot holds a token; calls with a session return `CKR_DEVICE_REMOVED`; once the line is gone the token is back, without the sessions and the login it had |
//! | `flags count-low`, `final-try`, `locked`, `write-protected` | `C_GetTokenInfo` shows that flag too |
//! | `mechanism remove <type>` | the mechanism is not offered and not usable |
//! | `keys double` | a search that finds something finds the first of it twice |
//!
//! `<call>` is the name of the function without `C_` in any case, or `*` for all. Faults of calls can end in `after <n>`
//! (the first n calls are spared) and `times <n>` (it happens n times); counting starts over when the file changes.
//! A question for the length of a signature (`C_Sign` without a buffer) is spared by the faults of calls and stands in
//! the counts as `C_Sign length`. A removal that no call falls into is not noticed. A line that cannot be read makes every
//! call fail with `CKR_GENERAL_ERROR` and a message on the standard error stream: a test must not pass by a typing error.
//!
//! Only the functions of PKCS#11 2.40 are offered. Tests alone use this crate; it is part of no package.

#![expect(
    unsafe_code,
    reason = "a PKCS#11 module is a C interface: it takes and gives pointers, and calls those of the real module"
)]

mod calls;
mod control;
mod real;
mod state;

use cryptoki_sys::{CK_FUNCTION_LIST, CK_RV, CKR_ARGUMENTS_BAD, CKR_GENERAL_ERROR, CKR_OK};

/// Gives out the function list (PKCS#11 2.40 §5.4 C_GetFunctionList).
///
/// The real module is loaded by the first call; without one it fails with `CKR_GENERAL_ERROR` and a message on the
/// standard error stream.
///
/// # Safety
/// `list` must be null or valid for writing one pointer. The list lives as long as the process and must not be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_GetFunctionList(list: *mut *mut CK_FUNCTION_LIST) -> CK_RV {
    // SAFETY: the caller passes null or a pointer that can be written, says the standard.
    let Some(list) = (unsafe { list.as_mut() }) else {
        return CKR_ARGUMENTS_BAD;
    };
    match calls::function_list() {
        Ok(functions) => {
            *list = std::ptr::from_ref(functions).cast_mut();
            CKR_OK
        }
        Err(error) => {
            state::complain(&error);
            CKR_GENERAL_ERROR
        }
    }
}
