//! One answer for all who ask the same at one time.
//!
//! Who asks while a question is on its way waits for the next one, together with all others who do: so an answer is never older than
//! the moment at which somebody asked, and a hundred callers cost no more than two questions.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// A question that many may ask.
#[derive(Debug)]
pub(crate) struct Together<T> {
    turn: tokio::sync::Mutex<()>,
    last: Mutex<Last<T>>,
}

/// The last question.
#[derive(Debug)]
struct Last<T> {
    /// How many have begun.
    begun: u64,
    /// The last that was answered, and its answer.
    answer: Option<(u64, T)>,
}

impl<T: Clone> Together<T> {
    pub(crate) fn new() -> Self {
        Self {
            turn: tokio::sync::Mutex::default(),
            last: Mutex::new(Last { begun: 0, answer: None }),
        }
    }

    /// Asks, unless another has begun to since this call began. One that is dropped on its way leaves its turn to the next.
    pub(crate) async fn ask(&self, question: impl AsyncFnOnce() -> T) -> T {
        let before = self.last().begun;
        let _turn = self.turn.lock().await;
        let number = {
            let mut last = self.last();
            if let Some((number, answer)) = &last.answer
                && *number > before
            {
                return answer.clone();
            }
            last.begun += 1;
            last.begun
        };
        let answer = question().await;
        self.last().answer = Some((number, answer.clone()));
        answer
    }

    fn last(&self) -> MutexGuard<'_, Last<T>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use tokio::sync::Semaphore;

    use super::*;

    fn poll<T>(asked: std::pin::Pin<&mut impl Future<Output = T>>) -> Option<T> {
        match asked.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(answer) => Some(answer),
            Poll::Pending => None,
        }
    }

    #[test]
    fn no_answer_is_older_than_who_asked() {
        let (together, asked, answers) = (Together::new(), Cell::new(0), Semaphore::new(0));
        let ask = || {
            together.ask(async || {
                asked.set(asked.get() + 1);
                let number = asked.get();
                answers.acquire().await.unwrap().forget();
                number
            })
        };
        let (mut one, mut two, mut three) = (pin!(ask()), pin!(ask()), pin!(ask()));
        assert_eq!(poll(one.as_mut()), None);
        assert_eq!(poll(two.as_mut()), None);
        assert_eq!(poll(three.as_mut()), None);
        assert_eq!(asked.get(), 1);
        answers.add_permits(1);
        assert_eq!(poll(one.as_mut()), Some(1));
        // They came when the first was on its way, so they have one of their own, the two of them.
        assert_eq!((poll(two.as_mut()), poll(three.as_mut()), asked.get()), (None, None, 2));
        answers.add_permits(1);
        assert_eq!((poll(two.as_mut()), poll(three.as_mut())), (Some(2), Some(2)));
        assert_eq!(asked.get(), 2);
    }

    #[test]
    fn who_leaves_leaves_the_turn_to_the_next() {
        let (together, answers) = (Together::new(), Semaphore::new(0));
        let (together, answers) = (&together, &answers);
        let ask = |number| {
            together.ask(async move || {
                answers.acquire().await.unwrap().forget();
                number
            })
        };
        let mut two = pin!(ask(2));
        {
            let mut one = pin!(ask(1));
            assert_eq!(poll(one.as_mut()), None);
            assert_eq!(poll(two.as_mut()), None);
        }
        answers.add_permits(1);
        assert_eq!(poll(two.as_mut()), Some(2));
    }
}
