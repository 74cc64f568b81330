use super::*;

#[test]
fn built_in_policy_is_good() {
    assert!(check("built-in", crate::BUILT_IN).policy.is_some());
}
