use std::fs;

use proptest::prelude::*;

use super::*;

fn backends() -> Vec<Backend> {
    match std::env::var("FIELDGATE_IO").as_deref() {
        Ok("epoll") => vec![Backend::Epoll],
        _ => vec![Backend::Epoll, Backend::Uring],
    }
}

#[test]
fn lines_are_appended_in_order_and_answered() {
    for backend in backends() {
        let directory = tempfile::tempdir().expect("room for a directory");
        let path = directory.path().join("readings.jsonl");
        fs::write(&path, "before\n").expect("writable");
        let (file, answers, opened) = LineFile::open(&path, backend, Waker::none(), 64).expect("it opens");
        assert_eq!(
            opened,
            Opened {
                length: 7,
                torn: 0,
                last_line: Some(b"before".to_vec())
            }
        );
        for token in 0..50 {
            file.append(token, format!("{{\"n\":{token}}}\n").into_bytes())
                .expect("room for 64");
        }
        for token in 0..50 {
            let answer = answers.receive().expect("the thread lives");
            assert_eq!(answer.token, token);
            assert_eq!(answer.bytes, format!("{{\"n\":{token}}}\n").into_bytes());
            answer.result.expect("the disk is not full");
        }
        drop(file);
        let lines = fs::read_to_string(&path).expect("readable");
        let expected: String = std::iter::once("before\n".to_owned())
            .chain((0..50).map(|n| format!("{{\"n\":{n}}}\n")))
            .collect();
        assert_eq!(lines, expected, "{backend}");
    }
}

#[test]
fn dropping_it_finishes_what_it_was_given() {
    for backend in backends() {
        let directory = tempfile::tempdir().expect("room for a directory");
        let path = directory.path().join("lines");
        let (file, answers, _) = LineFile::open(&path, backend, Waker::none(), 64).expect("it opens");
        for token in 0..64 {
            file.append(token, b"line\n".to_vec()).expect("room for 64");
        }
        drop(answers);
        drop(file);
        assert_eq!(fs::metadata(&path).expect("it exists").len(), 64 * 5, "{backend}");
    }
}

#[test]
fn a_torn_line_is_cut_off() {
    let directory = tempfile::tempdir().expect("room for a directory");
    let path = directory.path().join("lines");
    for (content, length, last) in [
        ("", 0, None),
        ("torn", 0, None),
        ("one\n", 4, Some("one")),
        ("one\ntwo\nto", 8, Some("two")),
        ("\n", 1, Some("")),
        ("\n\nx", 2, Some("")),
    ] {
        fs::write(&path, content).expect("writable");
        let (_, _, opened) = LineFile::open(&path, Backend::Epoll, Waker::none(), 1).expect("it opens");
        assert_eq!(opened.length, length);
        assert_eq!(opened.torn, content.len() as u64 - length);
        assert_eq!(opened.last_line, last.map(|line| line.as_bytes().to_vec()));
        assert_eq!(fs::metadata(&path).expect("it exists").len(), length);
    }
}

#[test]
fn a_torn_line_longer_than_a_block_is_cut_off() {
    let directory = tempfile::tempdir().expect("room for a directory");
    let path = directory.path().join("lines");
    let mut content = b"kept\n".to_vec();
    content.resize(3 * BLOCK_SIZE + 17, b'x');
    fs::write(&path, &content).expect("writable");
    let (_, _, opened) = LineFile::open(&path, Backend::Epoll, Waker::none(), 1).expect("it opens");
    assert_eq!((opened.length, opened.last_line), (5, Some(b"kept".to_vec())));

    content.truncate(LAST_LINE_MAX);
    content.resize(LAST_LINE_MAX + 100, b'x');
    content.push(b'\n');
    fs::write(&path, &content).expect("writable");
    let (_, _, opened) = LineFile::open(&path, Backend::Epoll, Waker::none(), 1).expect("it opens");
    assert_eq!((opened.length, opened.last_line), (content.len() as u64, None));
}

proptest! {
    /// Whatever the file holds, what is left is the longest part that ends in a newline.
    #[test]
    fn repair_keeps_exactly_the_complete_lines(content in prop::collection::vec(prop_oneof![Just(b'\n'), any::<u8>()], 0..300)) {
        let file = tempfile::tempfile().expect("room for a file");
        file.write_all_at(&content, 0).expect("writable");
        let opened = repair(&file).expect("readable");
        let complete = content.iter().rposition(|&byte| byte == b'\n').map_or(0, |position| position + 1);
        prop_assert_eq!(opened.length, complete as u64);
        prop_assert_eq!(opened.torn, (content.len() - complete) as u64);
        let last = content[..complete].strip_suffix(b"\n").map(|lines| lines.rsplit(|&byte| byte == b'\n').next().unwrap_or_default().to_vec());
        prop_assert_eq!(opened.last_line, last);
    }
}

#[test]
fn only_one_process_appends_and_only_complete_lines() {
    let directory = tempfile::tempdir().expect("room for a directory");
    let path = directory.path().join("lines");
    let (file, _answers, _) = LineFile::open(&path, Backend::Epoll, Waker::none(), 1).expect("it opens");
    let error = LineFile::open(&path, Backend::Epoll, Waker::none(), 1)
        .map(drop)
        .expect_err("it is in use");
    assert_eq!(error.source.kind(), io::ErrorKind::WouldBlock);
    assert_eq!(file.append(1, b"no end".to_vec()), Err(b"no end".to_vec()));
    assert_eq!(file.append(1, Vec::new()), Err(Vec::new()));
    drop(file);
    LineFile::open(&path, Backend::Epoll, Waker::none(), 1).expect("it is free again");
    let error = LineFile::open(Path::new("/dev/null"), Backend::Epoll, Waker::none(), 1).map(drop);
    assert_eq!(
        error.expect_err("no regular file").source.kind(),
        io::ErrorKind::InvalidInput
    );
}
