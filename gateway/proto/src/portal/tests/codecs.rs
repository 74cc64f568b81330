use proptest::prelude::*;

use crate::portal::{
    BEGIN, Begin, Item, Items, Open, ResetReason, StreamId,
    frame::{PACKET_HEAD_LEN, put_packet, split_packet},
};

/// What an item is made of, so that it can be kept.
#[derive(Clone, Debug)]
enum Said {
    Open([String; 4]),
    Opened,
    Data(Vec<u8>),
    Credit(u64),
    Finish,
    Reset(ResetReason),
}

impl Said {
    fn item(&self) -> Item<'_> {
        match self {
            Self::Open([outlet, origin, user, target]) => Item::Open(Open {
                outlet,
                origin,
                user,
                target,
            }),
            Self::Opened => Item::Opened,
            Self::Data(bytes) => Item::Data(bytes),
            Self::Credit(limit) => Item::Credit(*limit),
            Self::Finish => Item::Finish,
            Self::Reset(reason) => Item::Reset(*reason),
        }
    }
}

fn said() -> impl Strategy<Value = Said> {
    let text = || "[a-zäöü0-9:./-]{0,100}";
    prop_oneof![
        [text(), text(), text(), text()].prop_map(Said::Open),
        Just(Said::Opened),
        prop::collection::vec(any::<u8>(), 0..300).prop_map(Said::Data),
        any::<u64>().prop_map(Said::Credit),
        Just(Said::Finish),
        prop::sample::select(ResetReason::ALL.to_vec()).prop_map(Said::Reset),
    ]
}

proptest! {
    #[test]
    fn items_are_read_as_they_were_written(all in prop::collection::vec((any::<u32>(), said()), 0..20), sequence: u64) {
        let mut bytes = Vec::new();
        for (stream, said) in &all {
            said.item().put(StreamId::new(*stream), &mut bytes);
        }
        let mut frame = Vec::new();
        put_packet(&mut frame, sequence, &bytes);
        prop_assert_eq!(frame.len(), bytes.len() + PACKET_HEAD_LEN);
        let (read, mut items) = split_packet(&frame[3..]).unwrap();
        prop_assert_eq!(read, sequence);
        for (stream, said) in &all {
            prop_assert_eq!(items.next_item().unwrap(), Some((StreamId::new(*stream), said.item())));
        }
        prop_assert_eq!(items.next_item().unwrap(), None);
    }

    #[test]
    fn a_begin_is_read_as_it_was_written(session: [u8; 16], taken: u64, resumes: bool, term: u32) {
        let begin = Begin { session, taken, resumes, term };
        let mut frame = Vec::new();
        begin.put(BEGIN, &mut frame);
        prop_assert_eq!(Begin::decode(&frame[3..]).unwrap(), begin);
        for cut in 3..frame.len() - 1 {
            prop_assert!(Begin::decode(&frame[3..cut]).is_err());
        }
    }

    #[test]
    fn any_bytes_are_read_without_harm(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut items = Items::new(&bytes);
        while let Ok(Some(_)) = items.next_item() {}
        let _ = Begin::decode(&bytes);
        let _ = split_packet(&bytes);
    }
}

#[test]
fn reasons_have_numbers_of_their_own_and_later_ones_mean_broken() {
    for reason in ResetReason::ALL {
        assert_eq!(ResetReason::from_code(reason.code()), reason);
    }
    assert_eq!(ResetReason::from_code(0), ResetReason::Broken);
    assert_eq!(ResetReason::from_code(200), ResetReason::Broken);
}
