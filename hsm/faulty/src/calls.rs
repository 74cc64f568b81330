//! The functions of the module: each admits the call, then passes it on.
//!
//! Every pointer is handed to the real module as the caller gave it, so the caller's promises to this module are those
//! that the real one needs.
#![expect(non_snake_case, reason = "the names are the standard's")]

use std::ffi::c_void;
use std::sync::OnceLock;

use cryptoki_sys::*;

use crate::real::{self, LoadError};
use crate::state::{Admitted, Kind, Search, admit, state};

// What the arguments are, shorter than the binding's names.
type Bytes = *mut CK_BYTE;
type Length = CK_ULONG;
type LengthOut = *mut CK_ULONG;
type Object = CK_OBJECT_HANDLE;
type ObjectOut = *mut CK_OBJECT_HANDLE;
type Template = *mut CK_ATTRIBUTE;
type Mechanism = *mut CK_MECHANISM;
type Session = CK_SESSION_HANDLE;
type Slot = CK_SLOT_ID;

/// Returns the list that is given out: the real module's, with this module's functions in it.
pub(crate) fn function_list() -> Result<&'static CK_FUNCTION_LIST, LoadError> {
    static LIST: OnceLock<CK_FUNCTION_LIST> = OnceLock::new();
    let real = real::functions()?;
    Ok(LIST.get_or_init(|| wrapped(*real)))
}

/// Returns one function of the real module.
fn real_function<F>(pick: impl Fn(&CK_FUNCTION_LIST) -> Option<F>) -> Result<F, CK_RV> {
    let functions = real::functions().map_err(|_| CKR_GENERAL_ERROR)?;
    pick(functions).ok_or(CKR_FUNCTION_NOT_SUPPORTED)
}

/// Admits a call, and closes all sessions of the real module when the token has just been taken away: that ends the
/// login too.
fn begin(name: &str, kind: Kind) -> Result<Admitted, CK_RV> {
    let admitted = admit(name, kind)?;
    if admitted.has_just_vanished {
        close_everything()?;
    }
    Ok(admitted)
}

fn close_everything() -> Result<(), CK_RV> {
    let list = real_function(|list| list.C_GetSlotList)?;
    let close = real_function(|list| list.C_CloseAllSessions)?;
    // SAFETY: `read_list` passes null or a buffer of the length it names.
    let slots = read_list(|buffer, length| unsafe { list(CK_TRUE, buffer, length) })?;
    for slot in slots {
        // SAFETY: the function takes a number. A token without sessions has nothing to close, so its answer says nothing.
        let _ = unsafe { close(slot) };
    }
    Ok(())
}

/// Admits a call that concerns a token and not a session.
fn begin_with_token(name: &str) -> Result<Admitted, CK_RV> {
    let admitted = begin(name, Kind::Call)?;
    if admitted.control.token_vanished {
        return Err(CKR_TOKEN_NOT_PRESENT);
    }
    Ok(admitted)
}

/// Admits a call in a session; returns the session's number in the real module too.
fn begin_with_session(name: &str, kind: Kind, session: Session) -> Result<(Admitted, Session), CK_RV> {
    let admitted = begin(name, kind)?;
    if admitted.control.token_vanished {
        return Err(CKR_DEVICE_REMOVED);
    }
    let real = state().session(session)?.real;
    Ok((admitted, real))
}

/// Makes `CK_RV` of what a function has come to.
fn returned(outcome: Result<CK_RV, CK_RV>) -> CK_RV {
    match outcome {
        Ok(value) | Err(value) => value,
    }
}

/// Makes functions that need no token.
macro_rules! module_calls {
    ($($name:ident($($argument:ident: $type:ty),*);)*) => { $(
        unsafe extern "C" fn $name($($argument: $type),*) -> CK_RV {
            returned((|| {
                begin(stringify!($name), Kind::Call)?;
                let function = real_function(|list| list.$name)?;
                // SAFETY: the arguments are the caller's.
                Ok(unsafe { function($($argument),*) })
            })())
        }
    )* };
}

module_calls! {
    C_Initialize(arguments: *mut c_void);
    C_GetInfo(info: *mut CK_INFO);
    C_WaitForSlotEvent(flags: CK_FLAGS, slot: *mut Slot, reserved: *mut c_void);
}

