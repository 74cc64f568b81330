use std::{
    io::{self, Read as _, Write as _},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Condvar, Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
};

use fieldgate_proto::trust::Ticket;

use super::*;
use crate::authority::{
    rig::{LOCAL, NOTHING, Node, Running, credential, issued, order, read_ticket, settings},
    store::tests::KILL_AT,
    wire::{ManageAnswer, ManageRequest},
};

fn manage(running: &Running, request: ManageRequest) -> ManageAnswer {
    let answer = running.ask(LOCAL, RequestKind::Manage(Box::new(request)));
    let AuthorityAnswer::Managed(answer) = answer else {
        panic!("{answer:?}")
    };
    *answer
}

fn ticket(running: &Running, uses: u32) -> Ticket {
    let order = order(|order| order.uses = uses);
    read_ticket(&issued(manage(running, ManageRequest::TicketIssue(order))))
}

#[test]
fn many_at_once_are_answered_in_few_commits() {
    let directory = tempfile::tempdir().expect("there is room for a directory");
    let running = Running::start(&directory.path().join("store"));
    let ticket = ticket(&running, 30);
    // Wakes the key first: then there is one answer to each.
    let mut first = Node::new();
    let request = RequestKind::Enrol(first.request(&ticket, ""));
    assert!(matches!(
        running.ask_until_ready(first.origin(NOTHING), &request),
        AuthorityAnswer::Issued(_)
    ));
    let before = running.handle().status().commits;
    let (sender, answers) = mpsc::channel();
    let mut nodes: Vec<Node> = (0..200).map(|_| Node::new()).collect();
    let requests: Vec<_> = nodes
        .iter_mut()
        .map(|node| (node.origin(NOTHING), node.request(&ticket, "")))
        .collect();
    let handle = running.handle();
    for (from, request) in requests {
        let sender = sender.clone();
        let request = AuthorityRequest {
            from,
            kind: RequestKind::Enrol(request),
            reply: Box::new(move |answer| drop(sender.send(answer))),
        };
        assert!(handle.submit(request).is_ok(), "there is room");
    }
    drop(sender);
    let answers: Vec<AuthorityAnswer> = answers.iter().collect();
    let issued = answers
        .iter()
        .filter(|answer| matches!(answer, AuthorityAnswer::Issued(_)))
        .count();
    assert_eq!((answers.len(), issued), (200, 29));
    let status = running.handle().status();
    assert!(status.commits - before < 200, "{}", status.commits - before);
    assert!((2..=64).contains(&status.batch_max), "{}", status.batch_max);
    running.stop();
}

#[test]
fn what_waits_is_answered_before_the_end() {
    let directory = tempfile::tempdir().expect("there is room for a directory");
    let running = Running::start(&directory.path().join("store"));
    let (sender, answers) = mpsc::channel();
    let handle = running.handle();
    for _ in 0..100 {
        let sender = sender.clone();
        let request = AuthorityRequest {
            from: LOCAL,
            kind: RequestKind::Manage(Box::new(ManageRequest::TicketIssue(order(|_| ())))),
            reply: Box::new(move |answer| drop(sender.send(answer))),
        };
        assert!(handle.submit(request).is_ok(), "there is room");
    }
    drop(sender);
    running.stop();
    assert_eq!(answers.iter().count(), 100);
    let late = AuthorityRequest {
        from: LOCAL,
        kind: RequestKind::Renew,
        reply: Box::new(|answer| panic!("nobody is there to say {answer:?}")),
    };
    assert!(handle.submit(late).is_err());
    assert_eq!(handle.status().busy, 1);
}

