//! The real module behind this one.

use std::env;
use std::ffi::OsString;
use std::mem::ManuallyDrop;
use std::path::PathBuf;
use std::ptr;
use std::sync::OnceLock;

use cryptoki_sys::{CK_FUNCTION_LIST, CK_RV, CKR_OK};
use libloading::{Library, Symbol};

/// Why there is no real module to pass calls on to.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    /// The variable that names it is not set.
    #[error("{MODULE} is not set: it names the PKCS#11 module that calls are passed on to")]
    Unset,
    /// It cannot be loaded.
    #[error("{} cannot be loaded: {cause}", path.display())]
    Load { path: PathBuf, cause: libloading::Error },
    /// It gives no function list.
    #[error("C_GetFunctionList of {} returned {value:#x}", path.display())]
    List { path: PathBuf, value: CK_RV },
}

/// Returns the functions of the real module; loads it once, and never unloads it.
pub(crate) fn functions() -> Result<&'static CK_FUNCTION_LIST, LoadError> {
    static FUNCTIONS: OnceLock<CK_FUNCTION_LIST> = OnceLock::new();
    if let Some(functions) = FUNCTIONS.get() {
        return Ok(functions);
    }
    let functions = load(env::var_os(MODULE).ok_or(LoadError::Unset)?)?;
    Ok(FUNCTIONS.get_or_init(|| functions))
}

fn load(path: OsString) -> Result<CK_FUNCTION_LIST, LoadError> {
    type GetFunctionList = unsafe extern "C" fn(*mut *mut CK_FUNCTION_LIST) -> CK_RV;
    let path = PathBuf::from(path);
    let failed = |cause| LoadError::Load {
        path: path.clone(),
        cause,
    };
    // SAFETY: the test names a PKCS#11 module, whose initialisers may run at any time and in any thread.
    let library = unsafe { Library::new(&path) }.map_err(failed)?;
    // Never unloaded: the list's functions are called until the process ends.
    let library = ManuallyDrop::new(library);
    // SAFETY: the symbol has this type in every PKCS#11 module (PKCS#11 2.40 §5.4).
    let get: Symbol<'_, GetFunctionList> = unsafe { library.get(b"C_GetFunctionList") }.map_err(failed)?;
    let mut list: *mut CK_FUNCTION_LIST = ptr::null_mut();
    // SAFETY: `list` can be written.
    let value = unsafe { get(&raw mut list) };
    // SAFETY: after CKR_OK the pointer is that of a list which lives as long as the library, and null before.
    let list = unsafe { list.as_ref() };
    match list {
        Some(list) if value == CKR_OK => Ok(*list),
        Some(_) | None => Err(LoadError::List { path, value }),
    }
}

/// Names the real module.
const MODULE: &str = "FIELDGATE_FAULTY_MODULE";
