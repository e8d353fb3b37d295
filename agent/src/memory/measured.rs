//! A task whose memory is a part's.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use super::{Budget, Part};

/// A future during whose polls what is allocated and freed counts to a part.
#[derive(Debug)]
pub struct Measured<F> {
    budget: Rc<Budget>,
    part: Part,
    /// None once it is dropped.
    future: Option<Pin<Box<F>>>,
}

impl<F> Drop for Measured<F> {
    fn drop(&mut self) {
        let _scope = self.budget.scope(self.part);
        self.future = None;
    }
}

impl<F: Future> Measured<F> {
    /// The future itself, which is moved to the heap, is the part's too.
    pub fn new(budget: &Rc<Budget>, part: Part, future: F) -> Measured<F> {
        let budget = Rc::clone(budget);
        let future = {
            let _scope = budget.scope(part);
            Some(Box::pin(future))
        };
        Measured { budget, part, future }
    }
}

impl<F: Future> Future for Measured<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let Measured { budget, part, future } = &mut *self;
        let _scope = budget.scope(*part);
        match future {
            Some(future) => future.as_mut().poll(context),
            None => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::future::poll_fn;

    thread_local!(static LIVE: Cell<u64> = const { Cell::new(0) });

    struct Held(u64);

    impl Drop for Held {
        fn drop(&mut self) {
            LIVE.set(LIVE.get() - self.0);
        }
    }

    #[test]
    fn what_a_task_leaves_behind_is_freed_as_its_parts() {
        LIVE.set(500);
        let budget = Rc::new(Budget::measuring(1 << 20, || LIVE.get()));
        let held = Held(500);
        let task = Measured::new(&budget, Part::Logs, async move {
            let _held = held;
            std::future::pending::<()>().await
        });
        drop(task);
        let live = |part| budget.uses().find(|one| one.part == part).map(|one| one.live);
        assert_eq!((live(Part::Logs), live(Part::Other)), (Some(-500), Some(500)));
    }

    #[test]
    fn what_a_task_allocates_is_its_parts() {
        let budget = Rc::new(Budget::measuring(1 << 20, || LIVE.get()));
        let grow = |bytes: i64| LIVE.set(LIVE.get().saturating_add_signed(bytes));
        let mut polls = 0;
        let task = poll_fn(move |_| {
            polls += 1;
            grow(1_000);
            if polls == 2 { Poll::Ready(()) } else { Poll::Pending }
        });
        let mut task = std::pin::pin!(Measured::new(&budget, Part::Logs, task));
        let mut context = Context::from_waker(std::task::Waker::noop());
        assert!(task.as_mut().poll(&mut context).is_pending());
        // Between its polls it is somebody else's.
        grow(50);
        assert!(task.as_mut().poll(&mut context).is_ready());
        let live = |part| budget.uses().find(|one| one.part == part).map(|one| one.live);
        assert_eq!((live(Part::Logs), live(Part::Other)), (Some(2_000), Some(50)));
    }
}
