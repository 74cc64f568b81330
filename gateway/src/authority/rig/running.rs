//! A running authority, with a node that signs for it.

use std::{path::Path, sync::mpsc, thread};

use fieldgate_proto::time::{Instant, Now};

use super::{BEGINNING, Node, at, settings};
use crate::{
    authority::{
        AuthorityAnswer, AuthorityOutput, AuthoritySettings, Origin, RequestKind,
        permit::OwnRules,
        service::{AuthorityHandle, AuthorityRequest, AuthorityService, ServiceParts},
    },
    runtime::entropy::SystemEntropy,
};

/// An authority on a thread of its own.
pub(crate) struct Running {
    service: Option<AuthorityService>,
    node: Option<thread::JoinHandle<()>>,
}

impl Running {
    /// Starts the authority whose identity [`Node::seeded`] with 1 is.
    pub(crate) fn start(store: &Path) -> Self {
        Self::start_with(settings(store))
    }

    pub(crate) fn start_with(settings: AuthoritySettings) -> Self {
        let mut authority = Node::seeded(1);
        let (wishes, outputs) = mpsc::channel();
        let service = AuthorityService::start(ServiceParts {
            settings,
            history: authority.history.clone(),
            permit: Box::new(OwnRules),
            held: None,
            entropy: Box::new(SystemEntropy),
            // It stands still: what is tested here does not depend on it.
            clock: Box::new(|| Now {
                instant: Instant::START,
                wall: at(BEGINNING),
            }),
            // Nobody listens any more when the test ends.
            deliver: Box::new(move |output| drop(wishes.send(output))),
            replication: None,
        })
        .expect("the store opens");
        let handle = service.handle();
        let node = thread::spawn(move || {
            for output in outputs {
                match output {
                    AuthorityOutput::Sign(request) => {
                        handle.handle_signature(request.id, Ok(authority.sign(&request.message)));
                    }
                    AuthorityOutput::StatusList { .. } => {}
                    AuthorityOutput::Broken(message) => panic!("{message}"),
                }
            }
        });
        Self {
            service: Some(service),
            node: Some(node),
        }
    }

    pub(crate) fn handle(&self) -> AuthorityHandle {
        self.service
            .as_ref()
            .expect("it runs until it is stopped")
            .handle()
    }

    /// Puts one request and waits for the answer.
    pub(crate) fn ask(&self, from: Origin, kind: RequestKind) -> AuthorityAnswer {
        ask(&self.handle(), from, kind)
    }

    /// Asks until there is a key to sign with.
    pub(crate) fn ask_until_ready(&self, from: Origin, kind: &RequestKind) -> AuthorityAnswer {
        loop {
            let answer = self.ask(from, kind.clone());
            if answer != AuthorityAnswer::NotReady {
                return answer;
            }
        }
    }

    pub(crate) fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        if let Some(service) = self.service.take() {
            service.stop();
        }
        if let Some(node) = self.node.take() {
            node.join().expect("the node does not panic");
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !thread::panicking() {
            self.end();
        }
    }
}

/// Puts one request and waits for the answer.
pub(crate) fn ask(handle: &AuthorityHandle, from: Origin, kind: RequestKind) -> AuthorityAnswer {
    let (sender, answer) = mpsc::channel();
    let request = AuthorityRequest {
        from,
        kind,
        reply: Box::new(move |answer| drop(sender.send(answer))),
    };
    assert!(handle.submit(request).is_ok(), "there is room");
    answer.recv().expect("every request is answered")
}
