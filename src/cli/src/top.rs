//! `hull top` without a container: a live table of the sandboxes that run.
//!
//! ```text
//! sampler thread: engine -> Sample, each second --channel--> Model (rows, order, selection) -> view
//! this thread:    keys ------------------------------------------^
//! ```
//!
//! Invariants: a sandbox that does not answer holds up the samples, never the keys; the terminal is as it was at every end
//! but SIGKILL. Deliberately absent: changing anything that is shown.

use std::io::{self, IsTerminal};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use anyhow::Context;
use engine::Engine;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use sys::signalfd::SignalFd;

mod model;
mod sample;
mod view;

use model::{Key, Model};
use sample::Sample;

/// Between two samples.
const INTERVAL: Duration = Duration::from_secs(1);
/// A new sample is shown after this long at the latest.
const GLANCE: Duration = Duration::from_millis(200);
/// What ends a program that has no handler for it.
const ENDING: [i32; 3] = [libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT];

/// Shows the table until a key or a signal ends it.
pub(crate) fn live() -> anyhow::Result<u8> {
    if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        anyhow::bail!(
            "hull top shows a live table, which needs a terminal on standard input and output; \
             'hull stats --no-stream' prints once what containers use, 'hull top CONTAINER' a container's processes"
        );
    }
    let engine = Engine::find()?;
    // Before any thread: all of them inherit the mask.
    let mut signals = SignalFd::new(&ENDING).context("cannot watch for signals")?;
    let samples = sampler(engine);
    let mut terminal = ratatui::try_init().context("cannot set up the terminal")?;
    let ended = show(&mut terminal, &samples, &mut signals);
    ratatui::try_restore().context("cannot restore the terminal")?;
    ended.map(|()| 0)
}

/// A thread that looks at the sandboxes until its samples are not wanted any more.
fn sampler(engine: Engine) -> Receiver<Result<Sample, engine::Error>> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        while sender.send(sample::take(&engine)).is_ok() {
            thread::sleep(INTERVAL);
        }
    });
    receiver
}

fn show(
    terminal: &mut DefaultTerminal,
    samples: &Receiver<Result<Sample, engine::Error>>,
    signals: &mut SignalFd,
) -> anyhow::Result<()> {
    let mut model = Model::default();
    loop {
        terminal.draw(|frame| view::draw(frame, &model))?;
        if signals.take()?.is_some() {
            return Ok(());
        }
        if event::poll(GLANCE)?
            && let Event::Key(key) = event::read()?
            && key.kind != KeyEventKind::Release
        {
            match meaning(key.code, key.modifiers) {
                Some(Key::Quit) => return Ok(()),
                Some(key) => model.press(key),
                None => {}
            }
        }
        while let Ok(sample) = samples.try_recv() {
            model.update(sample?);
        }
    }
}

fn meaning(code: KeyCode, modifiers: KeyModifiers) -> Option<Key> {
    let control = modifiers.contains(KeyModifiers::CONTROL);
    Some(match code {
        KeyCode::Char('c' | 'd') if control => Key::Quit,
        KeyCode::Char('q') | KeyCode::Esc => Key::Quit,
        KeyCode::Char('k') | KeyCode::Up => Key::Up,
        KeyCode::Char('j') | KeyCode::Down => Key::Down,
        KeyCode::Char('g') | KeyCode::Home => Key::First,
        KeyCode::Char('G') | KeyCode::End => Key::Last,
        KeyCode::Char('s') => Key::Sort,
        KeyCode::Char('r') => Key::Reverse,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_those_of_other_programs_of_the_kind() {
        let plain = |code| meaning(code, KeyModifiers::NONE);
        assert_eq!(plain(KeyCode::Char('q')), Some(Key::Quit));
        assert_eq!(
            meaning(KeyCode::Char('c'), KeyModifiers::CONTROL),
            Some(Key::Quit)
        );
        assert_eq!(plain(KeyCode::Char('c')), None);
        assert_eq!(plain(KeyCode::Up), plain(KeyCode::Char('k')));
        assert_eq!(plain(KeyCode::Down), plain(KeyCode::Char('j')));
        assert_eq!(plain(KeyCode::Char('s')), Some(Key::Sort));
    }
}
