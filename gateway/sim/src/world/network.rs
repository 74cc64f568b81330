//! Wires: dialling, bytes on their way, ends.

use std::time::Duration;

use fieldgate_proto::node::ConnectionKey;

use super::{Event, WireProfile, World, nanos};
use crate::{
    attacker::{self, Verdict},
    host::Role,
    pipe::{Item, Pipe, Side},
};

impl World<'_, '_> {
    /// Returns what the wire between two hosts is like.
    fn wire(&self, one: usize, other: usize) -> WireProfile {
        *self
            .wires
            .get(&pair((one, other)))
            .expect("every pair of hosts has a wire")
    }

    /// Returns whether nothing passes from the first host to the second now.
    fn is_blocked(&self, hosts: (usize, usize)) -> bool {
        self.blocked.contains_key(&hosts)
    }

    /// Lets nothing pass from the first host to the second for a while.
    pub(super) fn block(&mut self, hosts: (usize, usize), lasting: Duration) {
        let until = self.blocked.entry(hosts).or_default();
        *until = (*until).max(self.now + nanos(lasting));
    }

    /// Lets everything pass from the first host to the second again, if it is time: what was under way goes on.
    pub(super) fn unblock(&mut self, hosts: (usize, usize)) {
        let over =
            self.healed_at.is_some() || self.blocked.get(&hosts).is_some_and(|until| *until <= self.now);
        if !over {
            return;
        }
        self.blocked.remove(&hosts);
        let (now, later) = std::mem::take(&mut self.postponed)
            .into_iter()
            .partition(|(way, _)| *way == hosts);
        self.postponed = later;
        for (_, event) in now {
            self.schedule(Duration::ZERO, event);
        }
    }

    /// Returns whether nothing passes between two hosts in one direction or the other: nobody can connect.
    fn is_cut(&self, (one, other): (usize, usize)) -> bool {
        self.is_blocked((one, other)) || self.is_blocked((other, one))
    }

    pub(super) fn dial(&mut self, host: usize, neighbour: usize) {
        let Some(to) = self
            .hosts
            .get(host)
            .and_then(|host| host.dials.get(neighbour).copied())
        else {
            return;
        };
        let life = self.hosts.get(host).map_or(0, |host| host.life);
        let takes = if self.is_cut((host, to)) {
            DIAL_TIME_MAX
        } else {
            self.wire(host, to).latency * 2
        };
        self.schedule(
            takes,
            Event::Dialled {
                host,
                life,
                neighbour,
            },
        );
    }

    pub(super) fn dialled(&mut self, host: usize, life: u32, neighbour: usize) {
        let now = self.now;
        let Some(from) = self.hosts.get(host).filter(|host| host.life == life) else {
            return;
        };
        let Some(to) = from.dials.get(neighbour).copied() else {
            return;
        };
        let up = self.hosts.get(to).is_some_and(|to| to.machine.is_some());
        if !up || from.machine.is_none() || self.is_cut((host, to)) {
            if let Some(host) = self.hosts.get_mut(host) {
                host.handle_dial_failed(now, neighbour);
            }
            self.turn(host);
            return;
        }
        let pipe = self.next_pipe;
        self.next_pipe += 1;
        let keys = [ConnectionKey(2 * pipe + 1), ConnectionKey(2 * pipe + 2)];
        let [dialler, listener] = keys;
        self.pipes
            .insert(pipe, Pipe::new([(host, dialler), (to, listener)]));
        self.ends.insert(dialler, (pipe, Side::Dialler));
        self.ends.insert(listener, (pipe, Side::Listener));
        self.tell(|world| format!("{} is connected to {}", world.name(host), world.name(to)));
        for (index, key, neighbour) in [(to, listener, None), (host, dialler, Some(neighbour))] {
            if let Some(host) = self.hosts.get_mut(index) {
                host.handle_connected(now, key, neighbour);
            }
            self.turn(index);
        }
    }

    /// Takes what a host has written since the last turn.
    pub(super) fn send(&mut self, index: usize) {
        let machine = self.hosts.get_mut(index).and_then(|host| host.machine.as_mut());
        let Some(machine) = machine else { return };
        for (key, bytes) in machine.buffers.take_fresh() {
            let name = self.hosts.get(index).map_or("?", |host| host.name.as_str());
            self.model.tap(name, &bytes);
            self.fingerprint.add(bytes.len() as u64);
            let Some((pipe, side)) = self.ends.get(&key).copied() else {
                continue;
            };
            let bytes = self.pass_attacker(pipe, side, bytes);
            self.report.frames += attacker::frames_in(&bytes);
            self.queue(pipe, side, &bytes);
        }
    }

