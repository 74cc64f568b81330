use proptest::prelude::*;

use super::*;
use crate::route::Route;

/// Writes a frame by the functions a node uses.
pub(crate) fn encode(out: &mut Vec<u8>, frame: &Frame<'_>) {
    let (mark, payload) = match frame {
        Frame::Hello(hello) => return put_hello(out, hello),
        Frame::Ping(id) => return put_ping(out, *id),
        Frame::Pong(id) => return put_pong(out, *id),
        Frame::LabelGone(label) => return put_label_gone(out, *label),
        Frame::Data {
            class,
            label,
            payload,
        } => (begin_data(out, *class, *label), payload),
        Frame::DataOffer {
            class,
            label,
            offered,
            payload,
        } => (begin_data_offer(out, *class, *label, *offered), payload),
        Frame::Routed { class, head, payload } => (begin_routed(out, *class, head), payload),
    };
    out.extend_from_slice(payload);
    finish_frame(out, mark, FRAME_LEN_MAX).expect("the payload fits");
}

fn label(number: u32) -> Label {
    Label::new(number).expect("not zero")
}

#[test]
fn frames_have_the_bytes_of_the_protocol() {
    let route: Route = "name:ab/service:c".parse().expect("a route");
    let back: Route = "link:0102030405060708".parse().expect("a route");
    let (mut two, mut three, mut full) = ([9, 9], [3], [0xff]);
    let cases: Vec<(Frame<'_>, Vec<u8>)> = vec![
        (
            Frame::Hello(Hello {
                frame_len_max: 69_632,
                nonce: 0x0102_0304_0506_0708,
                software: "x/1",
            }),
            [
                &[0, 0, 20, 1][..],
                b"FGL1",
                &[0, 1, 16, 0, 1, 2, 3, 4, 5, 6, 7, 8, 3],
                b"x/1",
            ]
            .concat(),
        ),
        (Frame::Ping(5), vec![0, 0, 8, 2, 0, 0, 0, 0, 0, 0, 0, 5]),
        (Frame::Pong(6), vec![0, 0, 8, 3, 0, 0, 0, 0, 0, 0, 0, 6]),
        (Frame::LabelGone(label(7)), vec![0, 0, 4, 4, 0, 0, 0, 7]),
        (
            Frame::Data {
                class: Class::Bulk,
                label: label(0x0a0b_0c0d),
                payload: &mut two,
            },
            vec![0, 0, 6, 0x12, 0x0a, 0x0b, 0x0c, 0x0d, 9, 9],
        ),
        (
            Frame::DataOffer {
                class: Class::Alarm,
                label: label(1),
                offered: label(2),
                payload: &mut three,
            },
            vec![0, 0, 9, 0x20, 0, 0, 0, 1, 0, 0, 0, 2, 3],
        ),
        (
            Frame::Routed {
                class: Class::Normal,
                head: RoutedHead {
                    hop_limit: HopLimit::MAX,
                    offered: None,
                    onward: route.as_ref(),
                    return_route: back.as_ref(),
                },
                payload: &mut full,
            },
            [
                &[0, 0, 25, 0x31, 8, 0, 0, 0, 0][..],
                &[2, 1, 2, b'a', b'b', 2, 1, b'c'],
                &[1, 3, 8, 1, 2, 3, 4, 5, 6, 7, 8],
                &[0xff],
            ]
            .concat(),
        ),
    ];
    for (mut frame, bytes) in cases {
        let mut out = Vec::new();
        encode(&mut out, &frame);
        assert_eq!(out, bytes, "{frame:?}");
        let mut body = bytes[FRAME_HEADER_LEN..].to_vec();
        assert_eq!(Frame::decode(bytes[3], &mut body), Ok(take(&mut frame)));
    }
}

fn take<'a>(frame: &mut Frame<'a>) -> Frame<'a> {
    std::mem::replace(frame, Frame::Ping(0))
}

#[test]
fn a_data_frame_costs_eight_bytes() {
    let mut out = Vec::new();
    put_data(&mut out, Class::Normal, label(3), &[1; 100], FRAME_LEN_MAX).expect("fits");
    assert_eq!(out.len(), 108);
    let mut same = Vec::new();
    let mark = begin_data(&mut same, Class::Normal, label(3));
    same.extend_from_slice(&[1; 100]);
    finish_frame(&mut same, mark, FRAME_LEN_MAX).expect("fits");
    assert_eq!(out, same);
}

#[test]
fn a_frame_too_long_for_the_neighbour_is_taken_back() {
    let mut out = vec![1, 2, 3];
    let mark = begin_data(&mut out, Class::Normal, label(3));
    out.resize(out.len() + 5_000, 0);
    let error = FrameError::TooLong {
        len: 5_004,
        max: 4_096,
    };
    assert_eq!(finish_frame(&mut out, mark, 4_096), Err(error));
    assert_eq!(out, [1, 2, 3]);
    assert_eq!(
        put_data(&mut out, Class::Normal, label(3), &[0; 5_000], 4_096),
        Err(error)
    );
    assert_eq!(out, [1, 2, 3]);
    let longest = vec![0; FRAME_LEN_MAX - 3];
    let error = put_data(&mut out, Class::Normal, label(3), &longest, usize::MAX);
    assert_eq!(
        error,
        Err(FrameError::TooLong {
            len: FRAME_LEN_MAX + 1,
            max: FRAME_LEN_MAX
        })
    );
    let mark = begin_data(&mut out, Class::Normal, label(3));
    abandon_frame(&mut out, mark);
    assert_eq!(out, [1, 2, 3]);
}

