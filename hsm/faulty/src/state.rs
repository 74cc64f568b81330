//! What the module remembers between calls: sessions, and how often which fault was passed.

use std::collections::BTreeMap;
use std::env;
use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::process;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use cryptoki_sys::{
    CK_OBJECT_HANDLE, CK_RV, CK_SESSION_HANDLE, CK_SLOT_ID, CKR_GENERAL_ERROR, CKR_SESSION_HANDLE_INVALID,
};

use crate::control::{Action, Control};

/// What is known about a session that was opened through this module.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Session {
    pub(crate) slot: CK_SLOT_ID,
    /// Its number in the real module.
    pub(crate) real: CK_SESSION_HANDLE,
    pub(crate) search: Search,
}

/// A search whose first match is to be given twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Search {
    /// It is an ordinary one.
    Plain,
    /// Nothing was found so far.
    Fresh,
    /// That object is to be given once more.
    Owed(CK_OBJECT_HANDLE),
}

/// The state of the module; its lock is never held while the real module is called.
#[derive(Default)]
pub(crate) struct State {
    /// Sessions by the numbers given out. Those are never used again, so that a session of before a removal stays dead
    /// whatever numbers the real module gives.
    sessions: BTreeMap<CK_SESSION_HANDLE, Session>,
    given_out: CK_SESSION_HANDLE,
    was_vanished: bool,
    /// The control file as it was last read, and how often each of its faults was concerned.
    text: String,
    earlier: Vec<u64>,
}

impl State {
    pub(crate) fn add_session(&mut self, slot: CK_SLOT_ID, real: CK_SESSION_HANDLE) -> CK_SESSION_HANDLE {
        self.given_out = self.given_out.wrapping_add(1);
        let search = Search::Plain;
        self.sessions
            .insert(self.given_out, Session { slot, real, search });
        self.given_out
    }

    pub(crate) fn session(&mut self, session: CK_SESSION_HANDLE) -> Result<&mut Session, CK_RV> {
        self.sessions.get_mut(&session).ok_or(CKR_SESSION_HANDLE_INVALID)
    }

    pub(crate) fn remove_session(&mut self, session: CK_SESSION_HANDLE) {
        self.sessions.remove(&session);
    }

    pub(crate) fn remove_sessions_of(&mut self, slot: CK_SLOT_ID) {
        self.sessions.retain(|_, session| session.slot != slot);
    }

    pub(crate) fn remove_all_sessions(&mut self) {
        self.sessions.clear();
    }

    /// Returns what happens in a call, in the order of the lines.
    fn actions(&mut self, name: &str, text: &str, control: &Control) -> Vec<Action> {
        if self.text != text {
            text.clone_into(&mut self.text);
            self.earlier = vec![0; control.faults.len()];
        }
        let mut actions = Vec::new();
        for (fault, earlier) in control.faults.iter().zip(&mut self.earlier) {
            if fault.concerns(name) {
                if fault.happens(*earlier) {
                    actions.push(fault.action);
                }
                *earlier = earlier.saturating_add(1);
            }
        }
        actions
    }
}

/// Locks the state of the module.
pub(crate) fn state() -> MutexGuard<'static, State> {
    static STATE: Mutex<State> = Mutex::new(State {
        sessions: BTreeMap::new(),
        given_out: 0,
        was_vanished: false,
        text: String::new(),
        earlier: Vec::new(),
    });
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A call that was let through, and what is left to be done to it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Admitted {
    pub(crate) control: Control,
    /// The token has vanished since the last call: the real module's sessions are to be closed.
    pub(crate) has_just_vanished: bool,
    pub(crate) garbage: bool,
    pub(crate) short: bool,
}

/// Whether faults of calls happen in a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Call,
    /// The question for the length of a signature.
    Length,
}

/// Begins a call: counts it, reads the control file, and does what that asks for.
pub(crate) fn admit(name: &str, kind: Kind) -> Result<Admitted, CK_RV> {
    count(name, kind);
    let text = control_text();
    let control = match Control::parse(&text) {
        Ok(control) => control,
        Err(error) => {
            complain(&error);
            return Err(CKR_GENERAL_ERROR);
        }
    };
    let mut state = state();
    let has_just_vanished = control.token_vanished && !state.was_vanished;
    state.was_vanished = control.token_vanished;
    let actions = match kind {
        Kind::Call => state.actions(name, &text, &control),
        Kind::Length => Vec::new(),
    };
    if has_just_vanished {
        state.remove_all_sessions();
    }
    drop(state);
    let mut admitted = Admitted {
        control,
        has_just_vanished,
        ..Admitted::default()
    };
    for action in actions {
        match action {
            Action::Delay(duration) => pause(duration),
            Action::Fail(value) => return Err(value),
            Action::Hang => loop {
                thread::park();
            },
            Action::Crash => process::abort(),
            Action::Garbage => admitted.garbage = true,
            Action::Short => admitted.short = true,
        }
    }
    Ok(admitted)
}

fn control_text() -> String {
    let Some(path) = env::var_os(CONTROL) else {
        return String::new();
    };
    match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
        // No line can look like this, so that it is refused like any other file that cannot be read.
        Err(error) => format!("unreadable: {error}"),
    }
}

/// Writes a call down. A short write to a file opened for appending is not mixed with those of other threads.
fn count(name: &str, kind: Kind) {
    let Some(path) = env::var_os(COUNTS) else {
        return;
    };
    let line = match kind {
        Kind::Call => format!("{name}\n"),
        Kind::Length => format!("{name} length\n"),
    };
    let file = OpenOptions::new().create(true).append(true).open(path);
    if let Err(error) = file.and_then(|mut file| file.write_all(line.as_bytes())) {
        complain(&format_args!("{COUNTS}: {error}"));
    }
}

#[expect(clippy::disallowed_methods, reason = "a slow token takes real time")]
fn pause(duration: Duration) {
    thread::sleep(duration);
}

/// Says on the standard error stream what is wrong with the test.
#[expect(
    clippy::print_stderr,
    reason = "a return value cannot say what is wrong with the control file"
)]
pub(crate) fn complain(error: &dyn fmt::Display) {
    eprintln!("fieldgate-faulty-token: {error}");
}

/// Names the control file.
const CONTROL: &str = "FIELDGATE_FAULTY_CONTROL";
/// Names the file that calls are written to.
const COUNTS: &str = "FIELDGATE_FAULTY_COUNTS";
