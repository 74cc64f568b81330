use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;

use super::*;

fn parse(text: &str) -> Pkcs11Uri {
    text.parse().unwrap()
}

fn refused(text: &str) -> UriError {
    text.parse::<Pkcs11Uri>().unwrap_err()
}

/// The examples of RFC 7512 §3, in their order, all but the one with `pin-value`.
#[test]
fn reads_the_examples_of_the_rfc() {
    assert_eq!(parse("pkcs11:"), Pkcs11Uri::default());

    let uri = parse("pkcs11:object=my-pubkey;type=public");
    assert_eq!(
        (uri.object.as_deref(), uri.object_type),
        (Some("my-pubkey"), Some(ObjectType::Public))
    );

    let uri = parse("pkcs11:object=my-key;type=private?pin-source=file:/etc/token");
    assert_eq!(uri.object_type, Some(ObjectType::Private));
    assert_eq!(
        uri.pin_secret().unwrap(),
        Some(SecretSource::File("/etc/token".into()))
    );

    let uri = parse(
        "pkcs11:token=The%20Software%20PKCS%2311%20Softtoken;manufacturer=Snake%20Oil,%20Inc.;model=1.0;\
         object=my-certificate;type=cert;id=%69%95%3E%5C%F4%BD%EC%91;serial=?pin-source=file:/etc/token_pin",
    );
    assert_eq!(uri.token.as_deref(), Some("The Software PKCS#11 Softtoken"));
    assert_eq!(uri.manufacturer.as_deref(), Some("Snake Oil, Inc."));
    assert_eq!(uri.model.as_deref(), Some("1.0"));
    assert_eq!(uri.object.as_deref(), Some("my-certificate"));
    assert_eq!(uri.object_type, Some(ObjectType::Certificate));
    assert_eq!(
        uri.id.as_deref(),
        Some(&[0x69, 0x95, 0x3e, 0x5c, 0xf4, 0xbd, 0xec, 0x91][..])
    );
    assert_eq!(uri.serial.as_deref(), Some(""));
    assert_eq!(uri.pin_source.as_deref(), Some("file:/etc/token_pin"));

    let uri = parse("pkcs11:object=my-sign-key;type=private?module-name=mypkcs11");
    assert_eq!(uri.module_name.as_deref(), Some("mypkcs11"));

    let uri = parse("pkcs11:object=my-sign-key;type=private?module-path=/mnt/libmypkcs11.so.1");
    assert_eq!(uri.module_path, Some("/mnt/libmypkcs11.so.1".into()));

    let uri = parse("pkcs11:slot-description=Sun%20Metaslot");
    assert_eq!(uri.slot_description.as_deref(), Some("Sun Metaslot"));

    let uri = parse(
        "pkcs11:library-manufacturer=Snake%20Oil,%20Inc.;library-description=Soft%20Token%20Library;\
         library-version=1.23",
    );
    assert_eq!(uri.library_manufacturer.as_deref(), Some("Snake Oil, Inc."));
    assert_eq!(uri.library_description.as_deref(), Some("Soft Token Library"));
    assert_eq!(uri.library_version, Some((1, 23)));

    let uri = parse(
        "pkcs11:token=My%20token%25%20created%20by%20Joe;library-version=3;id=%01%02%03%Ba%dd%Ca%fe%04%05%06",
    );
    assert_eq!(uri.token.as_deref(), Some("My token% created by Joe"));
    assert_eq!(uri.library_version, Some((3, 0)));
    assert_eq!(
        uri.id.as_deref(),
        Some(&[1, 2, 3, 0xba, 0xdd, 0xca, 0xfe, 4, 5, 6][..])
    );

    let uri = parse("pkcs11:token=A%20name%20with%20a%20substring%20%25%3B;object=my-certificate;type=cert");
    assert_eq!(uri.token.as_deref(), Some("A name with a substring %;"));

    let uri = parse(
        "pkcs11:token=Name%20with%20a%20small%20A%20with%20acute:%20%C3%A1;object=my-certificate;type=cert",
    );
    assert_eq!(uri.token.as_deref(), Some("Name with a small A with acute: á"));

    let uri = parse(
        "pkcs11:token=my-token;object=my-certificate;type=cert;vendor-aaa=value-a\
         ?pin-source=file:/etc/token_pin&vendor-bbb=value-b",
    );
    assert_eq!(uri.vendor.get("vendor-aaa").map(String::as_str), Some("value-a"));
    assert_eq!(
        uri.vendor_query,
        [("vendor-bbb".to_owned(), "value-b".to_owned())]
    );
    assert!(matches!(
        uri.require_private_key(),
        Err(Error::UriUnsuitable { .. })
    ));
}

