//! The agent's way to init: one bounded set of connections for all who ask.
//!
//! Init has a fixed number of places. Whatever of the agent wants to know something takes one of fewer than those, so that no
//! caller, and no number of them, can keep the next question from init. Streams, which last, have a share of their own.

use std::path::PathBuf;
use std::sync::Arc;

use keel_control::{Control, ControlError, ControlErrorKind};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Questions that init is asked at one moment; the others wait their turn.
const QUESTIONS: usize = 20;

/// Streams that are read from init at one moment; the others wait.
const STREAMS: usize = 36;

// With some to spare, for whoever is not the agent and for connections of it that init has not seen the end of.
const _: () = assert!(QUESTIONS + STREAMS <= 60);

/// The way to init.
#[derive(Debug)]
pub(crate) struct Init {
    socket: PathBuf,
    questions: Arc<Semaphore>,
    streams: Arc<Semaphore>,
}

/// A connection that lasts, and its place.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) control: Control,
    /// Given back when nobody reads from it any more.
    pub(crate) place: OwnedSemaphorePermit,
}

impl Init {
    /// To the init that listens there.
    pub(crate) fn new(socket: PathBuf) -> Arc<Self> {
        Arc::new(Self {
            socket,
            questions: Arc::new(Semaphore::new(QUESTIONS)),
            streams: Arc::new(Semaphore::new(STREAMS)),
        })
    }

    /// Asks something, on a connection of its own: there is none to lose, so none to mend.
    pub(crate) async fn ask<T>(
        &self,
        question: impl AsyncFnOnce(&mut Control) -> Result<T, ControlError>,
    ) -> Result<T, ControlError> {
        let mut line = self.line(&self.questions).await?;
        question(&mut line.control).await
    }

    /// A connection to follow something on.
    pub(crate) async fn follow(&self) -> Result<Line, ControlError> {
        self.line(&self.streams).await
    }

    async fn line(&self, places: &Arc<Semaphore>) -> Result<Line, ControlError> {
        let full = |_| ControlError { path: self.socket.clone(), kind: ControlErrorKind::NoRoom };
        let place = places.clone().acquire_owned().await.map_err(full)?;
        Ok(Line { control: Control::connect(&self.socket).await?, place })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::net::UnixListener;
    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn init_keeps_places_whatever_is_asked() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("control.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let init = Init::new(socket);
        for _ in 0..200 {
            let (asks, follows) = (init.clone(), init.clone());
            tokio::spawn(async move { asks.ask(Control::status).await.map(drop) });
            tokio::spawn(async move { follows.follow().await.map(drop) });
        }
        // An init that takes connections and says nothing.
        let mut taken = Vec::new();
        while taken.len() < QUESTIONS + STREAMS {
            taken.push(listener.accept().await.unwrap());
        }
        let next = |wait| timeout(wait, listener.accept());
        assert!(next(Duration::ZERO).await.is_err(), "one more than there may be");
        let init_has = keel_control::Limits::default().connections;
        assert!(taken.len() < init_has, "{} of {init_has}", taken.len());
        // Where one ends, the next comes.
        taken.pop();
        taken.push(next(Duration::from_secs(5)).await.unwrap().unwrap());
        assert!(next(Duration::ZERO).await.is_err());
    }
}
