//! SoftHSM2 tokens, one private store per node.

use std::fs;

use super::{
    node::Node,
    process::{command, run},
};

/// Gives the node a token `fieldgate` of its own, with [`PIN`].
///
/// # Panics
/// If SoftHSM2 is not installed or does not make it.
pub(crate) fn give(node: &mut Node) {
    let store = node.dir.join("tokens");
    fs::create_dir_all(&store).expect("the directory is ours");
    let config = node.dir.join("softhsm2.conf");
    let text = format!(
        "directories.tokendir = {}\nobjectstore.backend = file\n",
        store.display()
    );
    fs::write(&config, text).expect("the directory is ours");
    let config = config.to_str().expect("the path is text");
    let words = ["softhsm2-util", "--init-token", "--free", "--label", "fieldgate"];
    let mut make = command(&words);
    make.args(["--so-pin", "12345678", "--pin", PIN])
        .env("SOFTHSM2_CONF", config);
    run(&mut make).expect(0);
    node.set_environment("SOFTHSM2_CONF", config);
}

/// The PIN of every token.
pub(crate) const PIN: &str = "271828";