    /// Gives an attacker on the wire what is about to be sent, and returns what it lets through at once.
    fn pass_attacker(&mut self, number: u64, side: Side, bytes: Vec<u8>) -> Vec<u8> {
        let Some(plan) = &self.scenario.attacker else {
            return bytes;
        };
        let (Some(attacker), Some(pipe)) = (&mut self.attacker, self.pipes.get_mut(&number)) else {
            return bytes;
        };
        let (from, to) = (pipe.end(side).host, pipe.end(side.other()).host);
        let role = |index: usize| self.hosts.get(index).map(|host| &host.role);
        let evil = match (role(from), role(to)) {
            (Some(Role::Relay), _) => plan.relays.contains(&(from - self.scenario.first_relay())),
            (Some(Role::Gateway(_) | Role::Collector(_)), Some(Role::Gateway(_) | Role::Collector(_))) => {
                plan.on_direct_links
            }
            _ => false,
        };
        if !evil {
            return bytes;
        }
        let at_work = self.healed_at.is_none() && plan.during.contains(&Duration::from_nanos(self.now));
        let end = pipe.end_mut(side);
        let mut verdict = if at_work {
            attacker.attack((from, to), &bytes)
        } else {
            attacker.listen((from, to), &bytes);
            Verdict {
                now: bytes,
                ..Verdict::default()
            }
        };
        // What was to be overtaken goes behind the first thing that comes.
        if !verdict.now.is_empty() {
            verdict.now.append(&mut end.overtaken);
        }
        end.overtaken.append(&mut verdict.behind);
        if end.held_until > self.now {
            end.held.append(&mut verdict.now);
        } else if verdict.hold_back {
            end.held.append(&mut verdict.now);
            let takes = self.dice.millis(10, 6000);
            end.held_until = self.now + nanos(takes);
            self.schedule(takes, Event::LetGo { pipe: number, side });
        }
        verdict.now
    }

    pub(super) fn let_go(&mut self, pipe: u64, side: Side) {
        let Some(end) = self.pipes.get_mut(&pipe).map(|pipe| pipe.end_mut(side)) else {
            return;
        };
        let held = std::mem::take(&mut end.held);
        self.report.frames += attacker::frames_in(&held);
        self.queue(pipe, side, &held);
    }

    /// Puts bytes behind those that wait for bandwidth.
    fn queue(&mut self, number: u64, side: Side, bytes: &[u8]) {
        let Some(pipe) = self.pipes.get_mut(&number) else {
            return;
        };
        let end = pipe.end_mut(side);
        if !end.open {
            return;
        }
        end.queue.extend(bytes);
        let start = !end.pumping && !end.queue.is_empty();
        end.pumping |= start;
        self.tell_queued(number, side);
        if start {
            self.schedule(Duration::ZERO, Event::Pump { pipe: number, side });
        }
    }

    /// Tells the sender how much waits.
    fn tell_queued(&mut self, pipe: u64, side: Side) {
        let Some(end) = self.pipes.get(&pipe).map(|pipe| pipe.end(side)) else {
            return;
        };
        let (host, key, queued) = (end.host, end.key, end.queued());
        let machine = self.hosts.get_mut(host).and_then(|host| host.machine.as_mut());
        if let Some(machine) = machine {
            machine.buffers.set_queued(key, queued);
        }
    }

    /// Puts a piece of what waits on its way.
    pub(super) fn pump(&mut self, number: u64, side: Side) {
        let Some(pipe) = self.pipes.get(&number) else {
            return;
        };
        let hosts = pipe.hosts();
        let way = (pipe.end(side).host, pipe.end(side.other()).host);
        // A kernel takes what a process writes, up to a bound, whether it can send it or not.
        if self.is_blocked(way) && pipe.end(side).in_flight_bytes() >= KERNEL_BYTES_MAX {
            self.postponed.push((way, Event::Pump { pipe: number, side }));
            return;
        }
        let wire = self.wire(hosts.0, hosts.1);
        let piece_max = self.dice.between(1, wire.piece_max);
        let jitter = self.dice.below(nanos(wire.latency) / 4 + 1);
        let Some(pipe) = self.pipes.get_mut(&number) else {
            return;
        };
        let end = pipe.end_mut(side);
        let bytes = end.take(usize::try_from(piece_max).unwrap_or(usize::MAX));
        if bytes.is_empty() {
            end.pumping = false;
            return;
        }
        let takes =
            Duration::from_nanos((bytes.len() as u64).saturating_mul(1_000_000_000) / wire.bytes_per_sec);
        end.in_flight.push_back(Item::Bytes(bytes));
        end.last_arrival = end
            .last_arrival
            .max(self.now + nanos(takes + wire.latency) + jitter);
        let (at, sender) = (end.last_arrival, end.host);
        self.schedule_at(
            at,
            Event::Arrive {
                pipe: number,
                side: side.other(),
            },
        );
        self.schedule(takes, Event::Pump { pipe: number, side });
        self.tell_queued(number, side);
        self.turn(sender);
    }

