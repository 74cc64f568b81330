//! Counting PKCS#11 calls with `pkcs11-spy`, which writes every call down and passes it on.
//!
//! It sees modules up to PKCS#11 3.0; with a later one it passes the calls on unseen, and the counts of the faulty module
//! are to be had instead. Its log has the PIN in clear: it must lie in a directory that nobody else can read.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use crate::softhsm;
use crate::suite::soft_token::SoftHsm;
use crate::suite::{Bench, TokenUnderTest, bench};

/// Path of `pkcs11-spy`.
pub(crate) fn module() -> PathBuf {
    softhsm::spy()
}

/// Variables that put the spy in front of `target`, with its log in `directory`.
pub(crate) fn environment(directory: &Path, target: &Path) -> [(&'static str, OsString); 2] {
    [
        ("PKCS11SPY", target.into()),
        ("PKCS11SPY_OUTPUT", log(directory).into()),
    ]
}

/// How often a function, such as `C_Login`, was called through the spy.
pub(crate) fn calls(directory: &Path, function: &str) -> usize {
    let log = fs::read(log(directory)).unwrap_or_default();
    String::from_utf8_lossy(&log)
        .lines()
        .filter(|line| is_call(line, function))
        .count()
}

/// How many signatures a token gave: calls of `C_Sign` that returned bytes, not those that asked for their number.
pub(crate) fn signatures(directory: &Path) -> usize {
    let log = fs::read(log(directory)).unwrap_or_default();
    let log = String::from_utf8_lossy(&log);
    let mut is_sign = false;
    let mut found = 0;
    for line in log.lines() {
        if line.split(": ").nth(1).is_some_and(|name| name.starts_with("C_")) {
            is_sign = is_call(line, "C_Sign");
        }
        // With bytes the line has their address and number, without it says NULL.
        if is_sign && line.starts_with("[out] pSignature[") && !line.contains("NULL") {
            found += 1;
        }
    }
    found
}

/// Says whether a line of the log begins a call of a function: `<number>: <function>`.
fn is_call(line: &str, function: &str) -> bool {
    line.split(": ")
        .nth(1)
        .is_some_and(|name| name.trim() == function)
}

fn log(directory: &Path) -> PathBuf {
    directory.join("calls")
}

/// Signs once through the spy; the integrator's tests do the same around what must not touch the token.
fn sign_through_the_spy<T: TokenUnderTest>(bench: &mut Bench<T>) {
    let created = bench.create("identity");
    let mut signer = bench.open_through(&module(), &created.uri).unwrap();
    let before = signatures(&bench.directory);
    assert_eq!(before, 1, "opening has the key sign once");
    let signature = signer.sign(b"message").unwrap();
    assert!(signer.public_key().verify(b"message", &signature));
    assert_eq!(signatures(&bench.directory), before + 1);
    let others = ["C_Login", "C_OpenSession", "C_FindObjectsInit"];
    let counts = others.map(|function| calls(&bench.directory, function));
    signer.sign(b"message").unwrap();
    assert_eq!(
        counts,
        others.map(|function| calls(&bench.directory, function)),
        "a signature is nothing but a signature"
    );
}

#[test]
fn one_signature_is_one_call() {
    bench::<SoftHsm>("spy::one_signature_is_one_call", sign_through_the_spy);
}
