use std::os::unix::fs::{FileExt, PermissionsExt};

use super::*;

fn directory() -> (tempfile::TempDir, Directory) {
    let parent = tempfile::tempdir().expect("there is room for a directory");
    let directory = Directory::lock(&parent.path().join("journal")).expect("nobody else uses it");
    (parent, directory)
}

#[test]
fn two_holders_never_share_a_directory() {
    let (parent, first) = directory();
    let path = parent.path().join("journal");
    let error = Directory::lock(&path).expect_err("the first still holds it");
    assert_eq!(error.source.kind(), io::ErrorKind::WouldBlock);
    assert!(error.to_string().starts_with("cannot lock"), "{error}");
    assert!(error.hint().contains("other process"));
    drop(first);
    Directory::lock(&path).expect("it is free again");
}

#[test]
fn a_created_file_has_its_length_and_header() {
    let (_parent, directory) = directory();
    let file = directory.create("1.fgj", 10_000, b"header").expect("it is new");
    let metadata = file.file().metadata().expect("it is open");
    assert_eq!(
        (metadata.len(), metadata.permissions().mode() & 0o777),
        (10_000, 0o600)
    );
    assert_eq!(directory.read("1.fgj", 0, 8).expect("it exists"), b"header\0\0");
    assert_eq!(
        directory.list().expect("readable"),
        [Entry {
            name: "1.fgj".to_owned(),
            length: 10_000
        }]
    );
    let error = directory.create("1.fgj", 10, b"").expect_err("it exists");
    assert_eq!(error.source.kind(), io::ErrorKind::AlreadyExists);
    assert_eq!(directory.read("1.fgj", 0, 6).expect("it is untouched"), b"header");
    assert_eq!(directory.list().expect("readable").len(), 1);
}

#[test]
fn a_file_that_does_not_fit_leaves_nothing_behind() {
    let (_parent, directory) = directory();
    let error = directory
        .create("huge", 1 << 62, b"x")
        .expect_err("no disk is so large");
    assert!(error.is_full(), "{error:?}");
    assert!(error.hint().contains("make space"));
    let error = directory
        .create("small", 1, b"two")
        .expect_err("the header is longer");
    assert_eq!(error.source.kind(), io::ErrorKind::InvalidInput);
    assert_eq!(
        std::fs::read_dir(directory.path()).expect("readable").count(),
        1,
        "only the lock is left"
    );
}

#[test]
fn half_made_files_are_removed_when_the_directory_is_locked() {
    let (parent, directory) = directory();
    let path = parent.path().join("journal");
    std::fs::write(path.join("2.fgj.tmp"), b"torn").expect("writable");
    assert!(directory.list().expect("readable").is_empty());
    drop(directory);
    Directory::lock(&path).expect("it is free");
    assert!(!path.join("2.fgj.tmp").exists());
}

#[test]
fn writes_reads_and_deletes() {
    let (_parent, directory) = directory();
    directory.create("cursor", 64, b"").expect("it is new");
    directory.write("cursor", 32, b"slot").expect("it exists");
    assert_eq!(
        directory.read("cursor", 30, 100).expect("it exists").get(..8),
        Some(b"\0\0slot\0\0".as_slice())
    );
    assert_eq!(
        directory.read("cursor", 30, usize::MAX).expect("it exists").len(),
        34
    );
    assert!(directory.read("cursor", 64, 1).expect("it exists").is_empty());
    assert!(
        directory
            .read("cursor", u64::MAX, 1)
            .expect("it exists")
            .is_empty()
    );
    directory.delete("cursor").expect("it exists");
    assert_eq!(
        directory.delete("cursor").expect_err("it is gone").source.kind(),
        io::ErrorKind::NotFound
    );
    assert_eq!(
        directory
            .write("cursor", 0, b"x")
            .expect_err("it is gone")
            .source
            .kind(),
        io::ErrorKind::NotFound
    );
    assert!(directory.available_bytes().expect("the kernel says") > 0);
}

#[test]
fn replace_swaps_the_whole_content() {
    let (_parent, directory) = directory();
    directory.replace("state", b"a long first version").expect("new");
    directory.replace("state", b"second").expect("replaced");
    assert_eq!(directory.read("state", 0, 100).expect("it exists"), b"second");
    assert_eq!(directory.list().expect("readable").len(), 1);
}

#[test]
fn files_set_aside_keep_their_content_and_never_replace_each_other() {
    let (_parent, directory) = directory();
    for (content, aside) in [(b"one", "9.fgj.bad"), (b"two", "9.fgj.bad.1")] {
        directory.create("9.fgj", 3, content).expect("the name is free");
        assert_eq!(directory.quarantine("9.fgj").expect("it exists"), aside);
        assert_eq!(directory.read(aside, 0, 10).expect("it exists"), content);
    }
    assert_eq!(
        directory.quarantine("9.fgj").expect_err("gone").source.kind(),
        io::ErrorKind::NotFound
    );
}

