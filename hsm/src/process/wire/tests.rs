use std::io;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::error::{CallError, KeyProblem, OsError, PinState, Stage, WorkerEnd};
use crate::file::SealError;
use crate::secret::SecretSource;
use crate::settings::SandboxSettings;
use crate::uri::{Pkcs11Uri, UriError};

fn body_of(frame: &[u8]) -> &[u8] {
    let (length, frame) = frame.split_at(4);
    assert_eq!(
        u32::from_be_bytes(length.try_into().unwrap()),
        u32::try_from(frame.len()).unwrap()
    );
    frame
}

fn text() -> impl Strategy<Value = String> {
    "\\PC{0,12}"
}

fn texts() -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec(text(), 0..4)
}

fn path() -> impl Strategy<Value = PathBuf> {
    use std::os::unix::ffi::OsStringExt;
    prop::collection::vec(1_u8..=255, 0..16).prop_map(|bytes| std::ffi::OsString::from_vec(bytes).into())
}

fn duration() -> impl Strategy<Value = Duration> {
    (any::<u64>(), 0..1_000_000_000_u32).prop_map(|(seconds, nanos)| Duration::new(seconds, nanos))
}

fn public_key() -> impl Strategy<Value = PublicKey> {
    let p256 = any::<[u8; 32]>().prop_map(|half| {
        let mut point = [4; 65];
        point[1..33].copy_from_slice(&half);
        PublicKey::P256(point)
    });
    prop_oneof![p256, any::<[u8; 32]>().prop_map(PublicKey::Ed25519)]
}

fn uri() -> impl Strategy<Value = Pkcs11Uri> {
    (
        prop::option::of("[ -~äß%;/?]{1,16}"),
        prop::option::of(prop::collection::vec(any::<u8>(), 1..20)),
        prop::option::of("[a-z]{1,8}"),
    )
        .prop_map(|(token, id, object)| Pkcs11Uri {
            token,
            id,
            object,
            ..Pkcs11Uri::default()
        })
}

fn secret_source() -> impl Strategy<Value = SecretSource> {
    prop_oneof![
        text().prop_map(SecretSource::Credential),
        path().prop_map(SecretSource::File),
        text().prop_map(SecretSource::Environment),
    ]
}

fn settings() -> impl Strategy<Value = Settings> {
    let sandbox = (prop::collection::vec(path(), 0..3), any::<bool>(), texts()).prop_map(
        |(extra_paths, network, environment)| SandboxSettings {
            extra_paths,
            network,
            environment,
        },
    );
    let token =
        (path(), uri(), secret_source(), sandbox).prop_map(|(module, uri, pin, sandbox)| Settings::Pkcs11 {
            module,
            uri,
            pin,
            sandbox,
        });
    let file = (path(), secret_source()).prop_map(|(path, key)| Settings::File { path, key });
    prop_oneof![token, file]
}

fn task() -> impl Strategy<Value = Task> {
    let algorithm = || prop::sample::select(vec![Algorithm::P256, Algorithm::Ed25519]);
    prop_oneof![
        prop::option::of(public_key()).prop_map(Task::Open),
        algorithm().prop_map(Task::Create),
        (public_key(), algorithm()).prop_map(|(current, algorithm)| Task::CreateNext { current, algorithm }),
        public_key().prop_map(Task::Destroy),
        prop::option::of(prop::collection::vec(any::<u8>(), 0..40)).prop_map(Task::Unwrap),
    ]
}

fn request() -> impl Strategy<Value = WorkerRequest> {
    let configuration = (
        settings(),
        prop::collection::vec(any::<u8>(), 0..40),
        task(),
        prop::sample::select(vec![LowCount::Stop, LowCount::TryOnce]),
        prop::option::of(path()),
    )
        .prop_map(|(settings, secret, task, low_count, closed)| {
            RequestBody::Configure(Configuration {
                settings,
                secret: Secret::new(secret),
                task,
                low_count,
                closed,
            })
        });
    let body = prop_oneof![
        configuration,
        prop::collection::vec(any::<u8>(), 0..300).prop_map(RequestBody::Sign),
        Just(()).prop_map(|()| RequestBody::Keys),
        Just(()).prop_map(|()| RequestBody::Statistics),
        Just(()).prop_map(|()| RequestBody::Stop),
    ];
    (any::<u32>(), body).prop_map(|(id, body)| WorkerRequest { id, body })
}