/// The example of RFC 7512 §3 with `pin-value`, which says what to write instead and does not repeat the PIN.
#[test]
fn refuses_a_pin_in_the_uri() {
    let problem = refused(
        "pkcs11:token=Software%20PKCS%2311%20softtoken;manufacturer=Snake%20Oil,%20Inc.?pin-value=the-pin",
    );
    assert_eq!(problem, UriError::PinValue);
    assert!(problem.hint().contains("pin = { credential ="));
    assert!(!format!("{problem} {problem:?} {}", problem.hint()).contains("the-pin"));
}

#[test]
fn refuses_malformed_uris_and_says_where() {
    assert_eq!(refused(""), UriError::Scheme);
    assert_eq!(refused("pkcs12:token=a"), UriError::Scheme);
    assert_eq!(refused("token=a"), UriError::Scheme);
    assert_eq!(refused("pkcs11:token"), UriError::Attribute { position: 7 });
    assert_eq!(refused("pkcs11:token=a;"), UriError::Attribute { position: 15 });
    assert_eq!(refused("pkcs11:;token=a"), UriError::Attribute { position: 7 });
    assert_eq!(refused("pkcs11:to ken=a"), UriError::Attribute { position: 7 });
    assert_eq!(refused("pkcs11:token=a b"), UriError::Character { position: 14 });
    assert_eq!(refused("pkcs11:token=a/b"), UriError::Character { position: 14 });
    assert_eq!(refused("pkcs11:token=á"), UriError::Character { position: 13 });
    assert_eq!(refused("pkcs11:token=a%2"), UriError::Percent { position: 14 });
    assert_eq!(refused("pkcs11:token=a%+1"), UriError::Percent { position: 14 });
    assert_eq!(
        refused("pkcs11:token=%FF"),
        UriError::Utf8 { name: "token".into() }
    );
    assert_eq!(
        refused("pkcs11:token=a;token=b"),
        UriError::Repeated { name: "token".into() }
    );
    assert_eq!(
        refused("pkcs11:id=a;id=a"),
        UriError::Repeated { name: "id".into() }
    );
    assert_eq!(refused("pkcs11:x=a;x=a"), UriError::Repeated { name: "x".into() });
    assert_eq!(
        refused("pkcs11:?pin-source=a&pin-source=b"),
        UriError::Repeated {
            name: "pin-source".into()
        }
    );
    assert_eq!(
        refused("pkcs11:?pin-source=a&b"),
        UriError::Attribute { position: 21 }
    );
    for text in [
        "pkcs11:type=key",
        "pkcs11:library-version=1.2.3",
        "pkcs11:library-version=256",
        "pkcs11:slot-id=-1",
    ] {
        assert!(matches!(refused(text), UriError::Value { .. }), "{text}");
    }
    for text in [
        "pkcs11:slot-id=",
        "pkcs11:slot-id=%2B1",
        "pkcs11:library-version=.1",
        "pkcs11:library-version=1.",
    ] {
        assert!(matches!(refused(text), UriError::Value { .. }), "{text}");
    }
    let long = format!("pkcs11:token={}", "a".repeat(URI_BYTES_MAX));
    assert_eq!(
        refused(&long),
        UriError::TooLong {
            have: long.len(),
            max: URI_BYTES_MAX
        }
    );
}