    /// Lets the oldest that is under way arrive.
    pub(super) fn arrive(&mut self, number: u64, side: Side) {
        let now = self.now;
        let Some(pipe) = self.pipes.get(&number) else {
            return;
        };
        let way = (pipe.end(side.other()).host, pipe.end(side).host);
        if self.is_blocked(way) {
            self.postponed.push((way, Event::Arrive { pipe: number, side }));
            return;
        }
        let Some(pipe) = self.pipes.get_mut(&number) else {
            return;
        };
        let item = pipe.end_mut(side.other()).in_flight.pop_front();
        let end = pipe.end_mut(side);
        let (host, key, open) = (end.host, end.key, end.open);
        match item {
            Some(Item::Bytes(mut bytes)) if open => {
                self.fingerprint.add(bytes.len() as u64);
                if let Some(host) = self.hosts.get_mut(host) {
                    host.handle_bytes(now, key, &mut bytes, &mut self.model);
                }
                self.turn(host);
            }
            Some(Item::End) => {
                self.pipes.remove(&number);
                self.ends.remove(&key);
                if open {
                    self.tell(|world| format!("{} sees the end of a connection", world.name(host)));
                    if let Some(host) = self.hosts.get_mut(host) {
                        host.handle_disconnected(now, key);
                    }
                    self.turn(host);
                }
            }
            Some(Item::Bytes(_)) | None => {}
        }
    }

    /// A node closes a connection that it has forgotten already.
    pub(super) fn close(&mut self, host: usize, key: ConnectionKey) {
        let machine = self.hosts.get_mut(host).and_then(|host| host.machine.as_mut());
        if let Some(machine) = machine {
            machine.buffers.close(key);
        }
        let Some((pipe, side)) = self.ends.remove(&key) else {
            return;
        };
        self.hang_up(pipe, side, Duration::ZERO);
    }

    /// One end is gone; the other learns of it behind what is under way, and `after` so long.
    pub(super) fn hang_up(&mut self, number: u64, side: Side, after: Duration) {
        let Some(pipe) = self.pipes.get(&number) else {
            return;
        };
        let hosts = pipe.hosts();
        let latency = self.wire(hosts.0, hosts.1).latency;
        let Some(pipe) = self.pipes.get_mut(&number) else {
            return;
        };
        if !pipe.end(side.other()).open {
            self.pipes.remove(&number);
            return;
        }
        let end = pipe.end_mut(side);
        self.ends.remove(&end.key);
        end.open = false;
        end.queue.clear();
        end.held.clear();
        end.overtaken.clear();
        end.in_flight.push_back(Item::End);
        end.last_arrival = end.last_arrival.max(self.now + nanos(latency + after));
        let at = end.last_arrival;
        self.schedule_at(
            at,
            Event::Arrive {
                pipe: number,
                side: side.other(),
            },
        );
    }

    /// Cuts the connections between two hosts: both ends learn of it.
    pub(super) fn reset(&mut self, between: (usize, usize)) -> bool {
        let cut: Vec<(u64, [(usize, ConnectionKey); 2])> = self
            .pipes
            .iter()
            .filter(|(_, pipe)| pipe.is_between(between.0, between.1))
            .map(|(number, pipe)| {
                (
                    *number,
                    Side::BOTH.map(|side| (pipe.end(side).host, pipe.end(side).key)),
                )
            })
            .collect();
        let now = self.now;
        for (number, ends) in &cut {
            let pipe = self.pipes.remove(number);
            for (side, (index, key)) in Side::BOTH.into_iter().zip(ends) {
                self.ends.remove(key);
                let open = pipe.as_ref().is_some_and(|pipe| pipe.end(side).open);
                if let Some(host) = self.hosts.get_mut(*index).filter(|_| open) {
                    host.handle_disconnected(now, *key);
                }
            }
            for (index, _) in ends {
                self.turn(*index);
            }
        }
        !cut.is_empty()
    }
}

fn pair((one, other): (usize, usize)) -> (usize, usize) {
    (one.min(other), one.max(other))
}

/// What a kernel holds of a connection when nothing passes.
const KERNEL_BYTES_MAX: usize = 64 << 10;
/// How long nobody answers before a dial fails.
const DIAL_TIME_MAX: Duration = Duration::from_secs(5);