#[test]
fn who_finds_no_room_is_told() {
    let directory = tempfile::tempdir().expect("there is room for a directory");
    let mut settings = settings(&directory.path().join("store"));
    settings.limits.waiting_max = 2;
    let running = Running::start_with(settings);
    let handle = running.handle();
    // A reply that blocks keeps the thread busy for as long as the test wants; no other may.
    let (hold, held) = mpsc::channel::<()>();
    let (entered, inside) = mpsc::channel();
    let renew = |reply: Box<dyn FnOnce(AuthorityAnswer) + Send>| AuthorityRequest {
        from: LOCAL,
        kind: RequestKind::Renew,
        reply,
    };
    let blocking = renew(Box::new(move |_| {
        entered.send(()).expect("the test waits");
        // Ends when the test drops its end.
        let _ = held.recv();
    }));
    assert!(handle.submit(blocking).is_ok());
    inside.recv().expect("the reply is called");
    assert!(handle.submit(renew(Box::new(|_| ()))).is_ok());
    assert!(handle.submit(renew(Box::new(|_| ()))).is_ok());
    assert!(handle.submit(renew(Box::new(|_| ()))).is_err());
    drop(hold);
    running.stop();
}

#[test]
fn a_rotated_identity_is_taken_over() {
    let directory = tempfile::tempdir().expect("there is room for a directory");
    let running = Running::start(&directory.path().join("store"));
    let request = RequestKind::Time { nonce: [1; 16] };
    let _ = running.ask_until_ready(LOCAL, &request);
    let rotated = Node::seeded(1).rotated();
    running.handle().handle_history(rotated.history.clone());
    // What the node says comes before what others ask.
    let AuthorityAnswer::Time(time) = running.ask(LOCAL, request) else {
        panic!("the key is still attested by the one before");
    };
    assert!(time.starts_with(&rotated.history.to_bytes()));
    running.stop();
}

// ---- kill -9 ----

/// Directory of store and socket; set for the processes that are killed.
const DIRECTORY: &str = "FIELDGATE_TEST_AUTHORITY";
/// This test's own name, for the processes that it starts.
const NAME: &str =
    "authority::service::tests::one_ticket_makes_one_member_however_often_the_process_is_killed";

/// What the process to be killed does: it answers enrolments at a socket until its standard input ends.
fn serve(directory: &Path) {
    let running = Running::start(&directory.join("store"));
    let handle = running.handle();
    let fresh = directory.join("socket.new");
    // The one before was killed with its socket bound.
    let _ = std::fs::remove_file(&fresh);
    let listener = UnixListener::bind(&fresh).expect("the socket is bound");
    std::fs::rename(&fresh, directory.join("socket")).expect("the socket is there");
    thread::spawn(move || {
        for stream in listener.incoming() {
            let handle = handle.clone();
            let stream = stream.expect("connections come in");
            // Who hangs up has lost its answer.
            thread::spawn(move || drop(answer(stream, &handle)));
        }
    });
    println!("ready");
    // Ends with the test, also where that panics.
    io::stdin()
        .read_to_end(&mut Vec::new())
        .expect("the input can be read");
    running.stop();
}

/// Request: the bytes up to the end of the stream. Answer: `d`, `n`, or `i` and the presentation.
fn answer(mut stream: UnixStream, handle: &AuthorityHandle) -> io::Result<()> {
    let mut request = Vec::new();
    stream.read_to_end(&mut request)?;
    let from = Origin::Channel {
        peer: fieldgate_proto::identity::Identifier::from_bytes([0xee; 32]),
        rights: NOTHING,
    };
    match crate::authority::rig::ask(handle, from, RequestKind::Enrol(request)) {
        AuthorityAnswer::Issued(presentation) => stream.write_all(&[b"i", &*presentation].concat()),
        AuthorityAnswer::Denied => stream.write_all(b"d"),
        AuthorityAnswer::NotReady => stream.write_all(b"n"),
        answer @ (AuthorityAnswer::Time(_) | AuthorityAnswer::Managed(_)) => panic!("{answer:?}"),
    }
}

/// The process that is killed and started again, as those who ask see it.
struct Target {
    socket: PathBuf,
    /// How often it was started, and how many have their last answer.
    state: Mutex<(u32, usize)>,
    changed: Condvar,
}