fn os_error() -> impl Strategy<Value = OsError> {
    let kind = prop::sample::select(vec![
        io::ErrorKind::NotFound,
        io::ErrorKind::PermissionDenied,
        io::ErrorKind::StorageFull,
        io::ErrorKind::Other,
    ]);
    (kind, text()).prop_map(|(kind, message)| OsError { kind, message })
}

fn call_error() -> impl Strategy<Value = CallError> {
    (text(), text()).prop_map(|(function, code)| CallError { function, code })
}

fn key_problem() -> impl Strategy<Value = KeyProblem> {
    prop_oneof![
        Just(KeyProblem::NotSensitive),
        Just(KeyProblem::Extractable),
        Just(KeyProblem::CannotSign),
        Just(KeyProblem::AlwaysAuthenticate),
        Just(KeyProblem::Unreported("CKA_SIGN")),
        text().prop_map(KeyProblem::Type),
        text().prop_map(KeyProblem::Curve),
    ]
}

/// Every kind of error, in groups of those alike.
fn error() -> impl Strategy<Value = Error> {
    prop_oneof![
        error_of_settings(),
        error_of_files(),
        error_of_tokens(),
        error_of_keys(),
        error_of_workers(),
        (text(), duration(), error_of_tokens()).prop_map(|(key, retry_after, cause)| Error::Unavailable {
            key,
            retry_after,
            cause: Box::new(cause),
        }),
    ]
}

fn error_of_settings() -> impl Strategy<Value = Error> {
    prop_oneof![
        any::<usize>().prop_map(|position| Error::Uri(UriError::Attribute { position })),
        text().prop_map(|name| Error::Uri(UriError::Repeated { name })),
        Just(Error::Uri(UriError::Value {
            name: "id",
            expected: "a decimal number"
        })),
        Just(Error::Uri(UriError::PinCommand)),
        text().prop_map(|uri| Error::UriUnsuitable {
            uri,
            reason: "a test says so"
        }),
        (text(), text()).prop_map(|(first, second)| Error::Contradiction {
            what: "the PIN",
            first,
            second
        }),
        Just(Error::Missing { what: "the PIN" }),
        text().prop_map(|name| Error::CredentialsDirectory { name }),
        text().prop_map(|name| Error::CredentialName { name }),
        (text(), os_error()).prop_map(|(secret, cause)| Error::SecretUnreadable { secret, cause }),
        text().prop_map(|variable| Error::SecretVariable { variable }),
        text().prop_map(|secret| Error::SecretEmpty { secret }),
        (text(), any::<usize>()).prop_map(|(secret, bytes_max)| Error::SecretTooLong { secret, bytes_max }),
        (path(), any::<u32>()).prop_map(|(path, mode)| Error::Exposed { path, mode }),
        (path(), any::<u32>(), any::<u32>()).prop_map(|(path, owner, user)| Error::Owner {
            path,
            owner,
            user
        }),
    ]
}

fn error_of_files() -> impl Strategy<Value = Error> {
    prop_oneof![
        path().prop_map(|path| Error::FileExists { path }),
        (path(), os_error()).prop_map(|(path, cause)| Error::FileUnreadable { path, cause }),
        (path(), os_error()).prop_map(|(path, cause)| Error::FileUnwritable { path, cause }),
        (path(), any::<u8>()).prop_map(|(path, got)| Error::FileDamaged {
            path,
            problem: SealError::Derivation { got }
        }),
        (path(), any::<u64>()).prop_map(|(path, got)| Error::FileDamaged {
            path,
            problem: SealError::Cost {
                what: "memory",
                got,
                min: 0,
                max: 1
            }
        }),
        path().prop_map(|path| Error::WrongKey { path }),
        any::<[usize; 2]>().prop_map(|[have, min]| Error::KeyTooShort { have, min }),
    ]
}

