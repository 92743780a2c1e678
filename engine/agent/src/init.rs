//! The agent's way to init: one bounded set of connections for all who ask.
//!
//! Init has a fixed number of places. Whatever of the agent wants to know something takes one of fewer than those, so that no
//! caller, and no number of them, can keep the next question from init. Streams, which last, have a share of their own.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use keel_control::{Control, ControlError, ControlErrorKind};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

/// Questions that init is asked at one moment; the others wait their turn.
const QUESTIONS: usize = 20;

/// Streams that are read from init at one moment; the others wait.
const STREAMS: usize = 36;

/// Connections that are kept for the next question: a greeting costs more than most answers.
const KEPT: usize = 4;

/// How long one is kept. Init hangs up on who says nothing for twice as long.
const KEEP: Duration = Duration::from_secs(30);

// With some to spare, for whoever is not the agent and for connections of it that init has not seen the end of.
const _: () = assert!(QUESTIONS + STREAMS <= 60);

/// The way to init.
#[derive(Debug)]
pub(crate) struct Init {
    socket: PathBuf,
    questions: Arc<Semaphore>,
    streams: Arc<Semaphore>,
    /// Connections that answered, and when; the newest last. Only who has a place among the questions takes one or puts one back, so
    /// these and those in use are never more than there are places.
    kept: Mutex<Vec<(Control, Instant)>>,
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
            kept: Mutex::default(),
        })
    }

    /// Asks something. Nobody else asks on that connection meanwhile, and one on which something went wrong is not used again.
    pub(crate) async fn ask<T>(
        &self,
        question: impl AsyncFnOnce(&mut Control) -> Result<T, ControlError>,
    ) -> Result<T, ControlError> {
        let _place = self.place(&self.questions).await?;
        let mut control = match self.take_kept() {
            Some(control) => control,
            None => Control::connect(&self.socket).await?,
        };
        let answer = question(&mut control).await;
        let in_step = match &answer {
            Ok(_) => true,
            Err(error) => matches!(error.kind, ControlErrorKind::Refused(_)),
        };
        if in_step {
            self.keep(control);
        }
        answer
    }

    fn take_kept(&self) -> Option<Control> {
        let mut kept = self.kept();
        kept.retain(|(control, since)| since.elapsed() < KEEP && control.is_quiet());
        kept.pop().map(|(control, _)| control)
    }

    fn keep(&self, control: Control) {
        let mut kept = self.kept();
        if kept.len() < KEPT {
            kept.push((control, Instant::now()));
        }
    }

    fn kept(&self) -> MutexGuard<'_, Vec<(Control, Instant)>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection to follow something on.
    pub(crate) async fn follow(&self) -> Result<Line, ControlError> {
        self.line(&self.streams).await
    }

    async fn line(&self, places: &Arc<Semaphore>) -> Result<Line, ControlError> {
        let place = self.place(places).await?;
        Ok(Line { control: Control::connect(&self.socket).await?, place })
    }

    async fn place(&self, places: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, ControlError> {
        let full = |_| ControlError { path: self.socket.clone(), kind: ControlErrorKind::NoRoom };
        places.clone().acquire_owned().await.map_err(full)
    }
}

#[cfg(test)]
mod tests {
    use keel_control::{
        BootRecord, ConnectionError, EventLog, Inventory, Limits, LogQuery, LogSource, Refusal,
        RefusalKind, Service, Shutdown, Status, UnitDetail, UnitList,
    };
    use tokio::net::UnixListener;
    use tokio::time::timeout;

    use super::*;

    /// An init that has no unit, and refuses to say anything else.
    struct Empty(EventLog);

    fn stopping<T>() -> Result<T, Refusal> {
        Err(RefusalKind::Stopping.into())
    }

    impl Service for Empty {
        async fn status(&self) -> Result<Status, Refusal> {
            stopping()
        }

        async fn units(&self) -> Result<UnitList, Refusal> {
            Ok(UnitList { now_ms: 0, units: vec![] })
        }

        async fn inventory(&self) -> Result<Inventory, Refusal> {
            stopping()
        }

        async fn unit(&self, _: String) -> Result<UnitDetail, Refusal> {
            stopping()
        }

        fn events(&self) -> &EventLog {
            &self.0
        }

        fn logs(&self, _: &LogQuery) -> Result<Box<dyn LogSource>, Refusal> {
            stopping()
        }

        async fn boot(&self) -> Result<BootRecord, Refusal> {
            stopping()
        }

        async fn trace(&self) -> Result<Vec<u8>, Refusal> {
            stopping()
        }

        async fn shutdown(&self, _: Shutdown) -> Result<(), Refusal> {
            stopping()
        }

        fn connection_failed(&self, error: &ConnectionError) {
            panic!("{error}");
        }
    }

    #[tokio::test]
    async fn a_line_serves_many_questions_and_none_is_lost_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("control.sock");
        let serve = |socket: &std::path::Path| {
            let listener = keel_control::bind(socket).unwrap();
            let limits = Limits { connections: 1, ..Limits::default() };
            tokio::spawn(keel_control::serve(listener, Arc::new(Empty(EventLog::new(1))), limits))
        };
        let server = serve(&socket);
        let init = Init::new(socket.clone());
        // There is room for one connection: were there a second, it would be turned away.
        for _ in 0..100 {
            assert_eq!(init.ask(Control::units).await.unwrap().units, []);
            let refused = init.ask(Control::status).await.unwrap_err();
            assert!(matches!(refused.kind, ControlErrorKind::Refused(_)), "{refused:?}");
        }
        // A question that nobody waits for takes its line with it.
        let asked = init.ask(async |control| {
            control.units().await?;
            std::future::pending::<Result<(), ControlError>>().await
        });
        assert!(timeout(Duration::from_millis(1), asked).await.is_err());
        assert!(init.kept().is_empty());
        let again = async {
            loop {
                // The place is free once init has seen that the line is gone.
                match init.ask(Control::units).await {
                    Err(error) if matches!(error.kind, ControlErrorKind::NoRoom) => {
                        tokio::task::yield_now().await
                    }
                    answer => break answer,
                }
            }
        };
        timeout(Duration::from_secs(10), again).await.unwrap().unwrap();
        assert_eq!(init.kept().len(), 1);
        // An init that is another one: the kept line is dead, and that is seen before a question is lost on it.
        server.abort();
        assert!(server.await.unwrap_err().is_cancelled());
        std::fs::remove_file(&socket).unwrap();
        let _server = serve(&socket);
        init.ask(Control::units).await.unwrap();
    }

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
