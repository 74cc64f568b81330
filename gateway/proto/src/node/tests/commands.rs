//! Commands from the collector to a device of the gateway, over the relay.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "what a test does not look at may be anything"
)]

use std::time::Duration;

use super::{
    super::*,
    net::{COLLECTOR, GATEWAY, Net},
};
use crate::command::{
    Commander, CommanderOutput, CommanderSettings, Delivered, Executor, ExecutorOutput, ExecutorSettings,
    Guarantee, Order, Permission, Refusal, State,
};

fn net(access: AccessPolicy) -> Net {
    let mut net = Net::new(0, |gateway, _, _| gateway.access = access);
    net.hosts[GATEWAY]
        .node
        .set_executor(Executor::new(ExecutorSettings::default()));
    net.hosts[COLLECTOR]
        .node
        .set_commander(Commander::new(CommanderSettings::default()));
    net.pass(2);
    net
}

fn submit(net: &mut Net, id: u8, payload_len: usize) {
    let order = Order {
        guarantee: Guarantee::AtLeastOnce,
        answer_wanted: true,
        device: format!("pump {id}").into(),
        resource: "valve".into(),
        content_type: Box::default(),
        payload: vec![id; payload_len].into(),
    };
    let now = net.now;
    let gateway = net.hosts[GATEWAY].signer.history.identifier();
    let commander = net.hosts[COLLECTOR].node.commander_mut().unwrap();
    commander
        .submit(now, [id; 16], gateway, order, Duration::from_mins(1))
        .unwrap();
}

/// Lets time pass, keeps what is to be kept, and returns what devices were handed, who was asked for, and what ended.
fn run(net: &mut Net, turns: usize) -> (Vec<u64>, Vec<CommandAccess>, Vec<State>) {
    let (mut handed, mut asked, mut ends) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..turns {
        net.settle();
        let now = net.now;
        for host in [GATEWAY, COLLECTOR] {
            let host = &mut net.hosts[host];
            for output in std::mem::take(&mut host.outputs) {
                match output {
                    Output::Executor(output) => match *output {
                        ExecutorOutput::Store { ticket, .. } => {
                            host.node.executor_mut().unwrap().handle_stored(now, ticket);
                        }
                        ExecutorOutput::Deliver { number, .. } => handed.push(number),
                        _ => {}
                    },
                    Output::Commander(output) => match *output {
                        CommanderOutput::Store { ticket, .. } => {
                            host.node.commander_mut().unwrap().handle_stored(now, ticket);
                        }
                        CommanderOutput::Finished { report } => ends.push(report.state),
                        _ => {}
                    },
                    Output::AuthoriseCommand(access) => asked.push(*access),
                    _ => {}
                }
            }
        }
    }
    (handed, asked, ends)
}

#[test]
fn a_command_goes_through_the_relay_and_its_answer_comes_back() {
    let mut net = net(AccessPolicy::Lists);
    let now = net.now;
    let executor = net.hosts[GATEWAY].node.executor_mut().unwrap();
    executor.handle_device_awake(now, "pump 1");
    submit(&mut net, 1, 100);
    let (handed, _, _) = run(&mut net, 10);
    assert_eq!(handed.len(), 1, "{:?}", net.hosts[COLLECTOR].node.commander());
    let now = net.now;
    let executor = net.hosts[GATEWAY].node.executor_mut().unwrap();
    executor.handle_delivered(now, handed[0], Delivered::Acknowledged { can_answer: true });
    executor
        .handle_answer(now, "pump 1", (handed[0], [1; 16]), "text/plain", b"open")
        .unwrap();
    let (_, _, ends) = run(&mut net, 10);
    assert!(
        matches!(&ends[..], [State::Answered(answer)] if *answer.payload == *b"open"),
        "{ends:?}"
    );
    assert_eq!(net.hosts[GATEWAY].node.executor().unwrap().unreported(), 0);
    assert_eq!(net.hosts[GATEWAY].node.stats().bad_frames, 0);
}

#[test]
fn more_than_a_record_holds_goes_in_several() {
    let mut net = net(AccessPolicy::Lists);
    for id in 0..20 {
        submit(&mut net, id, 16_000);
    }
    run(&mut net, 10);
    let waiting = net.hosts[GATEWAY].node.executor().unwrap().waiting().count();
    assert_eq!(waiting, 20);
}

#[test]
fn the_caller_decides_and_a_changed_policy_is_asked_again() {
    let mut net = net(AccessPolicy::Ask);
    submit(&mut net, 1, 10);
    submit(&mut net, 2, 10);
    let (_, asked, _) = run(&mut net, 10);
    let devices: Vec<&str> = asked.iter().map(|access| &*access.device).collect();
    assert_eq!(devices, ["pump 1", "pump 2"]);
    let collector = net.hosts[COLLECTOR].signer.history.identifier();
    assert!(asked.iter().all(|access| access.collector == collector));
    let now = net.now;
    let executor = net.hosts[GATEWAY].node.executor_mut().unwrap();
    executor.handle_permission(now, asked[0].question, Permission::Permitted);
    executor.handle_permission(now, asked[1].question, Permission::Refused);
    let (_, _, ends) = run(&mut net, 10);
    assert_eq!(ends, [State::Refused(Refusal::NotAuthorised)]);

    let host = &mut net.hosts[GATEWAY];
    host.node.authorise_all_again(now, &mut host.buffers);
    let executor = host.node.executor_mut().unwrap();
    executor.handle_device_awake(now, "pump 1");
    let (handed, asked, _) = run(&mut net, 10);
    assert!(handed.is_empty());
    assert_eq!(asked.len(), 1);
    let executor = net.hosts[GATEWAY].node.executor_mut().unwrap();
    executor.handle_permission(now, asked[0].question, Permission::Permitted);
    assert_eq!(run(&mut net, 10).0.len(), 1);
}

#[test]
fn a_node_without_the_machines_ignores_the_frames() {
    let mut net = Net::new(0, |_, _, _| {});
    net.hosts[COLLECTOR]
        .node
        .set_commander(Commander::new(CommanderSettings::default()));
    net.pass(2);
    submit(&mut net, 1, 10);
    run(&mut net, 5);
    assert!(net.hosts[GATEWAY].node.stats().bad_frames > 0);
    assert!(
        net.hosts[GATEWAY]
            .node
            .uplinks()
            .all(|uplink| uplink.state == UplinkState::Up)
    );
}