fn error_of_tokens() -> impl Strategy<Value = Error> {
    let state = prop::sample::select(vec![PinState::Locked, PinState::FinalTry, PinState::CountLow]);
    prop_oneof![
        (path(), call_error()).prop_map(|(module, cause)| Error::ModuleLoad { module, cause }),
        (path(), call_error()).prop_map(|(module, cause)| Error::Module { module, cause }),
        (text(), texts()).prop_map(|(uri, offered)| Error::TokenNotFound { uri, offered }),
        (text(), texts()).prop_map(|(uri, offered)| Error::TokenAmbiguous { uri, offered }),
        (text(), texts()).prop_map(|(token, offered)| Error::Mechanism {
            token,
            mechanism: "CKM_ECDSA",
            offered
        }),
        text().prop_map(|token| Error::WriteProtected { token }),
        text().prop_map(|token| Error::PinPad { token }),
        text().prop_map(|token| Error::PinUnset { token }),
        (text(), state).prop_map(|(token, state)| Error::PinBlocked { token, state }),
        (text(), text(), call_error()).prop_map(|(token, secret, cause)| Error::PinRefused {
            token,
            secret,
            cause
        }),
        (text(), path()).prop_map(|(secret, marker)| Error::PinRefusedBefore { secret, marker }),
        (any::<u32>(), prop::option::of(path()))
            .prop_map(|(deaths, marker)| Error::LoginDeadly { deaths, marker }),
        (path(), os_error()).prop_map(|(path, cause)| Error::PinMarker { path, cause }),
        (text(), call_error()).prop_map(|(token, cause)| Error::Call { token, cause }),
    ]
}

fn error_of_keys() -> impl Strategy<Value = Error> {
    prop_oneof![
        (text(), texts()).prop_map(|(uri, offered)| Error::KeyNotFound { uri, offered }),
        (text(), texts()).prop_map(|(uri, offered)| Error::KeyAmbiguous { uri, offered }),
        (text(), text(), texts()).prop_map(|(place, wanted, offered)| Error::KeyNotWanted {
            place,
            wanted,
            offered
        }),
        (text(), key_problem()).prop_map(|(key, problem)| Error::KeyUnsuitable { key, problem }),
        text().prop_map(|key| Error::PublicKeyMissing { key }),
        text().prop_map(|key| Error::NotUnwrapped { key }),
        text().prop_map(|key| Error::SignatureInvalid { key }),
        any::<usize>().prop_map(|have| Error::SignatureLength { have }),
        (text(), text()).prop_map(|(token, label)| Error::LabelTaken { token, label }),
        any::<[usize; 2]>().prop_map(|[have, max]| Error::Label { have, max }),
    ]
}

fn error_of_workers() -> impl Strategy<Value = Error> {
    let how = prop_oneof![
        any::<i32>().prop_map(WorkerEnd::Signal),
        any::<i32>().prop_map(WorkerEnd::Exited),
        duration().prop_map(WorkerEnd::Silent),
        Just(WorkerEnd::Confused),
    ];
    let stage = prop_oneof![
        Just(Stage::Opening),
        Just(Stage::Queued),
        Just(Stage::Signing),
        text().prop_map(Stage::Waiting),
    ];
    prop_oneof![
        Just(Error::Crypto { operation: "a test" }),
        Just(Error::PrivateKey),
        (duration(), stage).prop_map(|(after, stage)| Error::TimedOut { after, stage }),
        any::<usize>().prop_map(|limit| Error::QueueFull { limit }),
        Just(Error::Stopped),
        os_error().prop_map(Error::Thread),
        (path(), os_error()).prop_map(|(program, cause)| Error::WorkerStart { program, cause }),
        how.prop_map(|how| Error::WorkerEnded { how }),
        any::<[u8; 2]>().prop_map(|[got, want]| Error::WorkerProtocol(WireError::Version { got, want })),
    ]
}