/// Makes functions whose first argument is a session.
macro_rules! session_calls {
    ($($name:ident($($argument:ident: $type:ty),*);)*) => { $(
        unsafe extern "C" fn $name(session: Session, $($argument: $type),*) -> CK_RV {
            returned((|| {
                let (_, session) = begin_with_session(stringify!($name), Kind::Call, session)?;
                let function = real_function(|list| list.$name)?;
                // SAFETY: the arguments are the caller's, but for the session, which is a number.
                Ok(unsafe { function(session, $($argument),*) })
            })())
        }
    )* };
}

session_calls! {
    C_InitPIN(pin: Bytes, length: Length);
    C_SetPIN(old: Bytes, old_length: Length, new: Bytes, new_length: Length);
    C_GetSessionInfo(info: *mut CK_SESSION_INFO);
    C_GetOperationState(operation: Bytes, length: LengthOut);
    C_SetOperationState(operation: Bytes, length: Length, encryption: Object, authentication: Object);
    C_Login(user: CK_USER_TYPE, pin: Bytes, length: Length);
    C_Logout();
    C_CreateObject(template: Template, count: Length, object: ObjectOut);
    C_CopyObject(object: Object, template: Template, count: Length, copy: ObjectOut);
    C_DestroyObject(object: Object);
    C_GetObjectSize(object: Object, size: LengthOut);
    C_GetAttributeValue(object: Object, template: Template, count: Length);
    C_SetAttributeValue(object: Object, template: Template, count: Length);
    C_FindObjectsFinal();
    C_EncryptInit(mechanism: Mechanism, key: Object);
    C_Encrypt(data: Bytes, length: Length, out: Bytes, out_length: LengthOut);
    C_EncryptUpdate(data: Bytes, length: Length, out: Bytes, out_length: LengthOut);
    C_EncryptFinal(out: Bytes, out_length: LengthOut);
    C_DecryptInit(mechanism: Mechanism, key: Object);
    C_Decrypt(data: Bytes, length: Length, out: Bytes, out_length: LengthOut);
    C_DecryptUpdate(data: Bytes, length: Length, out: Bytes, out_length: LengthOut);
    C_DecryptFinal(out: Bytes, out_length: LengthOut);
    C_DigestInit(mechanism: Mechanism);
    C_Digest(data: Bytes, length: Length, out: Bytes, out_length: LengthOut);
    C_DigestUpdate(data: Bytes, length: Length);
    C_DigestKey(key: Object);
    C_DigestFinal(out: Bytes, out_length: LengthOut);
    C_SignUpdate(data: Bytes, length: Length);
    C_SignFinal(out: Bytes, out_length: LengthOut);
    C_SignRecoverInit(mechanism: Mechanism, key: Object);
    C_SignRecover(data: Bytes, length: Length, out: Bytes, out_length: LengthOut);
    C_VerifyInit(mechanism: Mechanism, key: Object);
    C_Verify(data: Bytes, length: Length, signature: Bytes, signature_length: Length);
    C_VerifyUpdate(data: Bytes, length: Length);
    C_VerifyFinal(signature: Bytes, length: Length);
    C_VerifyRecoverInit(mechanism: Mechanism, key: Object);
    C_VerifyRecover(signature: Bytes, length: Length, out: Bytes, out_length: LengthOut);
    C_DigestEncryptUpdate(data: Bytes, length: Length, out: Bytes, out_length: LengthOut);
    C_DecryptDigestUpdate(data: Bytes, length: Length, out: Bytes, out_length: LengthOut);
    C_SignEncryptUpdate(data: Bytes, length: Length, out: Bytes, out_length: LengthOut);
    C_DecryptVerifyUpdate(data: Bytes, length: Length, out: Bytes, out_length: LengthOut);
    C_WrapKey(mechanism: Mechanism, wrapping: Object, key: Object, out: Bytes, out_length: LengthOut);
    C_UnwrapKey(mechanism: Mechanism, key: Object, wrapped: Bytes, length: Length, template: Template, count: Length, object: ObjectOut);
    C_DeriveKey(mechanism: Mechanism, key: Object, template: Template, count: Length, object: ObjectOut);
    C_SeedRandom(seed: Bytes, length: Length);
    C_GenerateRandom(random: Bytes, length: Length);
    C_GetFunctionStatus();
    C_CancelFunction();
}

