//! A peer with a key: it shakes hands as everybody does, and says in its channel what the input wants.

use std::collections::VecDeque;

use fieldgate_proto::channel::{
    ChannelId, ChannelSettings, Channels, Output as ChannelOutput, PathId, PqPolicy, put_frame,
};
use fieldgate_proto::delivery::{Batch, Lost};
use fieldgate_proto::link::{Class, Link, LinkInput, LinkSettings};
use fieldgate_proto::node::{
    Access, AccessPolicy, AuthorityAnswer, AuthorityRequest, ConnectionKey, Node, Output, ReadingSink,
    SourceInfo, Verdict,
};
use fieldgate_proto::relay::MemberRights;
use fieldgate_proto::route::{Address, FlowId, LinkId, LinkWriter, Received, Route, Router, RouterSettings};
use fieldgate_proto::time::{Instant, Now};
use fieldgate_proto::trust::{TrustFrame, status_parts};

use super::Buffers;
use crate::authority::{LIST_NUMBER, authority, patched};
use crate::world::{Repeatable, members, now, pieces};

/// Lets the peer open a channel for the service that the first byte names, and say or do what each piece of the rest is.
pub(super) fn run(data: &[u8]) {
    let Some((&service, rest)) = data.split_first() else {
        return;
    };
    let mut scene = Scene::new(SERVICES[usize::from(service) % SERVICES.len()]);
    scene.settle();
    for piece in pieces(rest).take(STEPS_MAX) {
        let Some((&what, rest)) = piece.split_first() else {
            continue;
        };
        let (outputs, bytes) = (scene.outputs, scene.bytes);
        scene.step(what, rest);
        scene.settle();
        scene.check();
        let (outputs, bytes) = (scene.outputs - outputs, scene.bytes - bytes);
        assert!(
            outputs <= OUTPUTS_MAX,
            "{outputs} outputs for {what:#04x} {rest:?}"
        );
        assert!(bytes <= BYTES_MAX, "{bytes} bytes for {what:#04x} {rest:?}");
    }
}

/// The node, the peer, and the link between them.
struct Scene {
    node: Node,
    buffers: Buffers,
    entropy: Repeatable,
    peer: Peer,
    millis: u64,
    /// What is decided about the peer.
    mood: u8,
    /// Requests without an answer, and when they came.
    requests: VecDeque<(AuthorityRequest, Instant)>,
    waiting: Vec<Access>,
    /// Answers that came when the node had given up their requests: each makes room for one more.
    late: usize,
    list: u64,
    outputs: usize,
    bytes: usize,
}

/// The peer's machines.
struct Peer {
    link: Link,
    id: Option<LinkId>,
    router: Router,
    channels: Channels,
    service: &'static str,
    flow: Option<FlowId>,
    channel: Option<ChannelId>,
    out: Out,
}

/// Where the peer writes.
#[derive(Default)]
struct Out(Vec<u8>);

impl LinkWriter for Out {
    fn buffer(&mut self, _: LinkId) -> Option<&mut Vec<u8>> {
        Some(&mut self.0)
    }

    fn queued_bytes(&self, _: LinkId) -> usize {
        self.0.len()
    }
}

/// Takes what an authorised gateway brings.
struct Anything;

impl ReadingSink for Anything {
    fn accept(&mut self, _: &SourceInfo, _: Batch<'_>) -> bool {
        true
    }

    fn gap(&mut self, _source: &SourceInfo, _lost: &Lost) -> bool {
        true
    }
}

