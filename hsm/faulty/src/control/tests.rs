use proptest::prelude::*;

use super::*;

fn parse(text: &str) -> Control {
    Control::parse(text).expect("the file is well formed")
}

#[test]
fn an_empty_file_is_a_well_behaved_token() {
    assert_eq!(parse(""), Control::default());
    assert_eq!(parse("\n  \n# sign crash\n"), Control::default());
}

#[test]
fn every_line_of_the_documentation_is_understood() {
    let control = parse(
        "sign delay 400\nlogin fail 0xa4 times 2\nGenerateKeyPair hang\n* crash after 3 times 1\nsign garbage\n\
         sign short\ntoken vanish\nflags count-low\nflags final-try\nflags locked # all at once\n\
         flags write-protected\nmechanism remove 0x1041\nkeys double\n",
    );
    let actions: Vec<Action> = control.faults.iter().map(|fault| fault.action).collect();
    assert_eq!(
        actions,
        [
            Action::Delay(Duration::from_millis(400)),
            Action::Fail(0xa4),
            Action::Hang,
            Action::Crash,
            Action::Garbage,
            Action::Short
        ]
    );
    assert!(control.token_vanished && control.keys_doubled);
    assert_eq!(control.flags, 0x7_0002);
    assert_eq!(control.removed, [0x1041]);
}

#[test]
fn a_line_that_is_misspelt_is_an_error_with_its_number() {
    for line in [
        "sing crash",
        "sign",
        "sign crashes",
        "sign delay",
        "sign delay x",
        "sign fail -1",
        "sign fail 0xg",
        "sign fail 0x10000000000000000",
        "sign hang times",
        "sign hang twice 2",
        "login garbage",
        "verify short",
        "flags",
        "flags read-only",
        "mechanism remove",
        "mechanism remove ECDSA",
        "token vanish now",
        "keys",
    ] {
        let error = Control::parse(&format!("sign hang\n{line}\n")).expect_err(line);
        assert_eq!(error.line, 2, "{line}");
        assert!(error.to_string().contains(line), "{error}");
    }
}

#[test]
fn a_fault_concerns_its_call_alone() {
    let control = parse("sign hang\n* hang\nGENERATERANDOM hang");
    let concerned = |name| {
        let of = |fault: &Fault| fault.concerns(name);
        control.faults.iter().map(of).collect::<Vec<bool>>()
    };
    assert_eq!(concerned("C_Sign"), [true, true, false]);
    assert_eq!(concerned("C_SignInit"), [false, true, false]);
    assert_eq!(concerned("C_GenerateRandom"), [false, true, true]);
}

#[test]
fn a_fault_happens_as_often_as_told() {
    let happens = |line: &str| {
        let control = parse(line);
        let fault = control.faults.first().expect("one fault");
        (0..6)
            .map(|earlier| fault.happens(earlier))
            .collect::<Vec<bool>>()
    };
    assert_eq!(happens("sign hang"), [true; 6]);
    assert_eq!(happens("sign hang times 0"), [false; 6]);
    assert_eq!(
        happens("sign hang after 2 times 3"),
        [false, false, true, true, true, false]
    );
    assert_eq!(
        happens("sign hang times 1 after 4"),
        [false, false, false, false, true, false]
    );
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in "[ -~\n]{0,200}") {
        let _ = Control::parse(&text);
    }

    #[test]
    fn numbers_are_read_in_both_bases(number in any::<u64>()) {
        let written = [format!("mechanism remove {number}"), format!("mechanism remove {number:#x}")];
        for line in written {
            prop_assert_eq!(parse(&line).removed, vec![CK_MECHANISM_TYPE::try_from(number).expect("64 bits")]);
        }
    }
}