/// Makes functions that use the mechanism in their first argument after the session.
macro_rules! mechanism_calls {
    ($($name:ident($($argument:ident: $type:ty),*);)*) => { $(
        unsafe extern "C" fn $name(session: Session, mechanism: Mechanism, $($argument: $type),*) -> CK_RV {
            returned((|| {
                let (admitted, session) = begin_with_session(stringify!($name), Kind::Call, session)?;
                // SAFETY: the caller passes null or a mechanism.
                let wanted = unsafe { mechanism.as_ref() };
                if wanted.is_some_and(|wanted| admitted.control.removed.contains(&wanted.mechanism)) {
                    return Err(CKR_MECHANISM_INVALID);
                }
                let function = real_function(|list| list.$name)?;
                // SAFETY: the arguments are the caller's, but for the session, which is a number.
                Ok(unsafe { function(session, mechanism, $($argument),*) })
            })())
        }
    )* };
}

mechanism_calls! {
    C_SignInit(key: Object);
    C_GenerateKey(template: Template, count: Length, object: ObjectOut);
    C_GenerateKeyPair(public: Template, public_count: Length, private: Template, private_count: Length, public_key: ObjectOut, private_key: ObjectOut);
}

unsafe extern "C" fn C_Finalize(reserved: *mut c_void) -> CK_RV {
    returned((|| {
        begin("C_Finalize", Kind::Call)?;
        let function = real_function(|list| list.C_Finalize)?;
        // SAFETY: the argument is the caller's.
        let value = unsafe { function(reserved) };
        if value == CKR_OK {
            state().remove_all_sessions();
        }
        Ok(value)
    })())
}

unsafe extern "C" fn C_GetSlotList(with_token: CK_BBOOL, list: *mut Slot, count: LengthOut) -> CK_RV {
    returned((|| {
        let admitted = begin("C_GetSlotList", Kind::Call)?;
        if admitted.control.token_vanished && with_token != CK_FALSE {
            // SAFETY: the caller's list and count are those of this call.
            return Ok(unsafe { give_list(&[], list, count) });
        }
        let function = real_function(|list| list.C_GetSlotList)?;
        // SAFETY: the arguments are the caller's.
        Ok(unsafe { function(with_token, list, count) })
    })())
}

unsafe extern "C" fn C_GetSlotInfo(slot: Slot, info: *mut CK_SLOT_INFO) -> CK_RV {
    returned((|| {
        let admitted = begin("C_GetSlotInfo", Kind::Call)?;
        let function = real_function(|list| list.C_GetSlotInfo)?;
        // SAFETY: the arguments are the caller's.
        let value = unsafe { function(slot, info) };
        // SAFETY: the caller passes null or what can be written.
        if let (CKR_OK, true, Some(info)) = (value, admitted.control.token_vanished, unsafe { info.as_mut() })
        {
            info.flags &= !CKF_TOKEN_PRESENT;
        }
        Ok(value)
    })())
}

unsafe extern "C" fn C_GetTokenInfo(slot: Slot, info: *mut CK_TOKEN_INFO) -> CK_RV {
    returned((|| {
        let admitted = begin_with_token("C_GetTokenInfo")?;
        let function = real_function(|list| list.C_GetTokenInfo)?;
        // SAFETY: the arguments are the caller's.
        let value = unsafe { function(slot, info) };
        // SAFETY: the caller passes null or what can be written.
        if let (CKR_OK, Some(info)) = (value, unsafe { info.as_mut() }) {
            info.flags |= admitted.control.flags;
        }
        Ok(value)
    })())
}

unsafe extern "C" fn C_GetMechanismList(slot: Slot, list: *mut CK_MECHANISM_TYPE, count: LengthOut) -> CK_RV {
    returned((|| {
        let admitted = begin_with_token("C_GetMechanismList")?;
        let function = real_function(|list| list.C_GetMechanismList)?;
        // SAFETY: `read_list` passes null or a buffer of the length it names.
        let mut mechanisms = read_list(|buffer, length| unsafe { function(slot, buffer, length) })?;
        mechanisms.retain(|mechanism| !admitted.control.removed.contains(mechanism));
        // SAFETY: the caller's list and count are those of this call.
        Ok(unsafe { give_list(&mechanisms, list, count) })
    })())
}

unsafe extern "C" fn C_GetMechanismInfo(
    slot: Slot,
    mechanism: CK_MECHANISM_TYPE,
    info: *mut CK_MECHANISM_INFO,
) -> CK_RV {
    returned((|| {
        let admitted = begin_with_token("C_GetMechanismInfo")?;
        if admitted.control.removed.contains(&mechanism) {
            return Err(CKR_MECHANISM_INVALID);
        }
        let function = real_function(|list| list.C_GetMechanismInfo)?;
        // SAFETY: the arguments are the caller's.
        Ok(unsafe { function(slot, mechanism, info) })
    })())
}