impl Scene {
    fn new(service: &'static str) -> Self {
        let mut entropy = Repeatable::new(6);
        let mut node = super::node(&mut entropy, AccessPolicy::Ask);
        let mut buffers = Buffers::default();
        buffers.0.insert(KEY, Vec::new());
        node.handle_connected(now(0), KEY, None, &mut buffers);
        let settings = ChannelSettings {
            pq: PqPolicy::Off,
            ..ChannelSettings::default()
        };
        let mut out = Out::default();
        let link = Link::new(now(0).instant, &LinkSettings::new("peer", 9), &mut out.0);
        let peer = Peer {
            link,
            id: None,
            router: Router::new(RouterSettings::default()),
            channels: Channels::new(settings, members()[1].local()),
            service,
            flow: None,
            channel: None,
            out,
        };
        Self {
            node,
            buffers,
            entropy,
            peer,
            millis: 0,
            mood: 0,
            requests: VecDeque::new(),
            waiting: Vec::new(),
            late: 0,
            list: 0,
            outputs: 0,
            bytes: 0,
        }
    }

    fn now(&self) -> Now {
        now(self.millis)
    }

    /// Does one thing.
    fn step(&mut self, what: u8, rest: &[u8]) {
        let mut frames = Vec::new();
        match what {
            PASS => {
                let secs = rest.first().copied().unwrap_or(1);
                self.millis += u64::from(secs) * 500;
            }
            DECIDE => {
                self.mood = rest.first().copied().unwrap_or(0);
                let (now, buffers) = (self.now(), &mut self.buffers);
                self.node.authorise_all_again(now, buffers);
                for access in std::mem::take(&mut self.waiting) {
                    self.decide(&access);
                }
            }
            ANSWER => self.answer(rest),
            LIST => {
                let list = patched(&authority().list, rest);
                for part in status_parts(authority().history.identifier(), LIST_NUMBER, &list) {
                    part.put(&mut frames);
                }
            }
            PRESENT => put_frame(&mut frames, 0x07, &patched(&authority().presentation, rest)),
            MANY => {
                let Some((&kind, body)) = rest.split_first() else {
                    return;
                };
                for _ in 0..200 {
                    put_frame(&mut frames, kind & 0x3f, body);
                }
            }
            TIME => {
                let body = [&authority().history.to_bytes(), rest].concat();
                TrustFrame::SignedTime { presentation: &body }.put(&mut frames);
            }
            kind if kind & OF_AUTHORITY != 0 => {
                let body = [authority().history.identifier().as_bytes(), rest].concat();
                put_frame(&mut frames, kind & !OF_AUTHORITY, &body);
            }
            kind => put_frame(&mut frames, kind, rest),
        }
        if !frames.is_empty() {
            self.peer.say(self.now(), &frames);
        }
    }

    /// Answers the authority's oldest request.
    fn answer(&mut self, rest: &[u8]) {
        let Some((request, asked)) = self.requests.pop_front() else {
            return;
        };
        self.late += usize::from(self.now().instant - asked >= REQUEST_TIME);
        let (form, rest) = rest.split_first().unwrap_or((&0, &[]));
        let answer = match form % 4 {
            0 => AuthorityAnswer::Denied,
            1 => AuthorityAnswer::Issued(rest.repeat(40)),
            2 => AuthorityAnswer::Managed(String::from_utf8_lossy(rest).repeat(400)),
            _ => AuthorityAnswer::Time(rest.to_vec()),
        };
        let (now, number) = (self.now(), request.request);
        self.node
            .handle_authority_answer(now, request.channel, number, &answer, &mut self.buffers);
    }

    fn decide(&mut self, access: &Access) {
        let verdict = match self.mood % 5 {
            0 | 1 => Verdict::Permit {
                rights: MemberRights::default(),
                guest: self.mood % 5 == 1,
            },
            2 => Verdict::Prove,
            3 => Verdict::Refuse,
            _ => {
                self.waiting.push(access.clone());
                return;
            }
        };
        let (now, attempt) = (self.now(), access.attempt);
        let (entropy, buffers) = (&mut self.entropy, &mut self.buffers);
        self.node
            .handle_verdict(now, entropy, attempt, verdict, buffers, &mut Anything);
    }