fn opened() -> impl Strategy<Value = Opened> {
    let flag = || prop::option::of(any::<bool>());
    let origin =
        (flag(), flag(), flag()).prop_map(|(local, never_extractable, always_sensitive)| KeyOrigin {
            local,
            never_extractable,
            always_sensitive,
        });
    let sandbox = prop_oneof![
        Just(SandboxReport::Full),
        texts().prop_map(SandboxReport::Partial)
    ];
    (
        public_key(),
        text(),
        prop::option::of(origin),
        prop::option::of(text()),
        sandbox,
    )
        .prop_map(|(public_key, location, origin, module, sandbox)| Opened {
            public_key,
            location,
            origin,
            module,
            sandbox,
        })
}

fn statistics() -> impl Strategy<Value = WorkerStatistics> {
    let state = prop::option::of(prop::sample::select(vec![
        PinState::Locked,
        PinState::FinalTry,
        PinState::CountLow,
    ]));
    let token = (uri(), state, any::<bool>()).prop_map(|(uri, pin_state, is_write_protected)| TokenState {
        uri,
        pin_state,
        is_write_protected,
    });
    (any::<[u64; 5]>(), prop::option::of(token)).prop_map(|([key, session, login, module, failed], token)| {
        WorkerStatistics {
            recoveries: Recoveries {
                key,
                session,
                login,
                module,
                failed,
            },
            token,
        }
    })
}

fn answer() -> impl Strategy<Value = WorkerAnswer> {
    let refused = any::<([u8; 16], [u8; 32])>()
        .prop_map(|(salt, hash)| LoginOutcome::Refused(RefusedPin { salt, hash }));
    let outcome = prop_oneof![Just(LoginOutcome::Accepted), refused, Just(LoginOutcome::Other)];
    let key = (
        uri(),
        prop::option::of(public_key()),
        prop::option::of(key_problem()),
    )
        .prop_map(|(uri, public_key, problem)| KeySummary {
            uri,
            public_key,
            problem,
        });
    let body = prop_oneof![
        text().prop_map(|software| AnswerBody::Hello { software }),
        Just(()).prop_map(|()| AnswerBody::LoginBegun),
        outcome.prop_map(AnswerBody::LoginDone),
        opened().prop_map(AnswerBody::Opened),
        Just(()).prop_map(|()| AnswerBody::Destroyed),
        any::<[u8; 64]>().prop_map(AnswerBody::Signed),
        error().prop_map(AnswerBody::Failed),
        prop::collection::vec(key, 0..3).prop_map(AnswerBody::Keys),
        statistics().prop_map(AnswerBody::Statistics),
    ];
    (any::<u32>(), body).prop_map(|(id, body)| WorkerAnswer { id, body })
}

proptest! {
    #[test]
    fn requests_come_back_as_they_went(request in request()) {
        let frame = encode_request(&request).unwrap();
        prop_assert_eq!(decode_request(body_of(&frame)), Ok(request));
    }

    #[test]
    fn answers_come_back_as_they_went(answer in answer()) {
        let frame = encode_answer(&answer).unwrap();
        let decoded = decode_answer(body_of(&frame)).unwrap();
        if let (AnswerBody::Failed(sent), AnswerBody::Failed(received)) = (&answer.body, &decoded.body) {
            prop_assert_eq!(sent.to_string(), received.to_string());
            prop_assert_eq!((sent.hint(), sent.kind()), (received.hint(), received.kind()));
        }
        prop_assert_eq!(decoded, answer);
    }

    #[test]
    fn any_bytes_are_read_without_panic(kind in any::<u8>(), rest in prop::collection::vec(any::<u8>(), 0..300)) {
        let frame = [&[VERSION, kind][..], &rest].concat();
        let _ = (decode_request(&frame), decode_answer(&frame), decode_request(&rest));
    }

    /// One byte of a good frame is another, or the frame ends early: it is refused or means something else.
    #[test]
    fn damaged_frames_are_read_without_panic(answer in answer(), at in any::<prop::sample::Index>(), with in any::<u8>(), keep in any::<prop::sample::Index>()) {
        let frame = encode_answer(&answer).unwrap();
        let mut frame = body_of(&frame).to_vec();
        let (kept, _) = frame.split_at(keep.index(frame.len()));
        prop_assert!(decode_answer(kept).is_err());
        *at.get_mut(&mut frame) = with;
        let _ = decode_answer(&frame);
    }
}