unsafe extern "C" fn C_InitToken(slot: Slot, pin: Bytes, length: Length, label: Bytes) -> CK_RV {
    returned((|| {
        begin_with_token("C_InitToken")?;
        let function = real_function(|list| list.C_InitToken)?;
        // SAFETY: the arguments are the caller's.
        Ok(unsafe { function(slot, pin, length, label) })
    })())
}

unsafe extern "C" fn C_OpenSession(
    slot: Slot,
    flags: CK_FLAGS,
    application: *mut c_void,
    notify: CK_NOTIFY,
    session: *mut Session,
) -> CK_RV {
    returned((|| {
        begin_with_token("C_OpenSession")?;
        let function = real_function(|list| list.C_OpenSession)?;
        // SAFETY: the arguments are the caller's.
        let value = unsafe { function(slot, flags, application, notify, session) };
        // SAFETY: the caller passes null or what can be written.
        if let (CKR_OK, Some(session)) = (value, unsafe { session.as_mut() }) {
            *session = state().add_session(slot, *session);
        }
        Ok(value)
    })())
}

unsafe extern "C" fn C_CloseSession(session: Session) -> CK_RV {
    returned((|| {
        let (_, real) = begin_with_session("C_CloseSession", Kind::Call, session)?;
        let function = real_function(|list| list.C_CloseSession)?;
        // SAFETY: the function takes a number.
        let value = unsafe { function(real) };
        if value == CKR_OK {
            state().remove_session(session);
        }
        Ok(value)
    })())
}

unsafe extern "C" fn C_CloseAllSessions(slot: Slot) -> CK_RV {
    returned((|| {
        begin_with_token("C_CloseAllSessions")?;
        let function = real_function(|list| list.C_CloseAllSessions)?;
        // SAFETY: the function takes a number.
        let value = unsafe { function(slot) };
        if value == CKR_OK {
            state().remove_sessions_of(slot);
        }
        Ok(value)
    })())
}

unsafe extern "C" fn C_FindObjectsInit(session: Session, template: Template, count: Length) -> CK_RV {
    returned((|| {
        let (admitted, real) = begin_with_session("C_FindObjectsInit", Kind::Call, session)?;
        let function = real_function(|list| list.C_FindObjectsInit)?;
        // SAFETY: the arguments are the caller's, but for the session, which is a number.
        let value = unsafe { function(real, template, count) };
        state().session(session)?.search = if admitted.control.keys_doubled {
            Search::Fresh
        } else {
            Search::Plain
        };
        Ok(value)
    })())
}

unsafe extern "C" fn C_FindObjects(
    session: Session,
    objects: ObjectOut,
    max: Length,
    count: LengthOut,
) -> CK_RV {
    returned((|| {
        let (_, real) = begin_with_session("C_FindObjects", Kind::Call, session)?;
        let function = real_function(|list| list.C_FindObjects)?;
        // SAFETY: the arguments are the caller's, but for the session, which is a number.
        let value = unsafe { function(real, objects, max, count) };
        // SAFETY: the caller passes null or what can be written.
        let Some(count) = (unsafe { count.as_mut() }) else {
            return Ok(value);
        };
        let mut state = state();
        let search = &mut state.session(session)?.search;
        if value == CKR_OK && *search == Search::Fresh && *count > 0 {
            // SAFETY: the real module has just written `*count` objects there, more than none.
            *search = Search::Owed(unsafe { objects.read() });
        }
        if let (CKR_OK, Search::Owed(object), true) = (value, *search, *count < max) {
            let index = usize::try_from(*count).map_err(|_| CKR_GENERAL_ERROR)?;
            // SAFETY: the caller has room for `max` objects, of which `*count`, fewer than `max`, are taken.
            let free = unsafe { objects.add(index) };
            // SAFETY: as above.
            unsafe { free.write(object) };
            *count += 1;
            *search = Search::Plain;
        }
        Ok(value)
    })())
}

