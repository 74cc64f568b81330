use super::*;

#[test]
fn each_finding_is_one_line() {
    assert_eq!(Finding::ok("clock", "good").line(), "ok    clock        good\n");
    assert_eq!(
        Finding::warn("space", "1 GiB\nfree", "make room").line(),
        "warn  space        1 GiB free; make room\n"
    );
    assert_eq!(Finding::unused("tpm", "none").line(), "-     tpm          none\n");
}

#[test]
fn the_summary_counts_what_was_looked_at() {
    let ok = Finding::ok("a", "");
    let unused = Finding::unused("b", "");
    assert_eq!(summary(&[ok.clone(), unused.clone()]), "\n1 checks, all good\n");
    let all = [ok, unused, Finding::warn("c", "", ""), Finding::fail("d", "", "")];
    assert_eq!(summary(&all), "\n3 checks: 1 failed, 1 with warnings\n");
}

#[test]
fn a_file_that_cannot_be_read_does_not_keep_the_machine_from_being_looked_at() {
    let findings = examine(Path::new("/nowhere/fieldgate.toml"));
    let checks: Vec<&str> = findings.iter().map(|finding| finding.check).collect();
    assert_eq!(
        checks,
        ["file", "clock", "rtc", "entropy", "io_uring", "tpm", "bluez"]
    );
    assert_eq!(
        findings.first().map(|finding| finding.verdict),
        Some(Verdict::Fail)
    );
}

#[test]
fn bytes_are_shown_as_people_read_them() {
    for (bytes, text) in [
        (0, "0 B"),
        (1_023, "1023 B"),
        (1 << 20, "1.0 MiB"),
        ((3 << 30) / 2, "1.5 GiB"),
        (u64::MAX, "17179869183.9 GiB"),
    ] {
        assert_eq!(bytes_text(bytes), text);
    }
}