#[test]
fn another_version_is_told_apart_from_damage() {
    let error = decode_answer(&[2, HELLO]).unwrap_err();
    assert_eq!(error, WireError::Version { got: 2, want: 1 });
    assert_eq!(
        Error::WorkerProtocol(error).hint(),
        "the binary was replaced while it was running: restart the node"
    );
}

#[test]
fn a_frame_is_refused_for_its_length_alone() {
    let too_long = vec![VERSION; FRAME_BYTES_MAX + 1];
    assert!(matches!(decode_request(&too_long), Err(WireError::Length { .. })));
    assert!(matches!(
        decode_request(&[VERSION; 5]),
        Err(WireError::Length { .. })
    ));
    assert!(matches!(decode_request(&[]), Err(WireError::Truncated { .. })));

    let sign = |length| {
        let body = RequestBody::Sign(vec![0; length]);
        encode_request(&WorkerRequest { id: 1, body }).map(|frame| frame.len())
    };
    let most = FRAME_BYTES_MAX - FRAME_BYTES_MIN - 4;
    assert_eq!(sign(most), Ok(FRAME_BYTES_MAX + 4));
    assert!(matches!(sign(most + 1), Err(WireError::Length { .. })));
}

#[test]
fn trailing_bytes_and_unknown_kinds_are_refused() {
    let frame = encode_request(&WorkerRequest {
        id: 7,
        body: RequestBody::Keys,
    })
    .unwrap();
    let frame = body_of(&frame);
    assert_eq!(
        decode_request(&[frame, &[0]].concat()),
        Err(WireError::Trailing { bytes: 1 })
    );
    assert_eq!(
        decode_answer(frame),
        Err(WireError::Value {
            what: "kind of answer",
            got: 3
        })
    );
}

#[test]
fn a_list_cannot_claim_more_than_the_frame_holds() {
    let frame = [VERSION, KEYS_ANSWER, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff];
    assert!(matches!(decode_answer(&frame), Err(WireError::Truncated { .. })));
}

/// Causes within causes, as deep as a frame has room: refused before the stack ends.
#[test]
fn causes_end() {
    let layer = [42, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let mut frame = vec![VERSION, FAILED, 0, 0, 0, 0];
    frame.extend(layer.repeat(15_000));
    assert_eq!(decode_answer(&frame), Err(WireError::Depth));
}

#[test]
fn fixed_texts_are_bounded() {
    assert_eq!(texts::fixed("a text of a test"), Ok("a text of a test"));
    assert_eq!(texts::fixed(&"x".repeat(161)), Err(WireError::Texts));
}

#[test]
fn a_configuration_shows_no_secret() {
    let body = RequestBody::Configure(Configuration {
        settings: Settings::File {
            path: "/identity".into(),
            key: SecretSource::Credential("key".into()),
        },
        secret: Secret::new(b"834271".to_vec()),
        task: Task::Open(None),
        low_count: LowCount::Stop,
        closed: None,
    });
    let shown = format!("{:?}", WorkerRequest { id: 1, body });
    assert!(!shown.contains("834271") && !shown.contains("56, 51"), "{shown}");
}
