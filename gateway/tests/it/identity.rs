//! Making, showing and changing an identity: what of the file that needs, and in which process it happens.

use crate::harness::{
    node::Node,
    process::{fieldgate, run},
    site::{placed, private_dir, sealed},
};

/// A collector with a sealed file for its key, and a directory of its own.
fn collector() -> (tempfile::TempDir, Node) {
    let dir = private_dir();
    let unused = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    let node = Node::new(dir.path(), "collector-1", unused);
    node.write(&sealed(&placed("collector")));
    (dir, node)
}

#[test]
fn an_identity_is_made_shown_and_changed_before_the_rest_of_the_file_is_complete() {
    let (_dir, node) = collector();
    node.edit(
        "identifier = \"fg1",
        "identifier = \"fg1-of-a-peer-that-is-not-known-yet-",
    );
    node.append("[[collector.sink]]\nkind = \"flie\"\n");
    run(fieldgate(["check"]).arg(&node.config)).expect(2);
    for words in [
        &["identity", "create"][..],
        &["identity", "show"],
        &["identity", "rotate"],
    ] {
        let ended = node.run(words).expect(0);
        assert!(ended.out.starts_with("fg1"), "{ended:?}");
        assert!(
            ended.err.starts_with("note: a node would not start with "),
            "{ended:?}"
        );
        for told in [
            "collector.register[0].relay.identifier",
            "\"flie\"",
            "help: `fieldgate check",
        ] {
            assert!(ended.err.contains(told), "no {told}: {ended:?}");
        }
        // A line for each, not a page.
        assert!(ended.err.lines().count() < 10, "{ended:?}");
    }
    // To run it is another matter.
    node.run(&["run"]).expect(2);

    // What is wrong with the node itself or its key stays an error, however much else is wrong.
    node.edit("passphrase = ", "passphrse = ");
    let ended = node.run(&["identity", "show"]).expect(2);
    assert!(ended.err.contains("did you mean `passphrase`?"), "{ended:?}");
}
