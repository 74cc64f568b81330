//! Inlets and outlets that operators add and remove while the node runs.

use std::{cell::RefCell, rc::Rc};

use tokio::sync::Mutex;

use crate::{
    control::{
        Socket,
        portal::{PortalDone, PortalJob, PortalKind},
    },
    runtime::{
        NodeHandle, StartError,
        portals::{
            book::{Book, Portal},
            changing::{Change, NewInlet, NewOutlet, PortalOrigin},
        },
    },
};

/// What is known of them, over all starts of the process.
pub(super) type SharedBook = Rc<RefCell<Book>>;

/// Lets operators add and remove them over the control socket.
pub(super) fn service(control: Socket, book: &SharedBook, node: &Rc<NodeHandle>) -> Socket {
    let (book, node) = (Rc::clone(book), Rc::clone(node));
    // What one wants is checked against what is there when the one before is done.
    let turn = Rc::new(Mutex::new(()));
    control.with_portalling(Rc::new(move |uid, job| {
        let (book, node, turn) = (Rc::clone(&book), Rc::clone(&node), Rc::clone(&turn));
        Box::pin(async move {
            let _turn = turn.lock().await;
            match job {
                PortalJob::Add {
                    kind,
                    name,
                    keys,
                    keep,
                } => add(&book, &node, uid, (kind, name, keys, keep)).await,
                PortalJob::Remove { kind, name, now } => remove(&book, &node, uid, (kind, name, now)).await,
            }
        })
    }))
}

type Wanted = (PortalKind, String, Vec<(String, String)>, bool);

async fn add(
    book: &SharedBook,
    node: &NodeHandle,
    uid: u32,
    (kind, name, keys, keep): Wanted,
) -> Result<PortalDone, String> {
    let addition = book.borrow().check(kind, &name, &keys, keep)?;
    let origin = if keep {
        PortalOrigin::Kept
    } else {
        PortalOrigin::Command
    };
    tracing::info!(target: "audit", uid, kind = kind.name(), portal = name, keep, "portal to be added by command");
    let change = match &addition.portal {
        Portal::Inlet(inlet) => {
            let peer = node.neighbours.peer(inlet)?;
            let mut new = NewInlet::new((**inlet).clone(), origin, peer).map_err(words)?;
            new.proof_demands = node.desk.add_portal_peer(inlet.node);
            Change::AddInlet(Box::new(new))
        }
        Portal::Outlet(outlet) => {
            let new = NewOutlet::new((**outlet).clone(), origin).map_err(words)?;
            // Whoever asks as soon as it is there finds it known.
            node.desk.set_outlet(&name, Some(&outlet.allow));
            Change::AddOutlet(Box::new(new))
        }
    };
    let address = match node.change_portals(change).await {
        Ok(address) => address,
        Err(error) => {
            if kind == PortalKind::Outlet {
                node.desk.set_outlet(&name, None);
            }
            return Err(words(error));
        }
    };
    let mut warnings = addition.warnings.clone();
    if let Err(error) = book.borrow_mut().add(addition) {
        warnings.push(format!(
            "it is there until the node ends, and cannot be kept: {error}"
        ));
    }
    Ok(PortalDone { address, warnings })
}

async fn remove(
    book: &SharedBook,
    node: &NodeHandle,
    uid: u32,
    (kind, name, now): (PortalKind, String, bool),
) -> Result<PortalDone, String> {
    book.borrow().check_removal(kind, &name)?;
    tracing::info!(target: "audit", uid, kind = kind.name(), portal = name, now, "portal to be removed by command");
    let change = Change::Remove {
        kind,
        name: name.clone(),
        now,
    };
    let address = node.change_portals(change).await.map_err(words)?;
    if kind == PortalKind::Outlet {
        node.desk.set_outlet(&name, None);
    }
    let removed = book.borrow_mut().remove(kind, &name);
    let warnings = removed.err().map(|error| {
        format!("it comes back with the next start, as it cannot be taken out of the file: {error}")
    });
    Ok(PortalDone {
        address,
        warnings: warnings.into_iter().collect(),
    })
}

fn words(error: StartError) -> String {
    match error.into_parts() {
        (message, Some(hint)) => format!("{message}\n  help: {hint}"),
        (message, None) => message,
    }
}