#[test]
fn only_what_breaks_the_stream_closes_the_link() {
    let kinds = |closes: bool| {
        (0..=u8::MAX)
            .filter(move |kind| Frame::decode(*kind, &mut []).is_err_and(|e| e.closes_link() == closes))
    };
    let known = [1, 2, 3, 4, 0x10, 0x11, 0x12, 0x20, 0x21, 0x22, 0x30, 0x31, 0x32];
    assert_eq!(kinds(false).collect::<Vec<_>>(), known);
    assert_eq!(kinds(true).count(), 256 - known.len());
    assert!(FrameError::TooLong { len: 1, max: 0 }.closes_link());
}

#[test]
fn label_zero_is_refused_where_a_label_must_be() {
    for (kind, body) in [
        (4, vec![0; 4]),
        (0x10, vec![0; 5]),
        (0x20, vec![0, 0, 0, 1, 0, 0, 0, 0]),
        (0x21, vec![0; 8]),
    ] {
        let error = Frame::decode(kind, &mut body.clone())
            .map(|_| ())
            .expect_err("label 0");
        assert!(
            matches!(error, FrameError::Malformed { kind: k, .. } if k == kind),
            "{error}"
        );
    }
}

fn addresses() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-zäß ]{1,40}".prop_map(|name| format!("name:{name}")),
        "[a-z0-9-]{1,32}".prop_map(|service| format!("service:{service}")),
        any::<u64>().prop_map(|link| format!("link:{link:016x}")),
    ]
}

fn routes() -> impl Strategy<Value = Route> {
    proptest::collection::btree_set(addresses(), 0..=8).prop_map(|addresses| {
        let text: Vec<String> = addresses.into_iter().collect();
        text.join("/").parse().expect("unlike addresses make a route")
    })
}

proptest! {
    #[test]
    fn data_and_offers_come_back(
        class in 0_u8..3, number in 1..=u32::MAX, offered in 1..=u32::MAX, mut payload: Vec<u8>,
    ) {
        let class = Class::from_bits(class).expect("below 3");
        let mut again = payload.clone();
        let frame = Frame::Data { class, label: label(number), payload: &mut payload };
        let mut out = Vec::new();
        encode(&mut out, &frame);
        let (header, body) = out.split_at_mut(4);
        prop_assert_eq!(Frame::decode(header[3], body), Ok(frame));
        let frame = Frame::DataOffer { class, label: label(number), offered: label(offered), payload: &mut again };
        let mut out = Vec::new();
        encode(&mut out, &frame);
        let (header, body) = out.split_at_mut(4);
        prop_assert_eq!(Frame::decode(header[3], body), Ok(frame));
    }

    #[test]
    fn routed_frames_come_back(
        class in 0_u8..3, hops in 0_u8..=8, offered: u32, onward in routes(), back in routes(), mut payload: Vec<u8>,
    ) {
        let head = RoutedHead {
            hop_limit: HopLimit::new(hops).expect("at most 8"),
            offered: Label::new(offered),
            onward: onward.as_ref(),
            return_route: back.as_ref(),
        };
        let class = Class::from_bits(class).expect("below 3");
        let frame = Frame::Routed { class, head, payload: &mut payload };
        let mut out = Vec::new();
        encode(&mut out, &frame);
        let (header, body) = out.split_at_mut(4);
        prop_assert_eq!(Frame::decode(header[3], body), Ok(frame));
    }

    #[test]
    fn any_body_is_refused_or_has_one_encoding(kind: u8, mut body: Vec<u8>) {
        let bytes = body.clone();
        if let Ok(frame) = Frame::decode(kind, &mut body) {
            let mut out = Vec::new();
            encode(&mut out, &frame);
            prop_assert_eq!(&out[4..], bytes);
            prop_assert_eq!(out[3], kind);
        }
    }

    /// Bytes that begin like routes reach deeper than any bytes.
    #[test]
    fn any_routes_are_refused_or_have_one_encoding(
        parts in proptest::collection::vec((0_u8..5, proptest::collection::vec(97_u8..124, 0..12)), 0..12),
        count in 0_u8..10,
        tail: Vec<u8>,
    ) {
        let mut body = vec![3, 0, 0, 0, 0, count];
        for (kind, value) in parts {
            body.push(kind);
            put_bytes8(&mut body, &value);
        }
        body.extend_from_slice(&tail);
        let bytes = body.clone();
        if let Ok(frame) = Frame::decode(0x30, &mut body) {
            let mut out = Vec::new();
            encode(&mut out, &frame);
            prop_assert_eq!(&out[4..], bytes);
        }
    }
}