impl Target {
    /// Asks until there is an answer, through however many deaths of the process.
    fn ask(&self, request: &[u8]) -> Option<Vec<u8>> {
        loop {
            let (before, _) = *self.state.lock().expect("nobody panics with the state");
            match self.try_ask(request) {
                Ok(answer) if answer == b"n" => {}
                Ok(answer) => {
                    let mut state = self.state.lock().expect("nobody panics with the state");
                    state.1 += 1;
                    self.changed.notify_all();
                    return answer.strip_prefix(b"i").map(<[u8]>::to_vec);
                }
                Err(_) => {
                    // It is dead: another one will come.
                    let state = self.state.lock().expect("nobody panics with the state");
                    let dead = |state: &mut (u32, usize)| state.0 == before;
                    let state = self.changed.wait_while(state, dead);
                    drop(state.expect("nobody panics with the state"));
                }
            }
        }
    }

    fn try_ask(&self, request: &[u8]) -> io::Result<Vec<u8>> {
        let mut stream = UnixStream::connect(&self.socket)?;
        stream.write_all(request)?;
        stream.shutdown(std::net::Shutdown::Write)?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        if answer.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(answer)
    }
}

/// Starts the process; `kill_at` is the write or sync to the store at which it kills itself.
fn start(directory: &Path, kill_at: Option<u64>) -> Child {
    let mut command = Command::new(std::env::current_exe().expect("this is a program"));
    command
        .args(["--exact", NAME, "--nocapture", "--test-threads=1"])
        .env(DIRECTORY, directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    if let Some(kill_at) = kill_at {
        command.env(KILL_AT, kill_at.to_string());
    }
    command.spawn().expect("the process starts")
}

/// Waits until the process serves or is dead; returns whether it serves.
fn is_ready(child: &mut Child) -> bool {
    let mut output = String::new();
    let mut byte = [0];
    let stdout = child.stdout.as_mut().expect("the output is a pipe");
    while let Ok(1) = stdout.read(&mut byte) {
        output.push(char::from(byte[0]));
        if output.ends_with("ready\n") {
            return true;
        }
    }
    false
}

/// Fifty identities ask with one ticket while the process is killed: at the write with this number, then whenever somebody has
/// an answer. Returns how many processes have killed themselves.
fn fifty_with_one_ticket(kill_at: u64) -> u32 {
    let directory = tempfile::tempdir().expect("there is room for a directory");
    let store = directory.path().join("store");
    let running = Running::start(&store);
    let ticket = ticket(&running, 1);
    running.stop();
    let mut nodes: Vec<Node> = (0..50).map(|_| Node::new()).collect();
    let requests: Vec<Vec<u8>> = nodes.iter_mut().map(|node| node.request(&ticket, "")).collect();
    let target = Target {
        socket: directory.path().join("socket"),
        state: Mutex::new((0, 0)),
        changed: Condvar::new(),
    };
    let mut died = 0;
    let answers: Vec<Option<Vec<u8>>> = thread::scope(|scope| {
        let asking: Vec<_> = requests
            .iter()
            .map(|request| scope.spawn(|| target.ask(request)))
            .collect();
        let mut kill_at = Some(kill_at);
        let mut kills = 0;
        loop {
            let mut child = start(directory.path(), kill_at);
            if is_ready(&mut child) {
                let mut state = target.state.lock().expect("nobody panics with the state");
                let before = state.1;
                state.0 += 1;
                target.changed.notify_all();
                if kill_at.is_none() {
                    // Killed as soon as one has an answer, while others have not; three times. Then left alone.
                    let enough = if kills < 3 { before + 1 } else { requests.len() };
                    let waiting = |state: &mut (u32, usize)| state.1 < enough.min(requests.len());
                    let state = target.changed.wait_while(state, waiting);
                    let done = state.expect("nobody panics with the state").1 == requests.len();
                    kills += 1;
                    child.kill().expect("the process can be killed");
                    child.wait().expect("the process has ended");
                    if done {
                        break;
                    }
                    continue;
                }
            }
            // It kills itself, while it opens the store or while it serves. If the write never comes because everybody has an
            // answer before, it is killed from here.
            died += u32::from(wait_for_death(&mut child, &target, requests.len()));
            kill_at = None;
        }
        asking
            .into_iter()
            .map(|asking| asking.join().expect("nobody panics"))
            .collect()
    });
    let issued: Vec<usize> = (0..answers.len())
        .filter(|index| answers[*index].is_some())
        .collect();
    assert_eq!(issued.len(), 1, "killed at write {kill_at}");
    check_afterwards(&store, &mut nodes, &requests, issued[0]);
    died
}

/// Waits until the process has killed itself; returns `false` if it had to be killed because there was nothing left to do.
fn wait_for_death(child: &mut Child, target: &Target, all: usize) -> bool {
    let mut stdout = child.stdout.take().expect("the output is a pipe");
    let ended = AtomicBool::new(false);
    let died = thread::scope(|scope| {
        scope.spawn(|| {
            // The pipe ends with the process.
            stdout
                .read_to_end(&mut Vec::new())
                .expect("the output can be read");
            let state = target.state.lock().expect("nobody panics with the state");
            ended.store(true, Ordering::SeqCst);
            target.changed.notify_all();
            drop(state);
        });
        let state = target.state.lock().expect("nobody panics with the state");
        let waiting = |state: &mut (u32, usize)| !ended.load(Ordering::SeqCst) && state.1 < all;
        let state = target.changed.wait_while(state, waiting);
        drop(state.expect("nobody panics with the state"));
        let died = ended.load(Ordering::SeqCst);
        if !died {
            child.kill().expect("the process can be killed");
        }
        died
    });
    child.wait().expect("the process has ended");
    died
}

/// The one who was taken in gets its credential again, nobody else does, and the log tells the same story.
fn check_afterwards(store: &Path, nodes: &mut [Node], requests: &[Vec<u8>], member: usize) {
    let running = Running::start(store);
    let authority = Node::seeded(1).id();
    for (index, request) in requests.iter().enumerate() {
        let from = nodes[index].origin(NOTHING);
        let answer = running.ask_until_ready(from, &RequestKind::Enrol(request.clone()));
        match &answer {
            AuthorityAnswer::Issued(presentation) => {
                assert_eq!(index, member);
                assert_eq!(credential(presentation, authority).subject, nodes[index].id());
            }
            AuthorityAnswer::Denied => assert_ne!(index, member),
            AuthorityAnswer::NotReady | AuthorityAnswer::Time(_) | AuthorityAnswer::Managed(_) => {
                panic!("{answer:?}")
            }
        }
    }
    let ManageAnswer::Tickets { tickets, .. } = manage(&running, ManageRequest::TicketList { after: None })
    else {
        panic!("no tickets");
    };
    assert_eq!(
        tickets
            .iter()
            .map(|ticket| (ticket.used, ticket.uses))
            .collect::<Vec<_>>(),
        [(1, 1)]
    );
    assert_eq!(running.handle().status().members, 1);
    running.stop();
    // Opening the store has walked the log; here what it says.
    let authority = Node::seeded(1);
    let mut store =
        crate::authority::store::Store::open(store, &authority.id(), None).expect("the store opens");
    let enrolled = store
        .batch(|batch| {
            assert_eq!(batch.verify_log(0)?, Ok(()));
            let mut enrolled = Vec::new();
            batch.log_from(0, |_, entry| {
                let decision = crate::authority::log::Entry::decode(entry)
                    .expect("the entry is one")
                    .decision;
                if (decision.action.name(), decision.outcome.name()) == ("enrol", "done") {
                    enrolled.push(decision.subject);
                }
                true
            })?;
            Ok(enrolled)
        })
        .expect("the store can be read");
    assert_eq!(enrolled, [Some(nodes[member].id())]);
}

#[test]
fn one_ticket_makes_one_member_however_often_the_process_is_killed() {
    if let Some(directory) = std::env::var_os(DIRECTORY) {
        return serve(Path::new(&directory));
    }
    // Opening the store takes about twenty writes and syncs, the first batch as many: from the first of them to beyond the
    // last, after which nothing is left to do.
    let died: u32 = [1, 5, 9, 13, 17, 21, 25, 29, 33, 37]
        .map(fifty_with_one_ticket)
        .iter()
        .sum();
    // On a slow machine requests share fewer batches, so there are more writes.
    assert!((8..=10).contains(&died), "{died}");
    assert_eq!(fifty_with_one_ticket(100_000), 0);
}