unsafe extern "C" fn C_Sign(
    session: Session,
    data: Bytes,
    length: Length,
    out: Bytes,
    out_length: LengthOut,
) -> CK_RV {
    returned((|| {
        let kind = if out.is_null() { Kind::Length } else { Kind::Call };
        let (admitted, real) = begin_with_session("C_Sign", kind, session)?;
        let function = real_function(|list| list.C_Sign)?;
        // SAFETY: the arguments are the caller's, but for the session, which is a number.
        let value = unsafe { function(real, data, length, out, out_length) };
        // SAFETY: the caller passes null or what can be written.
        let written = unsafe { out_length.as_mut() };
        let Some(written) = written.filter(|written| value == CKR_OK && **written > 0) else {
            return Ok(value);
        };
        if admitted.garbage {
            // SAFETY: the real module has just written at least one byte there; without a buffer nothing is admitted
            // to be garbled.
            let byte = unsafe { out.read() };
            // SAFETY: as above.
            unsafe { out.write(!byte) };
        }
        if admitted.short {
            *written -= 1;
        }
        Ok(value)
    })())
}

/// Reads a list as the standard has it: its length first, then its entries (PKCS#11 2.40 §5.2).
fn read_list<T: Copy + Default>(call: impl Fn(*mut T, LengthOut) -> CK_RV) -> Result<Vec<T>, CK_RV> {
    let mut count: CK_ULONG = 0;
    let checked = |value| if value == CKR_OK { Ok(()) } else { Err(value) };
    checked(call(std::ptr::null_mut(), &raw mut count))?;
    let room = usize::try_from(count).map_err(|_| CKR_HOST_MEMORY)?;
    let mut entries = vec![T::default(); room];
    checked(call(entries.as_mut_ptr(), &raw mut count))?;
    entries.truncate(usize::try_from(count).map_err(|_| CKR_HOST_MEMORY)?);
    Ok(entries)
}

/// Gives a list as the standard has it: its length alone where there is no buffer (PKCS#11 2.40 §5.2).
///
/// # Safety
/// `count` must be null or valid for reading and writing, `list` be null or have room for as many entries as `count` says.
unsafe fn give_list<T: Copy>(entries: &[T], list: *mut T, count: LengthOut) -> CK_RV {
    // SAFETY: the caller says so.
    let Some(count) = (unsafe { count.as_mut() }) else {
        return CKR_ARGUMENTS_BAD;
    };
    let Ok(needed) = CK_ULONG::try_from(entries.len()) else {
        return CKR_HOST_MEMORY;
    };
    let room = std::mem::replace(count, needed);
    if list.is_null() {
        return CKR_OK;
    }
    if room < needed {
        return CKR_BUFFER_TOO_SMALL;
    }
    // SAFETY: there is room for them, and memory of the caller's cannot overlap with the entries.
    unsafe { list.copy_from_nonoverlapping(entries.as_ptr(), entries.len()) };
    CKR_OK
}

/// Puts this module's functions in a list.
macro_rules! wrap {
    ($list:ident: $($name:ident),* $(,)?) => { $( $list.$name = Some($name); )* };
}

fn wrapped(mut list: CK_FUNCTION_LIST) -> CK_FUNCTION_LIST {
    list.C_GetFunctionList = Some(crate::C_GetFunctionList);
    wrap!(list:
        C_Initialize, C_Finalize, C_GetInfo, C_GetSlotList, C_GetSlotInfo, C_GetTokenInfo,
        C_GetMechanismList, C_GetMechanismInfo, C_InitToken, C_InitPIN, C_SetPIN, C_OpenSession,
        C_CloseSession, C_CloseAllSessions, C_GetSessionInfo, C_GetOperationState, C_SetOperationState,
        C_Login, C_Logout, C_CreateObject, C_CopyObject, C_DestroyObject, C_GetObjectSize,
        C_GetAttributeValue, C_SetAttributeValue, C_FindObjectsInit, C_FindObjects, C_FindObjectsFinal,
        C_EncryptInit, C_Encrypt, C_EncryptUpdate, C_EncryptFinal, C_DecryptInit, C_Decrypt,
        C_DecryptUpdate, C_DecryptFinal, C_DigestInit, C_Digest, C_DigestUpdate, C_DigestKey, C_DigestFinal,
        C_SignInit, C_Sign, C_SignUpdate, C_SignFinal, C_SignRecoverInit, C_SignRecover, C_VerifyInit,
        C_Verify, C_VerifyUpdate, C_VerifyFinal, C_VerifyRecoverInit, C_VerifyRecover,
        C_DigestEncryptUpdate, C_DecryptDigestUpdate, C_SignEncryptUpdate, C_DecryptVerifyUpdate,
        C_GenerateKey, C_GenerateKeyPair, C_WrapKey, C_UnwrapKey, C_DeriveKey, C_SeedRandom,
        C_GenerateRandom, C_GetFunctionStatus, C_CancelFunction, C_WaitForSlotEvent,
    );
    list
}

#[cfg(test)]
mod tests;
