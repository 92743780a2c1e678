//! `osctl dashboard`: a node in the terminal. `model.rs` is what it knows, `view.rs` how that looks, `source.rs` who asks the node; this
//! file ties them to a terminal.

mod lists;
mod model;
mod source;
mod view;

#[cfg(test)]
mod tests;

use std::io::{self, IsTerminal as _};
use std::thread;
use std::time::{Duration, Instant};

use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

use self::model::{Key, Message, Model};
use self::source::Source;
use crate::cli::NodeArgs;
use crate::error::{Exit, Failure};
use crate::node;
use crate::output::Output;

/// How often the clock is looked at.
const TICK: Duration = Duration::from_millis(250);

/// The most messages that wait to be taken in.
const WAITING: usize = 256;

/// Four pages: the boot by its stages, the units by state with a log, processor and memory, events. Keys are those of k9s and less; `?`
/// shows them. Starting, restarting and stopping a unit shows what would happen, and asks.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  osctl --endpoint 192.0.2.10 dashboard
  osctl --keel-context prod dashboard")]
pub(crate) struct Args {}

pub(crate) fn run(_: &Args, node: &NodeArgs, out: &mut Output) -> Result<Exit, Failure> {
    if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        return Err(Failure::usage("the dashboard needs a terminal")
            .next("`osctl status --watch` and `osctl events --follow` do without one"));
    }
    let colour = out.palette().has_colour();
    node::ask(async {
        // What is wrong with the node or our papers is said before the screen is taken.
        let target = node::one(node, out)?;
        let (connection, remark) = node::open(&target).await?;
        remark.into_iter().for_each(|remark| out.notice(&remark));
        let model = Model::new(target.endpoint.to_string(), colour);
        let (answers, messages) = mpsc::channel(WAITING);
        let source = Source::new(Some(target), connection, answers.clone());
        listen(answers)?;
        let terminal = ratatui::try_init().map_err(broken)?;
        let ended = show(terminal, model, &source, messages).await;
        ratatui::restore();
        ended.map(|()| Exit::Clean)
    })
}

fn broken(source: io::Error) -> Failure {
    Failure::new("cannot use the terminal")
        .because(source)
        .next("`osctl status --watch` does without one")
}

/// Draws after each message, until the model has enough.
async fn show(
    mut terminal: DefaultTerminal,
    mut model: Model,
    source: &Source,
    mut messages: mpsc::Receiver<Message>,
) -> Result<(), Failure> {
    let start = Instant::now();
    let mut clock = interval(TICK);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !model.quit {
        let message = tokio::select! {
            Some(message) = messages.recv() => message,
            _ = clock.tick() => Message::Clock(start.elapsed()),
        };
        model.update(message).into_iter().for_each(|question| source.ask(question));
        // A burst of events is one drawing.
        while let Ok(message) = messages.try_recv() {
            model.update(message).into_iter().for_each(|question| source.ask(question));
        }
        terminal.draw(|frame| view::draw(&model, frame)).map_err(broken)?;
    }
    Ok(())
}

/// Keys, and signals that mean the same as one, from threads of their own: nothing that the node does keeps them waiting.
fn listen(messages: mpsc::Sender<Message>) -> Result<(), Failure> {
    let interrupted = messages.clone();
    ctrlc::set_handler(move || {
        // A dashboard that is gone has nothing to end.
        let _: Result<(), _> = interrupted.blocking_send(Message::Key(Key::Interrupt));
    })
    .map_err(|source| {
        let failure = Failure::new("cannot listen for signals").because(source);
        failure.next("this is a defect of osctl; please report it")
    })?;
    thread::spawn(move || {
        loop {
            let message = match event::read() {
                Ok(Event::Key(key)) => read(key).map(Message::Key),
                Ok(_) => None,
                // The terminal is gone.
                Err(_) => Some(Message::Key(Key::Interrupt)),
            };
            let end = matches!(message, Some(Message::Key(Key::Interrupt)));
            if message.is_some_and(|message| messages.blocking_send(message).is_err()) || end {
                return;
            }
        }
    });
    Ok(())
}

fn read(key: KeyEvent) -> Option<Key> {
    if key.kind == KeyEventKind::Release {
        return None;
    }
    if key.modifiers.contains(KeyModifiers::CONTROL) {
        return (key.code == KeyCode::Char('c')).then_some(Key::Interrupt);
    }
    Some(match key.code {
        KeyCode::Char(c) => Key::Char(c),
        KeyCode::Up => Key::Up,
        KeyCode::Down => Key::Down,
        KeyCode::PageUp => Key::PageUp,
        KeyCode::PageDown => Key::PageDown,
        KeyCode::Home => Key::Home,
        KeyCode::End => Key::End,
        KeyCode::Enter => Key::Enter,
        KeyCode::Esc => Key::Esc,
        KeyCode::Tab => Key::Tab,
        KeyCode::BackTab => Key::BackTab,
        KeyCode::Backspace => Key::Backspace,
        _ => return None,
    })
}
