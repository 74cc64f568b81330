//! Durable writes, and messages from other threads.

use std::{fs::File, io::ErrorKind, os::unix::fs::FileExt, thread};

use fieldgate_io::{
    Backend, Driver, Io, Waker,
    mailbox::{MailError, mailbox},
    storage::{Directory, FileRef, Outcome, Storage, Task},
};

use super::{Progress, Script, Seen, driver, on_both_backends, pattern, settings};

on_both_backends!(
    durable_writes_are_on_the_disk_when_told,
    a_full_disk_is_told,
    writes_over_the_bound_are_given_back,
    values_from_other_threads_arrive_in_order,
    wakes_coalesce,
    storage_answers_a_shard,
);

fn quiet(_: &mut Io, _: &Seen) {}

fn durable_writes_are_on_the_disk_when_told(backend: Backend) {
    let mut driver = driver(backend, settings());
    let file = tempfile::tempfile().expect("room for a file");
    let shared = FileRef::new(file.try_clone().expect("a descriptor"));
    let mut buffer = pattern(0, 0, 300_000);
    // One in flight at a time, the buffer used again, as a journal does it.
    for token in 0..10 {
        driver
            .io()
            .write_durable(&shared, token * 300_000, buffer, token)
            .expect("room for one");
        let mut script = Script::new(quiet);
        script.run(&mut driver, |script, _| {
            script.count(|seen| matches!(seen, Seen::Written(..))) == 1
        });
        let written = script
            .seen
            .into_iter()
            .find(|seen| matches!(seen, Seen::Written(..)));
        let Some(Seen::Written(told, bytes, result)) = written else {
            panic!("not written")
        };
        assert_eq!((told, result), (token, Ok(())));
        assert!(
            bytes == pattern(token, 0, 300_000),
            "the buffer comes back as it was"
        );
        let mut back = vec![0; 300_000];
        file.read_exact_at(&mut back, token * 300_000)
            .expect("it is there");
        assert!(back == bytes, "the file holds other bytes");
        buffer = pattern(token + 1, 0, 300_000);
    }
    driver
        .io()
        .write_durable(&shared, 0, Vec::new(), 99)
        .expect("room for one");
    let mut script = Script::new(quiet);
    script.run(&mut driver, |script, _| {
        script.seen.contains(&Seen::Written(99, Vec::new(), Ok(())))
    });
    assert_eq!(driver.io().stats().writes, 11);
    assert_eq!(file.metadata().expect("open").len(), 3_000_000);
}

fn a_full_disk_is_told(backend: Backend) {
    let mut driver = driver(backend, settings());
    let full = FileRef::new(File::options().write(true).open("/dev/full").expect("it exists"));
    let closed = FileRef::new(File::open("/dev/null").expect("it exists"));
    driver
        .io()
        .write_durable(&full, 0, b"lost".to_vec(), 1)
        .expect("room for two");
    driver
        .io()
        .write_durable(&closed, 0, b"read only".to_vec(), 2)
        .expect("room for two");
    let mut script = Script::new(quiet);
    script.run(&mut driver, |script, _| {
        script.count(|seen| matches!(seen, Seen::Written(..))) == 2
    });
    assert!(
        script
            .seen
            .contains(&Seen::Written(1, b"lost".to_vec(), Err(ErrorKind::StorageFull)))
    );
    let second = script
        .seen
        .iter()
        .any(|seen| matches!(seen, Seen::Written(2, _, Err(_))));
    assert!(second, "a file that is not open for writing cannot be written");
}

fn writes_over_the_bound_are_given_back(backend: Backend) {
    let mut driver = driver(backend, settings());
    let file = FileRef::new(tempfile::tempfile().expect("room for a file"));
    for token in 0..Io::WRITES_MAX as u64 {
        driver
            .io()
            .write_durable(&file, token, vec![1], token)
            .expect("within the bound");
    }
    assert_eq!(driver.io().write_durable(&file, 0, vec![9], 99), Err(vec![9]));
    let mut script = Script::new(quiet);
    let written = |script: &Script<_>| script.count(|seen| matches!(seen, Seen::Written(_, _, Ok(()))));
    script.run(&mut driver, |script, _| written(script) == Io::WRITES_MAX);
    driver
        .io()
        .write_durable(&file, 0, vec![9], 99)
        .expect("room again");
    script.run(&mut driver, |script, _| written(script) == Io::WRITES_MAX + 1);
}