#[test]
fn names_cannot_lead_out_of_the_directory() {
    let (_parent, directory) = directory();
    for name in [
        "",
        ".",
        "..",
        "../x",
        "a/b",
        "a\0b",
        "LOCK",
        "x.tmp",
        ".hidden",
        &"n".repeat(201),
    ] {
        let error = directory.create(name, 1, b"").expect_err(name);
        assert_eq!(error.source.kind(), io::ErrorKind::InvalidInput, "{name:?}");
        assert!(directory.read(name, 0, 1).is_err(), "{name:?}");
    }
}

#[test]
fn a_reader_without_the_lock_cannot_change_anything() {
    let (parent, directory) = directory();
    directory.create("1", 1, b"x").expect("new");
    let reader = Directory::open_read_only(&parent.path().join("journal")).expect("it exists");
    assert_eq!(reader.read("1", 0, 1).expect("readable"), b"x");
    assert_eq!(reader.list().expect("readable").len(), 1);
    for error in [
        reader.delete("1").expect_err("read only"),
        reader.create("2", 1, b"").map(drop).expect_err("read only"),
        reader.replace("1", b"").expect_err("read only"),
        reader.quarantine("1").map(drop).expect_err("read only"),
        reader.open("1").map(drop).expect_err("read only"),
    ] {
        assert_eq!(error.source.kind(), io::ErrorKind::PermissionDenied);
    }
}

#[test]
fn the_thread_answers_every_task_in_order() {
    let (parent, directory) = directory();
    let (storage, replies) = Storage::spawn(vec![directory], Waker::none(), 16).expect("a thread");
    let name = || "1.fgj".to_owned();
    let tasks = [
        Task::Create {
            name: name(),
            length: 100,
            header: b"head".to_vec(),
        },
        Task::Write {
            name: name(),
            offset: 4,
            bytes: b"body".to_vec(),
        },
        Task::Read {
            name: name(),
            offset: 0,
            length: 8,
        },
        Task::Open { name: name() },
        Task::List,
        Task::Quarantine { name: name() },
        Task::Delete { name: name() },
        Task::Delete {
            name: "1.fgj.bad".to_owned(),
        },
    ];
    for (token, task) in (0..).zip(tasks) {
        storage.submit(token, 0, task).expect("room for sixteen");
    }
    let mut results = (0..8).map(|token| {
        let reply = replies.receive().expect("the thread lives");
        assert_eq!(reply.token, token);
        reply.result
    });
    let mut next = || results.next().expect("eight of them");
    let Ok(Outcome::Created(file)) = next() else {
        panic!("not created")
    };
    assert!(matches!(next(), Ok(Outcome::Written(bytes)) if bytes == b"body"));
    assert!(matches!(next(), Ok(Outcome::Read(bytes)) if bytes == b"headbody"));
    assert!(matches!(next(), Ok(Outcome::Opened(_))));
    assert!(matches!(next(), Ok(Outcome::Listed(entries)) if entries.len() == 1));
    assert!(matches!(next(), Ok(Outcome::Quarantined(name)) if name == "1.fgj.bad"));
    assert!(matches!(next(), Err(error) if error.source.kind() == io::ErrorKind::NotFound));
    assert!(matches!(next(), Ok(Outcome::Deleted)));
    let mut head = [0; 4];
    file.file()
        .read_exact_at(&mut head, 0)
        .expect("deleted, but open");
    assert_eq!(&head, b"head");
    drop(storage);
    Directory::lock(&parent.path().join("journal")).expect("the thread has let go of the directory");
}

#[test]
fn a_full_thread_gives_the_task_back() {
    let (_parent, directory) = directory();
    let (storage, replies) = Storage::spawn(vec![directory], Waker::none(), 1).expect("a thread");
    // One in the queue, one at work, one waiting for its reply to be taken: the fourth or an earlier one finds no room.
    let refused = (0..5).find_map(|token| storage.submit(token, 0, Task::List).err());
    assert_eq!(refused, Some(Task::List));
    drop(replies);
}

#[test]
fn one_thread_works_in_several_directories() {
    let (_first_parent, first) = directory();
    let (second_parent, second) = directory();
    let (storage, replies) = Storage::spawn(vec![first, second], Waker::none(), 4).expect("a thread");
    let task = Task::Create {
        name: "file".to_owned(),
        length: 10,
        header: Vec::new(),
    };
    assert!(storage.submit(0, 2, task.clone()).is_err(), "there is no third");
    storage.submit(1, 1, task).expect("room for four");
    storage.submit(2, 0, Task::List).expect("room for four");
    drop(storage);
    let made = replies.try_receive().expect("it was done");
    assert!(matches!(made.result, Ok(Outcome::Created(_))));
    let listed = replies.try_receive().expect("it was done");
    assert!(matches!(listed.result, Ok(Outcome::Listed(files)) if files.is_empty()));
    assert!(second_parent.path().join("journal/file").exists());
}

#[test]
fn a_file_is_cut_off_and_never_made_longer() {
    let (_parent, directory) = directory();
    directory.create("file", 10_000, b"header").expect("it is new");
    for (length, left) in [(20_000, 10_000), (100, 100), (200, 100)] {
        directory.shrink("file", length).expect("it is there");
        let files = directory.list().expect("readable");
        assert_eq!(files[0].length, left, "shrunk to {length}");
    }
    assert_eq!(directory.read("file", 0, 6).expect("it exists"), b"header");
    assert!(directory.shrink("none", 1).is_err());
}