    /// Lets both talk until neither has anything to say.
    fn settle(&mut self) {
        for _ in 0..ROUNDS_MAX {
            let now = self.now();
            self.node
                .handle_timeout(now, &mut self.entropy, &mut self.buffers);
            self.node.flush(now, &mut self.entropy, &mut self.buffers, None);
            while let Some(output) = self.node.poll_output() {
                self.outputs += 1;
                match output {
                    Output::CloseConnection { connection } => {
                        self.buffers.0.remove(&connection);
                        let (entropy, buffers) = (&mut self.entropy, &mut self.buffers);
                        self.node.handle_disconnected(now, entropy, connection, buffers);
                    }
                    Output::Authorise(access) => self.decide(&access),
                    Output::Authority(request) => self.requests.push_back((*request, now.instant)),
                    Output::Sign { channel, .. } => {
                        // The peer demands a proof; the token signs something else, or nothing.
                        let signature = self.mood.is_multiple_of(2).then_some([9; 64]);
                        let (entropy, buffers) = (&mut self.entropy, &mut self.buffers);
                        self.node
                            .handle_signature(now, entropy, channel, signature, buffers);
                    }
                    Output::Dial { .. }
                    | Output::DialDirect { .. }
                    | Output::Punch { .. }
                    | Output::Released { .. }
                    | Output::Asked { .. }
                    | Output::Save { .. }
                    | Output::Time(_)
                    | Output::Forgotten(_)
                    | Output::AuthoriseCommand(_)
                    | Output::Executor(_)
                    | Output::Commander(_)
                    | Output::Event(_) => {}
                }
            }
            let said = self
                .buffers
                .0
                .get_mut(&KEY)
                .map(std::mem::take)
                .unwrap_or_default();
            self.bytes += said.len();
            self.peer.hear(now, &mut self.entropy, said);
            let mut said = std::mem::take(&mut self.peer.out.0);
            if said.is_empty() {
                return;
            }
            let (entropy, buffers) = (&mut self.entropy, &mut self.buffers);
            self.node
                .handle_bytes(now, entropy, KEY, &mut said, buffers, &mut Anything);
        }
        panic!("the two talk for ever");
    }

    fn check(&mut self) {
        let now = self.now();
        let view = self.node.trust_view(now).expect("it trusts");
        assert!(
            [0, LIST_NUMBER].contains(&view.list_number),
            "a forged list was taken"
        );
        assert!(view.list_number >= self.list, "the list went back");
        self.list = view.list_number;
        let young = self
            .requests
            .iter()
            .filter(|(_, at)| now.instant - *at < REQUEST_TIME);
        assert!(young.count() <= 16 + self.late, "too many requests wait");
        assert!(
            self.node.registered_names().is_empty(),
            "a name was registered without the right"
        );
    }
}

impl Peer {
    /// Takes what the node sends.
    fn hear(&mut self, now: Now, entropy: &mut Repeatable, mut bytes: Vec<u8>) {
        let mut link = std::mem::replace(
            &mut self.link,
            Link::new(now.instant, &LinkSettings::new("", 0), &mut Vec::new()),
        );
        let mut control = Vec::new();
        let mut incoming = link.receive(now.instant, &mut bytes);
        while let Ok(Some(input)) = incoming.next_input(&mut control) {
            match input {
                LinkInput::Up(hello) => self.begin(now, entropy, hello.frame_len_max),
                LinkInput::Frame(frame) => {
                    let Some(id) = self.id else { continue };
                    let received = self.router.handle_frame(now.instant, id, frame, &mut self.out);
                    if let Received::Local { payload, .. } = received {
                        // What the node says beside the handshake is of no interest here.
                        let _ = self.channels.handle_message(now, entropy, PATH, &[], payload);
                    }
                    self.settle(now);
                }
                LinkInput::Malformed(error) => panic!("the node sends nothing malformed: {error:?}"),
            }
        }
        self.link = link;
        self.out.0.extend_from_slice(&control);
        self.channels.handle_timeout(now, entropy);
        self.settle(now);
    }

