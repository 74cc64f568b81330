use std::{rc::Rc, sync::mpsc, thread};

use tokio::{sync::oneshot, task::LocalSet};

use super::{
    enrol::{EnrolDone, Membership, TicketText},
    *,
};
use crate::authority::rig::Running;

/// A node's control socket, as it is while the node runs.
pub(crate) struct Served {
    end: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
    pub(crate) path: PathBuf,
}

impl Served {
    /// Serves a socket in `directory`: with an authority, and with a node that enrols as `enrols` says.
    pub(crate) fn start(
        directory: &Path,
        authority: Option<&Running>,
        enrols: Option<fn(EnrolJob) -> Result<EnrolDone, EnrolFailure>>,
    ) -> Self {
        let path = directory.join("control");
        let (end, ended) = oneshot::channel();
        let (bound, ready) = mpsc::channel();
        let (handle, socket_path) = (authority.map(Running::handle), path.clone());
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("the runtime starts");
            LocalSet::new().block_on(&runtime, async move {
                let mut socket = Socket::bind(&socket_path).expect("the socket is bound");
                if let Some(handle) = handle {
                    socket = socket.with_manage(manage_here(handle));
                }
                if let Some(enrols) = enrols {
                    socket = socket.with_enrol(Rc::new(move |job| {
                        let result = enrols(job);
                        Box::pin(async move { result })
                    }));
                }
                bound.send(()).expect("the test waits");
                tokio::select! {
                    () = socket.serve_with(|| async { NodeStatus::default() }) => {}
                    _ = ended => {}
                }
            });
        });
        ready.recv().expect("the socket is served");
        Self {
            end: Some(end),
            thread: Some(thread),
            path,
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(
                thread::panicking() || ended.is_ok(),
                "the control thread has panicked"
            );
        }
    }
}

#[test]
fn a_plain_node_tells_its_status_and_nothing_else() {
    let directory = tempfile::tempdir().expect("there is room for a directory");
    let served = Served::start(directory.path(), None, None);
    assert!(ask_status(&served.path).is_ok());
    let refused = ask_manage(&served.path, ManageRequest::LogHead {}).expect_err("there is no authority");
    assert!(refused.to_string().contains("no authority"), "{refused}");
    let job = EnrolJob::Response {
        response: String::new(),
    };
    let refused = ask_enrol(&served.path, job).expect_err("there is no [trust]");
    assert!(refused.to_string().contains("[trust]"), "{refused}");
}

#[test]
fn operators_are_answered() {
    let directory = tempfile::tempdir().expect("there is room for a directory");
    let running = Running::start(&directory.path().join("store"));
    let served = Served::start(directory.path(), Some(&running), None);
    let answer = ask_manage(&served.path, ManageRequest::Log { from: 1 }).expect("the node answers");
    assert!(
        matches!(&answer, ManageAnswer::Log(page) if page.head >= 1),
        "{answer:?}"
    );
    let answer = ask_manage(&served.path, ManageRequest::Status {}).expect("the node answers");
    assert!(matches!(answer, ManageAnswer::Status(_)), "{answer:?}");
    running.stop();
    let answer = ask_manage(&served.path, ManageRequest::Status {}).expect("the node answers");
    assert!(
        matches!(&answer, ManageAnswer::Error(error) if error.code == "busy"),
        "{answer:?}"
    );
}

#[test]
fn a_node_enrols() {
    let directory = tempfile::tempdir().expect("there is room for a directory");
    let membership = || Membership {
        authority: "fg1a".to_owned(),
        identifier: "fg1b".to_owned(),
        name: "press-3".to_owned(),
        not_after: 5,
    };
    let served = Served::start(
        directory.path(),
        None,
        Some(|job| {
            if let EnrolJob::Online {
                ticket,
                name: Some(name),
            } = job
                && ticket.as_str() == "fgticket1x"
            {
                return Ok(EnrolDone::Enrolled(Membership {
                    authority: "fg1a".to_owned(),
                    identifier: "fg1b".to_owned(),
                    name,
                    not_after: 5,
                }));
            }
            Err(EnrolFailure {
                message: "no".to_owned(),
                hint: Some("yes".to_owned()),
            })
        }),
    );
    let online = EnrolJob::Online {
        ticket: TicketText::new("fgticket1x".to_owned()),
        name: Some("press-3".to_owned()),
    };
    let done = ask_enrol(&served.path, online).expect("the node answers");
    assert_eq!(done, Ok(EnrolDone::Enrolled(membership())));
    // As long as a response with the longest list.
    let long = EnrolJob::Response {
        response: "A".repeat(1_600_000),
    };
    let done = ask_enrol(&served.path, long).expect("the node answers");
    assert_eq!(done.map_err(|failure| failure.hint), Err(Some("yes".to_owned())));
}

#[test]
fn what_is_no_request_is_answered_by_an_error() {
    let directory = tempfile::tempdir().expect("there is room for a directory");
    let served = Served::start(directory.path(), None, None);
    for request in [
        "nonsense\n",
        "{\"request\":\"status\",\"more\":1}\n",
        "{\"request\":\"manage\",\"manage\":{\"request\":\"log\",\"from\":1,\"to\":2}}\n",
        "{\"request\":\"manage\",\"manage\":{\"request\":\"log-head\",\"from\":1}}\n",
        "{\"request\":\"enrol\",\"job\":{\"how\":\"magic\"}}\n",
    ] {
        let mut stream = BlockingStream::connect(&served.path).expect("the socket is there");
        stream.write_all(request.as_bytes()).expect("the request goes");
        let mut line = String::new();
        BufReader::new(stream)
            .read_line(&mut line)
            .expect("the answer comes");
        assert!(line.contains("\"answer\":\"error\""), "{request}: {line}");
    }
}

#[test]
fn whoever_hangs_up_takes_its_command_with_it() {
    let directory = tempfile::tempdir().expect("there is room for a directory");
    let path = directory.path().join("control");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("the runtime starts");
    LocalSet::new().block_on(&runtime, async {
        // The command never ends; `ended` says that nobody waits for it any more.
        let (waits, ended) = oneshot::channel::<()>();
        let waits = std::cell::Cell::new(Some(waits));
        let socket = Socket::bind(&path)
            .expect("the socket is bound")
            .with_commanding(Rc::new(move |_| {
                let waits = waits.take();
                Box::pin(async move {
                    std::future::pending::<()>().await;
                    drop(waits);
                    None
                })
            }));
        tokio::task::spawn_local(async move { socket.serve_with(|| async { NodeStatus::default() }).await });
        let mut stream = UnixStream::connect(&path).await.expect("the socket is served");
        let job = CommandJob::List {};
        let mut line = serde_json::to_vec(&Request::Command { job }).expect("it is JSON");
        line.push(b'\n');
        stream.write_all(&line).await.expect("the node reads");
        drop(stream);
        assert!(ended.await.is_err());
    });
}