#[test]
fn finds_the_pin_file_and_runs_no_program() {
    let source = |value: &str| {
        Pkcs11Uri {
            pin_source: Some(value.into()),
            ..Pkcs11Uri::default()
        }
        .pin_secret()
    };
    for value in [
        "/run/pin",
        "file:/run/pin",
        "file:///run/pin",
        "file://localhost/run/pin",
    ] {
        assert_eq!(
            source(value),
            Ok(Some(SecretSource::File("/run/pin".into()))),
            "{value}"
        );
    }
    assert_eq!(source("|/usr/bin/ask"), Err(UriError::PinCommand));
    for value in [
        "pin",
        "file:pin",
        "file://elsewhere/pin",
        "https://elsewhere/pin",
        "",
    ] {
        assert_eq!(source(value), Err(UriError::PinSource), "{value}");
    }
    assert_eq!(Pkcs11Uri::default().pin_secret(), Ok(None));
}

#[test]
fn writes_the_recommended_form() {
    let text = "pkcs11:token=My%20token;serial=00a1;object=identity;id=%00%41;type=private?module-path=/usr/lib/x.so";
    assert_eq!(parse(text).to_string(), text);
    assert_eq!(parse("PKCS11:id=A").to_string(), "pkcs11:id=%41");
}

#[test]
fn only_a_private_key_is_an_identity_key() {
    assert_eq!(parse("pkcs11:token=a").require_private_key(), Ok(()));
    assert_eq!(parse("pkcs11:token=a;type=private").require_private_key(), Ok(()));
    for class in ["public", "cert", "secret-key", "data"] {
        let uri = parse(&format!("pkcs11:token=a;type={class}"));
        assert!(matches!(
            uri.require_private_key(),
            Err(Error::UriUnsuitable { .. })
        ));
    }
}

fn vendor_name() -> impl Strategy<Value = String> {
    "x-[a-zA-Z0-9_-]{0,8}"
}

prop_compose! {
    fn library_and_slot()(
        library_manufacturer in option::of(any::<String>()),
        library_description in option::of(any::<String>()),
        library_version in option::of(any::<(u8, u8)>()),
        slot_manufacturer in option::of(any::<String>()),
        slot_description in option::of(any::<String>()),
        slot_id in option::of(any::<u64>()),
        pin_source in option::of(any::<String>()),
        module_path in option::of(any::<String>()),
        module_name in option::of(any::<String>()),
        vendor_query in vec((vendor_name(), any::<String>()), 0..3),
    ) -> Pkcs11Uri {
        Pkcs11Uri {
            library_manufacturer, library_description, library_version, slot_manufacturer, slot_description, slot_id,
            pin_source, module_path: module_path.map(PathBuf::from), module_name, vendor_query,
            ..Pkcs11Uri::default()
        }
    }
}

prop_compose! {
    fn any_uri()(
        base in library_and_slot(),
        token in option::of(any::<String>()),
        manufacturer in option::of(any::<String>()),
        serial in option::of(any::<String>()),
        model in option::of(any::<String>()),
        object in option::of(any::<String>()),
        id in option::of(any::<Vec<u8>>()),
        object_type in option::of(prop::sample::select(ObjectType::ALL.to_vec())),
        vendor in btree_map(vendor_name(), any::<String>(), 0..3),
    ) -> Pkcs11Uri {
        Pkcs11Uri { token, manufacturer, serial, model, object, id, object_type, vendor, ..base }
    }
}

proptest! {
    #[test]
    fn what_is_written_reads_the_same(uri in any_uri()) {
        let text = uri.to_string();
        match text.parse::<Pkcs11Uri>() {
            Ok(read) => prop_assert_eq!(read, uri),
            Err(problem) => {
                prop_assert_eq!(&problem, &UriError::TooLong { have: text.len(), max: URI_BYTES_MAX });
            }
        }
    }

    #[test]
    fn any_text_is_read_or_refused(text in any::<String>()) {
        let _ = text.parse::<Pkcs11Uri>();
    }

    #[test]
    fn any_tail_is_read_or_refused(tail in "[ -~%;&=?á]{0,60}") {
        if let Ok(uri) = format!("pkcs11:{tail}").parse::<Pkcs11Uri>() {
            prop_assert_eq!(uri.to_string().parse::<Pkcs11Uri>(), Ok(uri));
        }
    }
}
