//! The steps of a server's script: each takes the place of the answer to one request.

use std::time::Duration;

use super::message::Response;

/// What is sent back.
#[derive(Clone, Debug)]
pub enum Reply {
    /// The service's own answer.
    Own,
    Answer(Response),
    /// Not a byte.
    Close,
    /// A head that announces a body, and not a byte of it.
    CloseAfterHead(u16),
    /// Not a byte, and the connection stays.
    Never,
    /// A body without end.
    EndlessBody(u16),
    /// A head without end.
    EndlessHead,
    /// These bytes, then close.
    Garbage(Vec<u8>),
}

/// One step of a server's script: it takes the place of the answer to one request.
#[derive(Clone, Debug)]
pub struct Fault {
    pub(super) accept: bool,
    pub(super) early: bool,
    pub(super) close: bool,
    pub(super) delay: Duration,
    pub(super) late: Duration,
    pub(super) reply: Reply,
}

impl Fault {
    pub(super) fn of(reply: Reply) -> Fault {
        let (delay, late) = (Duration::ZERO, Duration::ZERO);
        Fault { accept: false, early: false, close: false, delay, late, reply }
    }

    /// Answers so instead of accepting.
    pub fn status(code: u16) -> Fault {
        Fault::of(Reply::Answer(Response::new(code, "")))
    }

    /// Adds a header to [`status`](Fault::status).
    pub fn header(mut self, name: &str, value: &str) -> Fault {
        if let Reply::Answer(response) = &mut self.reply {
            response.headers.push((name.into(), value.into()));
        }
        self
    }

    /// Sets the body of [`status`](Fault::status).
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Fault {
        if let Reply::Answer(response) = &mut self.reply {
            response.body = body.into();
        }
        self
    }

    /// Reads the request and closes without a byte.
    pub fn close() -> Fault {
        Fault::of(Reply::Close)
    }

    /// Sends a head and closes without the body that it announces.
    pub fn close_after_head(code: u16) -> Fault {
        Fault::of(Reply::CloseAfterHead(code))
    }

    /// Says nothing until the client gives up or the server stops.
    pub fn never() -> Fault {
        Fault::of(Reply::Never)
    }

    /// Sends a body until the client closes.
    pub fn endless_body(code: u16) -> Fault {
        Fault::of(Reply::EndlessBody(code))
    }

    /// Sends headers until the client closes.
    pub fn endless_head() -> Fault {
        Fault::of(Reply::EndlessHead)
    }

    /// Sends these bytes and closes.
    pub fn garbage(bytes: impl Into<Vec<u8>>) -> Fault {
        Fault::of(Reply::Garbage(bytes.into()))
    }

    /// Stores what the request holds, and closes without a byte.
    pub fn accept_then_lose_answer() -> Fault {
        Fault::close().accepting()
    }

    /// Answers well, after this long.
    pub fn slow(delay: Duration) -> Fault {
        Fault { delay, ..Fault::of(Reply::Own).accepting() }
    }

    /// Stores at once, and answers well after this long.
    pub fn slow_answer(late: Duration) -> Fault {
        Fault { late, ..Fault::of(Reply::Own).accepting() }
    }

    /// Stores what the request holds all the same.
    pub fn accepting(mut self) -> Fault {
        self.accept = true;
        self
    }

    /// Waits before it answers.
    pub fn after(mut self, delay: Duration) -> Fault {
        self.delay = delay;
        self
    }

    /// Answers once the head is read, before the body.
    pub fn early(mut self) -> Fault {
        self.early = true;
        self
    }

    /// Closes the connection after the answer, without having said so.
    pub fn then_close(mut self) -> Fault {
        self.close = true;
        self
    }
}
