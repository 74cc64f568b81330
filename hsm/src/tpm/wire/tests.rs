use proptest::prelude::*;

use super::*;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Layouts of TPM 2.0 Library Part 3 §9.4, §25.2, §25.3 and §30.2, written out by hand.
#[test]
fn commands_have_the_bytes_of_the_specification() {
    assert_eq!(hex(&shutdown_clear()), "80010000000c000001450000");
    assert_eq!(
        hex(&variable_properties()),
        "8001000000160000017a000000060000020000000012"
    );
    let reset = dictionary_attack_lock_reset(b"").expect("no password is short enough");
    assert_eq!(
        hex(&reset),
        "80020000001b000001394000000a00000009400000090000000000"
    );
    let set = dictionary_attack_parameters(b"ab", 31, 600, 86_400).expect("two bytes are short enough");
    assert_eq!(
        hex(&set),
        "8002000000290000013a4000000a0000000b40000009000000000261620000001f0000025800015180"
    );
    assert_eq!(
        dictionary_attack_lock_reset(&[7; 65]),
        Err(AnswerError::Authorization { have: 65, max: 64 })
    );
}

#[test]
fn a_password_never_moves_while_a_command_is_written() {
    let longest = dictionary_attack_parameters(&[7; 64], 1, 2, 3).expect("the longest password");
    assert!(longest.len() <= COMMAND_BYTES_MAX, "{}", longest.len());
}

#[test]
fn an_answer_is_taken_apart() {
    let bytes = [0x80, 0x01, 0, 0, 0, 12, 0, 0, 0x09, 0x21, 1, 2];
    assert_eq!(answer(&bytes), Ok((0x921, &[1, 2][..])));
    assert!(is_complete(&bytes) && !is_complete(&bytes[..11]) && !is_complete(&[]));
    assert_eq!(
        answer(&bytes[..11]),
        Err(AnswerError::Size { said: 12, have: 11 })
    );
    let version_1_2 = [0x00, 0xc4, 0, 0, 0, 10, 0, 0, 0, 0x1e];
    assert_eq!(answer(&version_1_2), Err(AnswerError::Tag(0xc4)));
    let short = answer(&[0x80, 0x01, 0]);
    assert!(
        matches!(
            short,
            Err(AnswerError::Truncated {
                field: "the size",
                need: 4,
                have: 1
            })
        ),
        "{short:?}"
    );
}

#[test]
fn properties_are_read() {
    let mut bytes = vec![1];
    bytes.extend(numbers_of(&[6, 2, 0x200, 0x204, 0x20e, 5]));
    let read = properties(&bytes).expect("well formed");
    assert_eq!(read, [(0x200, 0x204), (0x20e, 5)]);
    assert_eq!(value_of(&read, Property::LockoutCounter), Ok(5));
    assert_eq!(
        value_of(&read, Property::MaxAuthFail),
        Err(AnswerError::Absent(0x20f))
    );
    let with_count = |count| {
        let mut bytes = vec![0];
        bytes.extend(numbers_of(&[6, count]));
        properties(&bytes)
    };
    assert_eq!(with_count(128), Err(AnswerError::Count(128)));
    assert!(matches!(with_count(1), Err(AnswerError::Truncated { .. })));
    let mut foreign = vec![0];
    foreign.extend(numbers_of(&[5, 0]));
    assert_eq!(properties(&foreign), Err(AnswerError::Capability(5)));
}

#[test]
fn codes_about_the_authorisation_are_known() {
    // As of session 1: TPM_RC_AUTH_FAIL, TPM_RC_BAD_AUTH; then TPM_RC_LOCKOUT.
    for code in [0x98e, 0x9a2, 0x921] {
        assert!(is_about_authorization(code), "{code:#x}");
    }
    // TPM_RC_INITIALIZE, TPM_RC_RETRY, TPM_RC_VALUE of parameter 1, TPM_RC_HANDLE.
    for code in [0x100, 0x922, 0x1c4, 0x8b, 0x12f] {
        assert!(!is_about_authorization(code), "{code:#x}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        is_complete(&bytes);
        if let Ok((_, parameters)) = answer(&bytes) {
            prop_assert!(is_complete(&bytes));
            let _ = properties(parameters);
        }
        let _ = properties(&bytes);
    }

    #[test]
    fn what_a_tpm_writes_is_read(entries in prop::collection::vec(any::<(u32, u32)>(), 0..=127), more in any::<u8>()) {
        let mut parameters = vec![more];
        let count = u32::try_from(entries.len()).expect("at most 127");
        parameters.extend(numbers_of(&[CAP_TPM_PROPERTIES, count]));
        parameters.extend(entries.iter().flat_map(|(property, value)| numbers_of(&[*property, *value])));
        let bytes = command(ST_NO_SESSIONS, 0, &[], &parameters);
        prop_assert!(is_complete(&bytes));
        let (code, parameters) = answer(&bytes).expect("well formed");
        prop_assert_eq!(code, 0);
        prop_assert_eq!(properties(parameters), Ok(entries));
    }
}
