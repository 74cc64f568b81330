use proptest::prelude::*;

use super::*;

fn read(bytes: &[u8]) -> Result<RouteRef<'_>, WireError> {
    let mut reader = Reader::new(bytes);
    let route = RouteRef::read(&mut reader)?;
    reader.finish().map(|()| route)
}

#[test]
fn a_route_has_text_and_bytes() {
    let route: Route = "name:plant/link:00000000000000ff/service:uplink"
        .parse()
        .expect("a route");
    let mut bytes = Vec::new();
    route.as_ref().put(&mut bytes);
    assert_eq!(
        bytes,
        b"\x03\x01\x05plant\x03\x08\0\0\0\0\0\0\0\xff\x02\x06uplink"
    );
    assert_eq!(read(&bytes).map(|read| read.to_route()), Ok(route.clone()));
    assert_eq!(
        route.to_string(),
        "name:plant/link:00000000000000ff/service:uplink"
    );
    let (first, rest) = route.as_ref().split_first().expect("three addresses");
    assert_eq!((first, rest.len()), (Address::Name("plant"), 2));
    assert_eq!(rest.to_string(), "link:00000000000000ff/service:uplink");
    assert_eq!(rest.last(), Some(Address::Service("uplink")));
}

#[test]
fn the_empty_route_is_the_empty_text() {
    assert_eq!(
        "".parse::<Route>().map(|route| route.to_string()),
        Ok(String::new())
    );
    assert_eq!(RouteRef::EMPTY.split_first(), None);
    assert_eq!(read(&[0]), Ok(RouteRef::EMPTY));
}

#[test]
fn bad_texts_say_what_is_wrong() {
    let syntax = |part: &str| RouteError::Syntax {
        part: part.to_owned(),
    };
    let nine = (0..9).map(|i| format!("name:{i}")).collect::<Vec<_>>().join("/");
    let long_name = format!("name:{}", "x".repeat(129));
    let long_service = format!("service:{}", "x".repeat(33));
    let cases = [
        ("plant", syntax("plant")),
        ("name:a//service:b", syntax("")),
        ("link:ff", syntax("link:ff")),
        ("link:+0000000000000ff", syntax("link:+0000000000000ff")),
        ("host:a", syntax("host:a")),
        ("name:%4", syntax("name:%4")),
        ("name:%ff", syntax("name:%ff")),
        ("name:", RouteError::NameLen { len: 0 }),
        (long_name.as_str(), RouteError::NameLen { len: 129 }),
        (long_service.as_str(), RouteError::ServiceLen { len: 33 }),
        ("service:Up", RouteError::ServiceChar { found: 'U' }),
        (nine.as_str(), RouteError::TooMany),
        (
            "name:a/name:a",
            RouteError::Duplicate {
                address: "name:a".to_owned(),
            },
        ),
    ];
    for (text, error) in cases {
        assert!(!error.hint().is_empty());
        assert_eq!(text.parse::<Route>(), Err(error), "{text}");
    }
}

#[test]
fn bad_bytes_are_refused() {
    let cases: [&[u8]; 9] = [
        &[9],
        &[1],
        &[1, 0, 1, b'a'],
        &[1, 4, 1, b'a'],
        &[1, 1, 0],
        &[1, 1, 1, 0xff],
        &[1, 2, 1, b'A'],
        &[1, 3, 7, 0, 0, 0, 0, 0, 0, 0],
        &[0, 0],
    ];
    for bytes in cases {
        assert!(read(bytes).is_err(), "{bytes:?}");
    }
    let long = [&[1, 1, 129][..], &[b'a'; 129]].concat();
    assert!(read(&long).is_err());
}

#[test]
fn a_loop_is_a_name_or_link_that_comes_twice() {
    let decoded = |text: &str| {
        // Made part by part, as `Route::new` refuses the loop.
        let mut bytes = vec![u8::try_from(text.split('/').count()).expect("few")];
        for part in text.split('/') {
            bytes.extend_from_slice(part.parse::<Route>().expect("an address").as_ref().encoded());
        }
        bytes
    };
    let bytes = decoded("name:a/name:b/name:a");
    assert_eq!(
        read(&bytes).expect("a route").duplicate(),
        Some(Address::Name("a"))
    );
    let bytes = decoded("service:a/name:a/service:a");
    assert_eq!(read(&bytes).expect("a route").duplicate(), None);
}

#[test]
fn hops_count_down_to_none() {
    let mut hops = Some(HopLimit::MAX);
    for left in (0..=8).rev() {
        assert_eq!(hops.map(HopLimit::get), Some(left));
        hops = hops.and_then(HopLimit::decrement);
    }
    assert_eq!(hops, None);
    assert_eq!(HopLimit::new(9), None);
}

proptest! {
    #[test]
    fn texts_come_back(names in proptest::collection::btree_set("\\PC{1,30}|[/%:\\x00-\\x1f]{1,9}", 0..=8)) {
        let route = Route::new(names.iter().map(|name| Address::Name(name))).expect("unlike names");
        prop_assert_eq!(route.to_string().parse(), Ok(route));
    }

    #[test]
    fn bytes_come_back(names in proptest::collection::btree_set("\\PC{1,30}", 0..=8), link: [u8; 8]) {
        let route = Route::new(names.iter().map(|name| Address::Name(name))).expect("unlike names");
        let mut bytes = Vec::new();
        route.as_ref().put(&mut bytes);
        prop_assert_eq!(read(&bytes), Ok(route.as_ref()));
        if route.as_ref().len() < ADDRESSES_MAX {
            let mut longer = Vec::new();
            route.as_ref().put_behind(LinkAddress(link), &mut longer);
            let (first, rest) = read(&longer).expect("one more").split_first().expect("one at least");
            prop_assert_eq!(first, Address::Link(LinkAddress(link)));
            prop_assert_eq!(rest, route.as_ref());
        }
    }

    #[test]
    fn any_bytes_and_any_text_are_read_or_refused(bytes: Vec<u8>, text in "\\PC*") {
        if let Ok(route) = read(&bytes) {
            let mut again = Vec::new();
            route.put(&mut again);
            prop_assert_eq!(again, bytes);
        }
        if let Ok(route) = text.parse::<Route>() {
            prop_assert_eq!(route.to_string().parse(), Ok(route));
        }
    }
}
