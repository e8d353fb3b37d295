//! The stamps of records that were written by a clock that nobody vouched for.

use super::Log;
use crate::clock::Stamp;
use crate::wal::Record;

impl Log {
    /// Shows the records on disk, oldest first, with their stamps where they are held. What can't be read ends it.
    pub(in crate::pipeline) fn scan_stamps(&self, mut each: impl FnMut(&Record, Option<Stamp>)) {
        let (mut at, mut payload) = (0, Vec::new());
        while let Some(Ok(Some(record))) = self.with(|wal| wal.scan(at, &mut payload)) {
            let stamp = Stamp::split(&payload).filter(|_| record.time().is_none());
            // A held record without a stamp is damaged, and says nothing.
            let is_odd = record.time().is_none() && stamp.is_none();
            if !is_odd {
                each(&record, stamp.map(|(stamp, _)| stamp));
            }
            at = record.next;
        }
    }
}
