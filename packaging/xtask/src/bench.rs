//! `bench`: measurements, always with optimised builds.

use clap::Args;

use crate::failure::Failure;
use crate::program::Program;
use crate::setup;
use crate::workspace::Workspace;

/// What is measured.
#[derive(Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Options {
    /// uplink, portal, relay, backlog, clients, channel or load, with the options of fieldgate-bench
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    arguments: Vec<String>,
}

/// Builds the measured binary and the measuring one, then hands over.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<(), Failure> {
    if options.arguments.first().is_some_and(|what| what == "portal") {
        setup::debian_packages(workspace, RIVALS)?;
    }
    let mut build =
        Program::cargo_build(workspace, "build").args(["--release", "--quiet", "--package=fieldgate-bench"]);
    if needs_gateway(&options.arguments) {
        build = build.arg("--package=fieldgate");
    }
    build.run()?;
    let program = workspace.target_dir().join("release/fieldgate-bench");
    Program::new(workspace, program).args(&options.arguments).run()
}

/// What `portal` compares with, the namespaces that nebula runs in, and what a wire is made of.
const RIVALS: &[&str] = &[
    "stunnel4",
    "openssl",
    "openssh-server",
    "openssh-client",
    "nebula",
    "iperf3",
    "iproute2",
    "ethtool",
];

/// All but `channel` and `load` start the gateway binary, `uplink` not when it is told to measure the bridge alone.
fn needs_gateway(arguments: &[String]) -> bool {
    let bridge_only = arguments.iter().any(|argument| argument == "--systems=bridge")
        || arguments.windows(2).any(|pair| pair == ["--systems", "bridge"]);
    arguments.first().is_some_and(|what| match what.as_str() {
        "backlog" | "clients" | "portal" | "relay" => true,
        "uplink" => !bridge_only,
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::needs_gateway;

    fn words(line: &str) -> Vec<String> {
        line.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn only_a_comparison_needs_the_gateway_binary() {
        assert!(needs_gateway(&words("uplink --json")));
        assert!(needs_gateway(&words("uplink --systems bridge,durable")));
        assert!(!needs_gateway(&words("uplink --systems bridge")));
        assert!(!needs_gateway(&words("uplink --systems=bridge")));
        assert!(needs_gateway(&words("clients --idle 10")));
        assert!(needs_gateway(&words("portal")));
        assert!(!needs_gateway(&words("channel")));
    }
}
