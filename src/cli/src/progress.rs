//! Pulls and imports as people see them: bars on a terminal, plain lines elsewhere. All of it on standard error.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::sync::{Mutex, PoisonError};

use engine::image::{self, Event, LayerName};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

/// Renders the progress of one pull or import.
pub(crate) struct Reporter {
    bars: Option<MultiProgress>,
    layers: Mutex<BTreeMap<usize, ProgressBar>>,
}

impl Reporter {
    /// For a terminal or for a log, whichever standard error is.
    pub(crate) fn new() -> Reporter {
        let bars = std::io::stderr().is_terminal().then(MultiProgress::new);
        Reporter {
            bars,
            layers: Mutex::default(),
        }
    }

    fn bar(&self, bars: &MultiProgress, layer: LayerName) -> ProgressBar {
        let mut layers = self.layers.lock().unwrap_or_else(PoisonError::into_inner);
        let bar = layers.entry(layer.index).or_insert_with(|| {
            let bar = bars.add(ProgressBar::no_length());
            bar.set_prefix(name(layer));
            bar
        });
        bar.clone()
    }

    fn say(&self, layer: LayerName, text: &str) {
        match &self.bars {
            Some(bars) => {
                let bar = self.bar(bars, layer);
                bar.set_style(style("{prefix}: {msg}"));
                bar.finish_with_message(text.to_owned());
            }
            None => line(&format!("{}: {text}", name(layer))),
        }
    }

    /// Begins to count up to `total`.
    fn count(&self, layer: LayerName, text: &str, total: Option<u64>) {
        match &self.bars {
            Some(bars) => {
                let bar = self.bar(bars, layer);
                bar.reset();
                bar.set_style(match total {
                    Some(_) => style("{prefix}: {msg:<11} [{bar:40}] {bytes}/{total_bytes}"),
                    None => style("{prefix}: {msg:<11} {bytes}"),
                });
                bar.set_message(text.to_owned());
                if let Some(total) = total {
                    bar.set_length(total);
                }
                bar.set_position(0);
            }
            None => line(&format!("{}: {text}", name(layer))),
        }
    }

    fn advance(&self, layer: LayerName, bytes: u64) {
        if let Some(bars) = &self.bars {
            self.bar(bars, layer).set_position(bytes);
        }
    }

    fn note(&self, text: &str) {
        match &self.bars {
            // Above the bars; a terminal that cannot be written shows none of this.
            Some(bars) => drop(bars.println(text)),
            None => line(text),
        }
    }
}

impl image::Progress for Reporter {
    fn event(&self, event: Event<'_>) {
        match event {
            Event::PassedOver { what, reason } => {
                self.note(&format!("Passed over {what}: {reason}"))
            }
            Event::Exists(layer) => self.say(layer, "Already exists"),
            Event::Waiting(layer) => self.say(layer, "Waiting for another hull"),
            Event::Downloading {
                layer,
                resumed_bytes,
                total_bytes,
            } => {
                self.count(layer, "Downloading", Some(total_bytes));
                self.advance(layer, resumed_bytes);
            }
            Event::Downloaded { layer, bytes } => self.advance(layer, bytes),
            Event::Verified(layer) => self.say(layer, "Download complete"),
            Event::Retrying {
                layer,
                attempt,
                pause_ms,
                reason,
            } => {
                let text = format!(
                    "Retrying (attempt {attempt}) in {} s: {reason}",
                    pause_ms.div_ceil(1000)
                );
                match layer {
                    Some(layer) => self.note(&format!("{}: {text}", name(layer))),
                    None => self.note(&text),
                }
            }
            Event::Converting { layer, total_bytes } => {
                self.count(layer, "Converting", total_bytes)
            }
            Event::Converted { layer, bytes } => self.advance(layer, bytes),
            Event::Stored { layer, .. } => self.say(layer, "Complete"),
            _ => {}
        }
    }
}

fn name(layer: LayerName) -> String {
    match layer.digest {
        Some(digest) => digest.short(),
        None => format!("layer {}", layer.index + 1),
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the templates above are valid")
}

fn line(text: &str) {
    // Standard error may be closed on purpose.
    let _ = writeln!(std::io::stderr(), "{text}");
}
