//! UNIX sockets.

use std::{
    fs,
    io::{ErrorKind, Read as _, Write as _},
    os::unix::{
        fs::PermissionsExt as _,
        net::{UnixListener, UnixStream},
    },
    path::Path,
};

use fieldgate_io::{Backend, CloseReason, ConnectOptions, Io, ListenOptions, Settings};

use crate::{Script, Seen, driver, on_both_backends, send};

on_both_backends!(
    a_local_listener_and_a_local_connect_meet,
    the_file_of_a_socket_is_replaced_only_when_nobody_listens,
    a_local_connect_that_nobody_answers_is_told,
);

const MODE: u32 = 0o600;

fn a_local_listener_and_a_local_connect_meet(backend: Backend) {
    let dir = tempfile::tempdir().expect("room for a directory");
    let path = dir.path().join("inlet.sock");
    let mut driver = driver(backend, Settings::default());
    let listener = driver
        .io()
        .listen_local(&path, MODE, &ListenOptions::default())
        .expect("the directory is ours");
    let mode = fs::metadata(&path).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, MODE);
    let near = driver
        .io()
        .connect_local(&path, &ConnectOptions::default())
        .expect("there is room");
    let mut script = Script::new(|io: &mut Io, seen: &Seen| match seen {
        Seen::Received(id, bytes) if bytes == b"there" => send(io, *id, b"and back"),
        Seen::Ended(id) => io.close(*id),
        _ => {}
    });
    script.run(&mut driver, |script, _| {
        script.count(|seen| matches!(seen, Seen::Connected(..))) == 1 && script.arrivals().len() == 1
    });
    assert_eq!(
        script
            .seen
            .iter()
            .filter(|seen| **seen == Seen::Connected(near, Ok(())))
            .count(),
        1
    );
    let far = script.arrivals()[0];
    send(driver.io(), near, b"there");
    script.run(&mut driver, |script, _| script.bytes(near) == b"and back");
    assert_eq!(script.bytes(far), b"there");
    // One direction ends before the other.
    driver.io().finish(near);
    script.run(&mut driver, |script, _| {
        script.end_of(near).is_some() && script.end_of(far).is_some()
    });
    assert_eq!(script.end_of(far), Some(CloseReason::Peer));
    driver.io().unlisten(listener);
    // The file goes with the listener.
    script.run(&mut driver, |_, _| !path.exists());
}

fn the_file_of_a_socket_is_replaced_only_when_nobody_listens(backend: Backend) {
    let dir = tempfile::tempdir().expect("room for a directory");
    let path = dir.path().join("inlet.sock");
    let mut driver = driver(backend, Settings::default());
    let mut listen = |path: &Path| {
        let options = ListenOptions::default();
        driver
            .io()
            .listen_local(path, MODE, &options)
            .map_err(|error| error.kind())
    };
    let other = UnixListener::bind(&path).expect("the directory is ours");
    assert_eq!(listen(&path), Err(ErrorKind::AddrInUse));
    drop(other);
    assert!(listen(&path).is_ok(), "nobody listens there any more");
    let file = dir.path().join("file");
    fs::write(&file, "kept").expect("the directory is ours");
    assert_eq!(listen(&file), Err(ErrorKind::AlreadyExists));
    assert_eq!(fs::read(&file).expect("it is there"), b"kept");
    // The driver owns the file of the one that listens.
    let mut script = Script::new(|io: &mut Io, seen: &Seen| {
        if let Seen::Accepted(_, id) = seen {
            send(io, *id, b"hello");
            io.close(*id);
        }
    });
    let mut stream = UnixStream::connect(&path).expect("it listens");
    script.run(&mut driver, |script, _| script.arrivals().len() == 1);
    stream.write_all(b"!").expect("it is open");
    let mut heard = [0; 5];
    script.run(&mut driver, |_, io| io.stats().bytes_sent == 5);
    stream.read_exact(&mut heard).expect("it was sent");
    assert_eq!(&heard, b"hello");
    drop(driver);
    assert!(!path.exists());
}

fn a_local_connect_that_nobody_answers_is_told(backend: Backend) {
    let dir = tempfile::tempdir().expect("room for a directory");
    let stale = dir.path().join("stale.sock");
    drop(UnixListener::bind(&stale).expect("the directory is ours"));
    for (path, kind) in [
        (stale, ErrorKind::ConnectionRefused),
        (dir.path().join("none.sock"), ErrorKind::NotFound),
    ] {
        let mut driver = driver(backend, Settings::default());
        let id = driver
            .io()
            .connect_local(&path, &ConnectOptions::default())
            .expect("there is room");
        let mut script = Script::new(|_: &mut Io, _: &Seen| {});
        script.run(&mut driver, |script, _| {
            script.count(|seen| *seen == Seen::Connected(id, Err(kind))) == 1
        });
    }
}
