//! When which shard's messages may be acknowledged.

use std::collections::VecDeque;

/// What a shard's messages wait for, in their order.
///
/// A receipt is for all messages up to its ticket. It is due when the journal has committed what they became there, the store
/// has the batch that broker and sessions need, and nothing of it waits for room in the journal.
#[derive(Debug, Default)]
pub(super) struct Receipts {
    waiting: VecDeque<Receipt>,
}

/// What the messages up to a ticket wait for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Receipt {
    /// The shard's ticket.
    pub(super) ticket: u64,
    /// The journal's, 0 if they are in no journal.
    pub(super) journal: u64,
    /// The store's batch, 0 if they need none.
    pub(super) batch: u64,
    /// Messages that wait for room in the journal.
    pub(super) parked: u32,
}

impl Receipts {
    /// Adds what later messages wait for.
    pub(super) fn push(&mut self, receipt: Receipt) {
        self.waiting.push_back(receipt);
    }

    /// Adds what messages wait for to the last receipt, if that is `of` the same turn.
    pub(super) fn join(&mut self, receipt: Receipt, is_same_turn: bool) {
        match self.waiting.back_mut().filter(|_| is_same_turn) {
            Some(last) => {
                last.ticket = receipt.ticket;
                last.journal = last.journal.max(receipt.journal);
                last.batch = last.batch.max(receipt.batch);
                last.parked += receipt.parked;
            }
            None => self.push(receipt),
        }
    }

    /// A parked message of the receipt that `ticket` belongs to has found room.
    pub(super) fn unpark(&mut self, ticket: u64, journal: u64) {
        // What came later in the same turn may have joined it.
        if let Some(receipt) = self.waiting.iter_mut().find(|receipt| receipt.ticket >= ticket) {
            receipt.parked -= 1;
            receipt.journal = receipt.journal.max(journal);
        }
    }

    /// Returns the highest ticket that has become due.
    pub(super) fn settle(&mut self, committed: u64, stored: u64) -> Option<u64> {
        let is_due = |receipt: &mut Receipt| {
            receipt.journal <= committed && receipt.batch <= stored && receipt.parked == 0
        };
        let mut due = None;
        while let Some(receipt) = self.waiting.pop_front_if(is_due) {
            due = Some(receipt.ticket);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receipt(ticket: u64, journal: u64, batch: u64, parked: u32) -> Receipt {
        Receipt {
            ticket,
            journal,
            batch,
            parked,
        }
    }

    #[test]
    fn a_ticket_is_due_when_everything_before_it_is() {
        let mut receipts = Receipts::default();
        receipts.push(receipt(3, 10, 0, 0));
        receipts.push(receipt(5, 0, 2, 0));
        receipts.push(receipt(6, 11, 1, 1));
        receipts.push(receipt(7, 0, 0, 0));
        assert_eq!(receipts.settle(9, 9), None);
        assert_eq!(receipts.settle(10, 1), Some(3));
        assert_eq!(receipts.settle(20, 2), Some(5));
        assert_eq!(receipts.settle(20, 2), None, "parked");
        receipts.unpark(6, 21);
        assert_eq!(receipts.settle(20, 2), None);
        assert_eq!(receipts.settle(21, 2), Some(7));
        assert!(receipts.waiting.is_empty());
    }

    #[test]
    fn messages_of_one_turn_share_a_receipt() {
        let mut receipts = Receipts::default();
        receipts.join(receipt(1, 5, 0, 0), false);
        receipts.join(receipt(2, 0, 3, 0), true);
        assert_eq!(receipts.settle(5, 2), None);
        receipts.join(receipt(3, 6, 0, 0), false);
        assert_eq!(receipts.settle(5, 3), Some(2));
        assert_eq!(receipts.settle(6, 3), Some(3));
        // One that is parked is found by its own ticket, although others have joined it.
        receipts.join(receipt(4, 0, 0, 1), false);
        receipts.join(receipt(5, 0, 0, 1), true);
        receipts.join(receipt(6, 0, 0, 0), true);
        receipts.unpark(4, 7);
        assert_eq!(receipts.settle(9, 3), None);
        receipts.unpark(5, 8);
        assert_eq!(receipts.settle(7, 3), None);
        assert_eq!(receipts.settle(8, 3), Some(6));
    }
}
