//! A loaded PKCS#11 module.
//!
//! `C_Initialize` and the login are of the whole process, so a module is loaded once, shared by all signers, and
//! never unloaded: vendors' modules leave threads and exit handlers behind.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, TryLockError};

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error as CryptokiError, RvError};

use crate::error::{CallError, Error};

/// A module and the state of its initialisation.
pub(crate) struct Module {
    path: PathBuf,
    context: Pkcs11,
    /// Read while calls are made, written while the module is initialised.
    lifecycle: RwLock<Lifecycle>,
}

struct Lifecycle {
    initialized: Option<Owner>,
    /// Counts initialisations; a session of an earlier one is dead and must not be closed.
    generation: u64,
}

/// Who called `C_Initialize`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    /// This crate: it may finalise.
    Us,
    /// Another part of the process: its sessions would die with a `C_Finalize`.
    SomebodyElse,
}

/// In which state a module was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// It was initialised just now.
    Fresh,
    /// It was initialised before.
    Initialized,
}

/// All modules this process has loaded; as many as the configuration names.
static LOADED: Mutex<Vec<Arc<Module>>> = Mutex::new(Vec::new());

impl Module {
    /// Loads and initialises a module, or returns the one that is loaded already.
    pub(crate) fn load(path: &Path) -> Result<Arc<Self>, Error> {
        Self::load_or_find(path).map(|(module, _)| module)
    }

    /// Does the same, and says whether the initialisation is an earlier one: its token may have been reset since.
    pub(crate) fn load_or_find(path: &Path) -> Result<(Arc<Self>, Found), Error> {
        // By its real path, so that two links to one library are one module.
        let path = path.canonicalize().map_err(|error| Error::ModuleLoad {
            module: path.to_owned(),
            cause: CallError {
                function: "dlopen".to_owned(),
                code: error.to_string(),
            },
        })?;
        let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
        let module = match loaded.iter().find(|module| module.path == path) {
            Some(module) => Arc::clone(module),
            None => {
                let context = Pkcs11::new(&path).map_err(|error| load_error(&path, error))?;
                let lifecycle = RwLock::new(Lifecycle {
                    initialized: None,
                    generation: 0,
                });
                let module = Arc::new(Self {
                    path,
                    context,
                    lifecycle,
                });
                loaded.push(Arc::clone(&module));
                module
            }
        };
        drop(loaded);
        // Looked at before it is locked for writing: that would wait for a thread that hangs in the module.
        if module.enter().lifecycle.initialized.is_some() {
            return Ok((module, Found::Initialized));
        }
        let mut lifecycle = module.lifecycle.write().unwrap_or_else(PoisonError::into_inner);
        if lifecycle.initialized.is_none() {
            module.initialize(&mut lifecycle)?;
        }
        drop(lifecycle);
        Ok((module, Found::Fresh))
    }

    /// Enters the module for calls; the guard keeps others from finalising it meanwhile.
    pub(crate) fn enter(&self) -> Entered<'_> {
        Entered {
            module: self,
            lifecycle: self.lifecycle.read().unwrap_or_else(PoisonError::into_inner),
        }
    }

    /// Enters the module unless it is being initialised.
    pub(crate) fn try_enter(&self) -> Option<Entered<'_>> {
        let lifecycle = match self.lifecycle.try_read() {
            Ok(lifecycle) => lifecycle,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        Some(Entered {
            module: self,
            lifecycle,
        })
    }

    /// Returns the number of the initialisation that is in force.
    pub(crate) fn generation(&self) -> u64 {
        self.enter().generation()
    }

    /// Finalises and initialises the module, unless somebody has done so since `generation`.
    ///
    /// Never waits: a thread that hangs in the module would be waited for.
    pub(crate) fn reinitialize(&self, generation: u64) -> Result<(), Error> {
        let mut lifecycle = match self.lifecycle.try_write() {
            Ok(lifecycle) => lifecycle,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return Err(self.not_now("another thread is in the module")),
        };
        if lifecycle.generation != generation && lifecycle.initialized.is_some() {
            return Ok(());
        }
        match lifecycle.initialized {
            Some(Owner::SomebodyElse) => {
                return Err(self.not_now("another part of this process has initialised the module"));
            }
            Some(Owner::Us) => {
                lifecycle.initialized = None;
                // A module that has lost its device may refuse; C_Initialize then says what is the matter.
                let _ = self.context.clone().finalize();
            }
            None => {}
        }
        self.initialize(&mut lifecycle)
    }

    fn initialize(&self, lifecycle: &mut Lifecycle) -> Result<(), Error> {
        let owner = match self
            .context
            .initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK))
        {
            Ok(()) => Owner::Us,
            Err(CryptokiError::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => Owner::SomebodyElse,
            Err(error) => {
                return Err(Error::Module {
                    module: self.path.clone(),
                    cause: error.into(),
                });
            }
        };
        lifecycle.initialized = Some(owner);
        lifecycle.generation = lifecycle.generation.saturating_add(1);
        Ok(())
    }

    fn not_now(&self, why: &str) -> Error {
        let cause = CallError {
            function: "C_Finalize".to_owned(),
            code: format!("was not called: {why}"),
        };
        Error::Module {
            module: self.path.clone(),
            cause,
        }
    }
}

/// Leave to make calls.
pub(crate) struct Entered<'a> {
    module: &'a Module,
    lifecycle: RwLockReadGuard<'a, Lifecycle>,
}

impl Entered<'_> {
    /// Returns the functions of the module.
    pub(crate) const fn context(&self) -> &Pkcs11 {
        &self.module.context
    }

    /// Returns the number of the initialisation that is in force.
    pub(crate) fn generation(&self) -> u64 {
        self.lifecycle.generation
    }

    /// Makes an error of a call that concerns the whole module.
    pub(crate) fn module_error(&self, error: CryptokiError) -> Error {
        Error::Module {
            module: self.module.path.clone(),
            cause: error.into(),
        }
    }
}

fn load_error(path: &Path, error: CryptokiError) -> Error {
    let code = if let CryptokiError::LibraryLoading(cause) = &error {
        cause.to_string()
    } else if matches!(error, CryptokiError::MissingSymbol(_)) {
        "this is no PKCS#11 module: it has no C_GetFunctionList".to_owned()
    } else {
        error.to_string()
    };
    Error::ModuleLoad {
        module: path.to_owned(),
        cause: CallError {
            function: "dlopen".to_owned(),
            code,
        },
    }
}
