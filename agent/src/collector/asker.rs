//! Calls that can hang, made by threads of their own: whoever asks a dead mount or a disk that has gone
//! waits as long as the kernel likes.
//!
//! One thread does the asking. When a call doesn't return in time, its thread stays with it, another takes
//! over for the other subjects, and this one is not asked again until the call has returned; its late
//! answer is handed out at the begin of a later collection. When [`MAX_STUCK_A_KIND`] calls of one kind hang
//! so, no other of this kind is made until one of them returns: a server with many mounts must not hide
//! this machine's disks. [`MAX_STUCK`] bounds all. Idle threads wait without waking. It must not know what
//! is asked.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender, TryRecvError};
use std::thread;
use std::time::{Duration, Instant};

/// How many calls of one asker's may hang at the same time, each with a thread.
pub(super) const MAX_STUCK: usize = 4 * MAX_STUCK_A_KIND;
/// How many of them may be of one kind.
pub(super) const MAX_STUCK_A_KIND: usize = 8;

/// Of a thread, unless told otherwise: a system call, its buffers and a channel need a few KiB of it.
const STACK: usize = 64 << 10;

/// What a subject still gets in a collection whose time is used up: far more than a live one needs.
const GRACE: Duration = Duration::from_millis(100);

/// A call that may block. What it takes is what it gives back, with the answer in it.
pub(super) type Call<R> = Arc<dyn Fn(&mut R) + Send + Sync>;

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Unanswered {
    /// The call has not returned yet.
    Stuck,
    /// Too many others have not returned yet.
    Full,
    /// There is no thread to ask with.
    NoThread(io::Error),
}

struct Worker<R> {
    requests: SyncSender<R>,
    answers: Receiver<R>,
}

struct Stuck<R> {
    key: Vec<u8>,
    kind: String,
    worker: Worker<R>,
}

/// Asks one subject after the other.
pub(super) struct Asker<R> {
    /// The threads' name.
    name: &'static str,
    call: Call<R>,
    timeout: Duration,
    stack: usize,
    worker: Option<Worker<R>>,
    stuck: Vec<Stuck<R>>,
}

/// The time that the subjects of one collection have left.
#[derive(Clone, Copy)]
pub(super) struct Patience(Instant);

impl<R: Send + 'static> Asker<R> {
    pub(super) fn new(name: &'static str, call: Call<R>, timeout: Duration) -> Asker<R> {
        Asker::with_stack(name, call, timeout, STACK)
    }

    /// As [`new`](Asker::new), for calls that need another stack.
    pub(super) fn with_stack(
        name: &'static str,
        call: Call<R>,
        timeout: Duration,
        stack: usize,
    ) -> Asker<R> {
        Asker { name, call, timeout, stack, worker: None, stuck: Vec::new() }
    }

    /// Begins a collection: takes back the threads whose calls have returned, and gives out their answers.
    pub(super) fn begin(&mut self, mut late: impl FnMut(R)) -> Patience {
        let mut index = 0;
        while let Some(stuck) = self.stuck.get(index) {
            let answer = stuck.worker.answers.try_recv();
            if matches!(answer, Err(TryRecvError::Empty)) {
                index += 1;
                continue;
            }
            let freed = self.stuck.swap_remove(index);
            if let Ok(answer) = answer {
                late(answer);
                // A second thread is not needed.
                self.worker.get_or_insert(freed.worker);
            }
        }
        Patience(Instant::now() + self.timeout)
    }

    /// How many calls have not returned yet.
    pub(super) fn stuck(&self) -> usize {
        self.stuck.len()
    }

    /// Asks the subject with this key. The request is made only if there is somebody to take it.
    pub(super) fn ask(
        &mut self,
        key: &[u8],
        kind: &str,
        patience: Patience,
        request: impl FnOnce() -> R,
    ) -> Result<R, Unanswered> {
        if self.stuck.iter().any(|stuck| stuck.key == key) {
            return Err(Unanswered::Stuck);
        }
        let alike = self.stuck.iter().filter(|stuck| stuck.kind == kind).count();
        if alike >= MAX_STUCK_A_KIND || self.stuck.len() >= MAX_STUCK {
            return Err(Unanswered::Full);
        }
        let worker = match self.worker.take() {
            Some(worker) => worker,
            None => Worker::start(self.name, self.stack, Arc::clone(&self.call))
                .map_err(Unanswered::NoThread)?,
        };
        let gone = || Unanswered::NoThread(io::Error::other("the thread that asks has ended"));
        worker.requests.send(request()).map_err(|_| gone())?;
        let left = patience.0.saturating_duration_since(Instant::now()).max(GRACE);
        match worker.answers.recv_timeout(left) {
            Ok(answer) => {
                self.worker = Some(worker);
                Ok(answer)
            }
            Err(RecvTimeoutError::Timeout) => {
                self.stuck.push(Stuck { key: key.to_vec(), kind: kind.to_owned(), worker });
                Err(Unanswered::Stuck)
            }
            Err(RecvTimeoutError::Disconnected) => Err(gone()),
        }
    }
}

impl<R: Send + 'static> Worker<R> {
    fn start(name: &str, stack: usize, call: Call<R>) -> io::Result<Worker<R>> {
        // One is under way at most, so that nobody waits to send; a channel without a bound would allocate
        // now and then.
        let (requests, asked) = mpsc::sync_channel::<R>(1);
        let (answer, answers) = mpsc::sync_channel(1);
        // The thread ends when `requests` is dropped, or after its last call if that one hangs.
        thread::Builder::new().name(name.into()).stack_size(stack).spawn(move || {
            for mut request in asked {
                call(&mut request);
                if answer.send(request).is_err() {
                    return;
                }
            }
        })?;
        // A thread's first wait allocates what its later ones use again: not in some later round.
        let _ = answers.recv_timeout(Duration::from_millis(1));
        Ok(Worker { requests, answers })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn a_late_answer_is_given_out_once_and_its_thread_goes_on() {
        let (open, gate) = mpsc::channel::<()>();
        let gate = Mutex::new(gate);
        let call: Call<u32> = Arc::new(move |number| {
            if *number == 1 {
                let _ = gate.lock().unwrap().recv();
            }
            *number += 10;
        });
        let mut asker = Asker::new("mote-test", call, Duration::ZERO);
        let patience = asker.begin(|_| panic!("nothing was asked"));
        assert!(matches!(asker.ask(b"slow", "x", patience, || 1), Err(Unanswered::Stuck)));
        assert_eq!(asker.ask(b"fast", "x", patience, || 2).unwrap(), 12);
        let not_made = || panic!("a request for nobody");
        assert!(matches!(asker.ask(b"slow", "x", patience, not_made), Err(Unanswered::Stuck)));
        open.send(()).unwrap();
        let (deadline, mut late) = (Instant::now() + Duration::from_secs(60), Vec::new());
        while asker.stuck() > 0 {
            assert!(Instant::now() < deadline, "the call returned and was not noticed");
            asker.begin(|answer| late.push(answer));
            thread::yield_now();
        }
        let patience = asker.begin(|answer| late.push(answer));
        assert_eq!(late, [11]);
        assert_eq!(asker.ask(b"slow", "x", patience, || 3).unwrap(), 13);
    }
}
