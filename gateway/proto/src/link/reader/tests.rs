use proptest::prelude::*;

use super::*;

/// Returns the frames of `stream`, given in chunks of the lengths `chunks` (repeated), and the error that ended it.
fn read(stream: &[u8], chunks: &[usize], len_max: usize) -> (Vec<(u8, Vec<u8>)>, Option<FrameError>) {
    let mut reader = FrameReader::new(len_max);
    let mut frames = Vec::new();
    let mut rest = stream.to_vec();
    for len in chunks.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let behind = rest.split_off((*len).clamp(1, rest.len()));
        let mut chunk = std::mem::replace(&mut rest, behind);
        let mut raw = reader.read(&mut chunk);
        loop {
            match raw.next_frame() {
                Ok(Some(frame)) => frames.push((frame.kind, frame.body.to_vec())),
                Ok(None) => break,
                Err(error) => return (frames, Some(error)),
            }
        }
    }
    (frames, None)
}

fn stream(frames: &[(u8, Vec<u8>)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (kind, body) in frames {
        let len = u32::try_from(body.len()).expect("short").to_be_bytes();
        out.extend_from_slice(&[len[1], len[2], len[3], *kind]);
        out.extend_from_slice(body);
    }
    out
}

#[test]
fn whole_frames_are_not_copied() {
    let mut bytes = stream(&[(1, vec![7; 10]), (2, vec![]), (3, vec![8; 3])]);
    let range = bytes.as_ptr_range();
    let mut reader = FrameReader::default();
    let mut frames = reader.read(&mut bytes);
    let mut kinds = Vec::new();
    while let Ok(Some(frame)) = frames.next_frame() {
        assert!(range.start <= frame.body.as_ptr() && frame.body.as_ptr() <= range.end);
        kinds.push(frame.kind);
    }
    assert_eq!(kinds, [1, 2, 3]);
    assert_eq!(reader.tail.capacity(), 0);
}

#[test]
fn a_body_can_be_changed_in_place_wherever_it_lies() {
    let bytes = stream(&[(1, vec![7; 10]), (2, vec![8; 10])]);
    for cut in 1..bytes.len() {
        let (mut first, mut second) = (bytes[..cut].to_vec(), bytes[cut..].to_vec());
        let mut reader = FrameReader::default();
        let mut seen = 0;
        for chunk in [&mut first, &mut second] {
            let mut frames = reader.read(chunk);
            while let Ok(Some(frame)) = frames.next_frame() {
                frame.body.fill(0xee);
                seen += frame.body.iter().filter(|byte| **byte == 0xee).count();
            }
        }
        assert_eq!(seen, 20, "cut at {cut}");
    }
}

#[test]
fn an_announced_length_takes_no_memory() {
    let mut reader = FrameReader::default();
    let mut bytes = vec![1, 0x10, 0, 0x10, 1, 2];
    assert_eq!(reader.read(&mut bytes).next_frame(), Ok(None));
    assert!(reader.tail.capacity() < 64);
}

#[test]
fn a_stream_not_read_to_the_end_is_broken() {
    let mut bytes = stream(&[(1, vec![1]), (2, vec![2])]);
    let mut reader = FrameReader::default();
    assert!(
        reader
            .read(&mut bytes.clone())
            .next_frame()
            .is_ok_and(|frame| frame.is_some())
    );
    assert_eq!(reader.read(&mut bytes).next_frame(), Ok(None));
}

#[test]
fn nothing_comes_after_a_frame_too_long() {
    let mut reader = FrameReader::new(5);
    let error = FrameError::TooLong { len: 6, max: 5 };
    let mut bytes = stream(&[(1, vec![0; 6]), (2, vec![])]);
    assert_eq!(reader.read(&mut bytes.clone()).next_frame(), Err(error));
    assert_eq!(reader.read(&mut bytes).next_frame(), Ok(None));
    // The same, with the length in two pieces.
    let mut reader = FrameReader::new(5);
    assert_eq!(reader.read(&mut bytes[..2].to_vec()).next_frame(), Ok(None));
    assert_eq!(reader.read(&mut bytes[2..].to_vec()).next_frame(), Err(error));
}

#[test]
fn the_tail_is_used_again_and_given_back_when_idle() {
    let bytes = stream(&[(1, vec![3; 5_000])]);
    let mut reader = FrameReader::default();
    let mut pointers = Vec::new();
    for _ in 0..10 {
        for chunk in [&bytes[..3_000], &bytes[3_000..]] {
            let mut chunk = chunk.to_vec();
            let mut frames = reader.read(&mut chunk);
            while let Ok(Some(frame)) = frames.next_frame() {
                pointers.push(frame.body.as_ptr());
            }
        }
    }
    assert_eq!(pointers.len(), 10);
    assert!(
        pointers.windows(2).skip(1).all(|pair| pair[0] == pair[1]),
        "steady state allocates"
    );
    reader.shrink();
    assert_eq!(reader.tail.capacity(), 0);
}

proptest! {
    #[test]
    fn chunks_of_any_size_give_the_same_frames(
        frames in proptest::collection::vec((any::<u8>(), proptest::collection::vec(any::<u8>(), 0..40)), 0..20),
        chunks in proptest::collection::vec(1_usize..50, 1..20),
    ) {
        prop_assert_eq!(read(&stream(&frames), &chunks, 64), (frames, None));
    }

    #[test]
    fn any_bytes_give_the_same_in_any_chunks(
        bytes in proptest::collection::vec(0_u8..4, 0..300),
        chunks in proptest::collection::vec(1_usize..50, 1..20),
    ) {
        prop_assert_eq!(read(&bytes, &chunks, 600), read(&bytes, &[usize::MAX], 600));
        prop_assert_eq!(read(&bytes, &chunks, usize::MAX), read(&bytes, &[1], usize::MAX));
    }
}
