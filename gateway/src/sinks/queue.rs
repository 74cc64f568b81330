//! The queue between the trunk and one sink: the most urgent delivery first, each class in order.

use fieldgate_adapters::class::Class;
use tokio::sync::mpsc::{
    self,
    error::{TryRecvError, TrySendError},
};

use super::Delivery;

/// Makes a queue with room for `room` deliveries of each class.
///
/// A source has one class, so its deliveries stay in order whatever overtakes them.
pub(crate) fn queue(room: usize) -> (DeliverySender, DeliveryReceiver) {
    let (told, tellings) = mpsc::unbounded_channel();
    let [alarm, normal, bulk] = [(); 3].map(|()| mpsc::channel(room));
    (
        DeliverySender {
            classes: [alarm.0, normal.0, bulk.0],
            told,
        },
        DeliveryReceiver {
            classes: [alarm.1, normal.1, bulk.1],
            tellings,
        },
    )
}

/// The trunk's end.
pub(crate) struct DeliverySender {
    classes: [mpsc::Sender<Delivery>; 3],
    /// One for each delivery in `classes`, sent after it; bounded as they are.
    told: mpsc::UnboundedSender<()>,
}

impl DeliverySender {
    /// Puts a delivery behind those of its class.
    ///
    /// # Errors
    /// Gives it back if there is no room, or the sink has ended.
    pub(crate) fn try_send(&self, delivery: Delivery) -> Result<(), TrySendError<Delivery>> {
        let [alarm, normal, bulk] = &self.classes;
        let class = match delivery.source().class {
            Class::Alarm => alarm,
            Class::Normal => normal,
            Class::Bulk => bulk,
        };
        class.try_send(delivery)?;
        // A receiver that has gone meanwhile wants neither.
        let _ = self.told.send(());
        Ok(())
    }
}

/// The sink's end.
pub(crate) struct DeliveryReceiver {
    classes: [mpsc::Receiver<Delivery>; 3],
    tellings: mpsc::UnboundedReceiver<()>,
}

impl DeliveryReceiver {
    /// Waits for a delivery; `None` when there will be none any more. Nothing is lost if the wait is given up.
    pub(crate) async fn recv(&mut self) -> Option<Delivery> {
        self.tellings.recv().await?;
        self.most_urgent()
    }

    /// Waits for deliveries and takes up to `limit` of them; returns how many, 0 when there will be none any more.
    pub(crate) async fn recv_many(&mut self, taken: &mut Vec<Delivery>, limit: usize) -> usize {
        let before = taken.len();
        taken.extend(self.recv().await);
        while (1..limit).contains(&(taken.len() - before))
            && let Ok(more) = self.try_recv()
        {
            taken.push(more);
        }
        taken.len() - before
    }

    /// The same as [`recv`](Self::recv) on a thread of its own.
    pub(crate) fn blocking_recv(&mut self) -> Option<Delivery> {
        self.tellings.blocking_recv()?;
        self.most_urgent()
    }

    /// Takes a delivery if there is one.
    ///
    /// # Errors
    /// If there is none for now, or there will be none any more.
    pub(crate) fn try_recv(&mut self) -> Result<Delivery, TryRecvError> {
        self.tellings.try_recv()?;
        self.most_urgent().ok_or(TryRecvError::Empty)
    }

    /// Returns whether the trunk's end has gone.
    pub(crate) fn is_closed(&self) -> bool {
        self.tellings.is_closed()
    }

    fn most_urgent(&mut self) -> Option<Delivery> {
        self.classes.iter_mut().find_map(|class| class.try_recv().ok())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use fieldgate_proto::identity::Identifier;

    use super::*;
    use crate::sinks::{Batch, Source};

    fn delivery(class: Class, first: u64) -> Delivery {
        Delivery::Readings(Arc::new(Batch {
            source: Arc::new(Source {
                index: u32::from(class.code()),
                gateway: Identifier::from_bytes([1; 32]),
                name: "a".to_owned(),
                journal: [class.code(); 16],
                class,
                path: Vec::new(),
            }),
            first,
            count: 1,
            readings: Vec::new(),
            seal: None,
        }))
    }

    fn seen(delivery: &Delivery) -> (Class, u64) {
        (delivery.source().class, delivery.first())
    }

    #[test]
    fn alarms_overtake_and_each_class_stays_in_order() {
        let (sender, mut receiver) = queue(2);
        for (class, first) in [
            (Class::Bulk, 1),
            (Class::Normal, 1),
            (Class::Normal, 2),
            (Class::Alarm, 1),
            (Class::Bulk, 2),
            (Class::Alarm, 2),
        ] {
            sender.try_send(delivery(class, first)).unwrap();
        }
        let full = sender.try_send(delivery(Class::Alarm, 3));
        assert!(matches!(full, Err(TrySendError::Full(_))));
        assert_eq!(seen(&receiver.blocking_recv().unwrap()), (Class::Alarm, 1));
        sender.try_send(delivery(Class::Alarm, 3)).unwrap();
        let rest = std::iter::from_fn(|| receiver.try_recv().ok());
        let rest: Vec<_> = rest.map(|delivery| seen(&delivery)).collect();
        let wanted = [
            (Class::Alarm, 2),
            (Class::Alarm, 3),
            (Class::Normal, 1),
            (Class::Normal, 2),
            (Class::Bulk, 1),
            (Class::Bulk, 2),
        ];
        assert_eq!(rest, wanted);
        assert!(!receiver.is_closed());
        assert!(matches!(receiver.try_recv(), Err(TryRecvError::Empty)));
    }

    #[tokio::test]
    async fn what_was_sent_before_the_end_is_still_taken() {
        let (sender, mut receiver) = queue(4);
        for first in 1..=3 {
            sender.try_send(delivery(Class::Normal, first)).unwrap();
        }
        drop(sender);
        assert!(receiver.is_closed());
        let mut taken = Vec::new();
        assert_eq!(receiver.recv_many(&mut taken, 2).await, 2);
        assert_eq!(receiver.recv_many(&mut taken, 2).await, 1);
        assert_eq!(receiver.recv_many(&mut taken, 2).await, 0);
        assert!(receiver.recv().await.is_none());
        assert_eq!(taken.iter().map(Delivery::first).collect::<Vec<_>>(), [1, 2, 3]);
    }

    #[test]
    fn a_sink_that_has_ended_gives_back() {
        let (sender, receiver) = queue(1);
        drop(receiver);
        let refused = sender.try_send(delivery(Class::Alarm, 1));
        assert!(matches!(refused, Err(TrySendError::Closed(_))));
    }
}