fn values_from_other_threads_arrive_in_order(backend: Backend) {
    const VALUES: u64 = 20_000;
    let waker = Waker::new().expect("a descriptor");
    let (sender, receiver) = mailbox::<(u64, u64)>(64, waker.clone());
    let threads: Vec<_> = (0..3)
        .map(|thread| {
            let sender = sender.clone();
            thread::spawn(move || {
                for value in 0..VALUES {
                    let mut mail = (thread, value);
                    // A full mailbox gives the value back.
                    while let Err(MailError::Full(back)) = sender.try_send(mail) {
                        mail = back;
                        thread::yield_now();
                    }
                }
            })
        })
        .collect();
    let mut driver = Driver::new(backend, settings(), &waker).expect("the backend works");
    let mut next = [0_u64; 3];
    let mut progress = Progress::default();
    let mut script = Script::new(move |io: &mut Io, seen: &Seen| {
        let count = usize::try_from(next.iter().sum::<u64>()).expect("60,000 at most");
        assert!(progress.goes_on(count), "a wake was lost: {next:?}");
        // What it is not woken for it does not see.
        if *seen == Seen::Woken {
            receiver.drain(|(thread, value)| {
                let expected = &mut next[usize::try_from(thread).expect("three")];
                assert_eq!(value, *expected);
                *expected += 1;
            });
            if next == [VALUES; 3] {
                io.stop();
            }
        }
    });
    driver.run(&mut script).expect("it waits");
    for thread in threads {
        thread.join().expect("it sends");
    }
}

fn wakes_coalesce(backend: Backend) {
    let waker = Waker::new().expect("a descriptor");
    let mut driver = Driver::new(backend, settings(), &waker).expect("the backend works");
    let mut script = Script::new(quiet);
    driver.turn(&mut script).expect("it waits");
    script.seen.clear();
    for round in 1..=5 {
        for _ in 0..1000 {
            waker.wake();
        }
        script.run(&mut driver, |script, _| script.seen.len() >= round);
        driver.turn(&mut script).expect("it waits");
        assert_eq!(script.seen, vec![Seen::Woken; round]);
    }
}

fn storage_answers_a_shard(backend: Backend) {
    let waker = Waker::new().expect("a descriptor");
    let mut driver = Driver::new(backend, settings(), &waker).expect("the backend works");
    let directory = tempfile::tempdir().expect("room for a directory");
    let journal = Directory::lock(&directory.path().join("journal")).expect("nobody else has it");
    let (storage, replies) = Storage::spawn(vec![journal], waker, 8).expect("a thread");
    let task = Task::Create {
        name: "1.fgj".to_owned(),
        length: 4096,
        header: b"head".to_vec(),
    };
    storage.submit(7, 0, task).expect("room for eight");
    // The life of a segment: made by the storage thread, written by the shard.
    let (mut progress, mut events) = (Progress::default(), 0);
    let mut script = Script::new(move |io: &mut Io, seen: &Seen| {
        events += usize::from(*seen != Seen::TurnEnded);
        assert!(progress.goes_on(events), "no answer came");
        match seen {
            Seen::Woken => replies.drain(|reply| {
                assert_eq!(reply.token, 7);
                let Ok(Outcome::Created(file)) = reply.result else {
                    panic!("not created")
                };
                io.write_durable(&file, 4, b"body".to_vec(), 8)
                    .expect("room for one");
            }),
            Seen::Written(8, _, Ok(())) => io.stop(),
            _ => {}
        }
    });
    driver.run(&mut script).expect("it waits");
    let mut content = [0; 8];
    let file = File::open(directory.path().join("journal/1.fgj")).expect("it exists");
    file.read_exact_at(&mut content, 0).expect("long enough");
    assert_eq!(&content, b"headbody");
    drop(storage);
}