    /// Begins the handshake.
    fn begin(&mut self, now: Now, entropy: &mut Repeatable, frame_len_max: usize) {
        let id = self
            .router
            .link_up(now.instant, entropy, frame_len_max)
            .expect("it is the first");
        self.id = Some(id);
        let route = Route::new([Address::Service(self.service)]).expect("one service makes a route");
        let flow = self
            .router
            .open(now.instant, entropy, id, &route)
            .expect("it is the first");
        self.flow = Some(flow);
        let node = members()[0].history.identifier();
        self.channels
            .connect(now, entropy, node, PATH, PqPolicy::Off)
            .expect("it is the first");
        self.settle(now);
    }

    fn settle(&mut self, now: Now) {
        while let Some(output) = self.channels.poll_output() {
            match output {
                ChannelOutput::Transmit { bytes, .. } => {
                    if let Some(flow) = self.flow {
                        // A flow that is gone says nothing any more.
                        let _ = self
                            .router
                            .send(now.instant, flow, Class::Normal, &bytes, &mut self.out);
                    }
                }
                ChannelOutput::Established { channel, .. } => self.channel = Some(channel),
                ChannelOutput::Closed { .. } => self.channel = None,
                ChannelOutput::Sign { channel, .. } => {
                    // Its token is gone.
                    let _ = self.channels.handle_signature(now, channel, Err(()));
                }
                ChannelOutput::Presented { .. }
                | ChannelOutput::Proven { .. }
                | ChannelOutput::Pong { .. } => {}
            }
        }
        while self.router.poll_output().is_some() {}
    }

    /// Seals frames and sends them, if there is a channel.
    fn say(&mut self, now: Now, frames: &[u8]) {
        let (Some(channel), Some(flow)) = (self.channel, self.flow) else {
            return;
        };
        let mut record = Vec::new();
        let Ok(start) = self.channels.begin(channel, &mut record) else {
            return;
        };
        record.extend_from_slice(frames);
        if self
            .channels
            .finish(now.instant, channel, &mut record, start)
            .is_ok()
        {
            let _ = self
                .router
                .send(now.instant, flow, Class::Normal, &record, &mut self.out);
        }
    }
}

const SERVICES: [&str; 4] = ["registrar", "uplink", "authority", "link"];
const KEY: ConnectionKey = ConnectionKey(1);
const PATH: PathId = PathId(1);
const STEPS_MAX: usize = 48;
const ROUNDS_MAX: usize = 100;
/// What the node may have to say to its caller about one record of at most 64 KiB.
const OUTPUTS_MAX: usize = 256;
/// What it may answer to one.
const BYTES_MAX: usize = 128 << 10;
/// How long a request waits for its answer.
const REQUEST_TIME: std::time::Duration = std::time::Duration::from_secs(30);

/// Half seconds pass.
const PASS: u8 = 0xf0;
/// Another decision about the peer.
const DECIDE: u8 = 0xf1;
/// The authority answers.
const ANSWER: u8 = 0xf2;
/// The genuine list, patched.
const LIST: u8 = 0xf3;
/// A genuine credential of somebody else, patched.
const PRESENT: u8 = 0xf4;
/// The same frame many times.
const MANY: u8 = 0xf5;
/// A signed time: the authority's history and anything.
const TIME: u8 = 0xf6;
/// Set in the kind of frames whose body begins with the authority's identifier.
const OF_AUTHORITY: u8 = 0x80;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peer_gets_a_channel_at_every_service_and_is_listened_to() {
        for service in SERVICES {
            let mut scene = Scene::new(service);
            scene.settle();
            assert!(scene.peer.channel.is_some(), "{service}");
            scene.step(LIST, &[]);
            scene.settle();
            scene.check();
            assert_eq!(scene.list, LIST_NUMBER, "{service}");
            scene.step(0x35, &[0, 0, 0, 1]);
            scene.settle();
            assert_eq!(scene.requests.len(), usize::from(service == "authority"));
        }
    }
}
