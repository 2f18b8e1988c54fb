//! Progress of pulls, pushes and loads, in Docker's frames: a document a line.

use std::sync::Mutex;

use engine::image::{Event, LayerName, Progress};
use serde_json::{Value, json};

use crate::call::Sink;

/// Writes frames to a client.
pub(super) struct Frames(Mutex<Sink>);

impl Frames {
    pub(super) fn new(sink: Sink) -> Frames {
        Frames(Mutex::new(sink))
    }

    /// Sends a frame. A client that has gone misses it: what was begun is brought to its end.
    pub(super) fn send(&self, frame: &Value) {
        let sink = self
            .0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if sink.line(frame).is_err() {
            tracing::debug!("the client has gone");
        }
    }

    pub(super) fn status(&self, text: &str) {
        self.send(&json!({"status": text}));
    }

    /// The last frame of what failed, on an answer that is whole.
    pub(super) fn failed(&self, message: &str) {
        self.send(&json!({"errorDetail": {"message": message}, "error": message}));
    }
}

impl Progress for Frames {
    fn event(&self, event: Event<'_>) {
        if let Some(frame) = frame(&event) {
            self.send(&frame);
        }
    }
}

/// What Docker says of an event.
fn frame(event: &Event<'_>) -> Option<Value> {
    let of = |layer: &LayerName, status: &str| {
        let digest = layer.digest.as_ref().map(|digest| digest.short());
        let id = digest.unwrap_or_else(|| layer.index.to_string());
        json!({"status": status, "progressDetail": {}, "id": id})
    };
    let with = |layer: &LayerName, status: &str, current: u64, total: Option<u64>| {
        let mut frame = of(layer, status);
        frame["progressDetail"] = match total {
            Some(total) => json!({"current": current, "total": total}),
            None => json!({"current": current}),
        };
        frame
    };
    Some(match event {
        Event::Exists(layer) => of(layer, "Already exists"),
        Event::Waiting(layer) => of(layer, "Waiting"),
        Event::Downloading {
            layer,
            resumed_bytes,
            total_bytes,
        } => with(layer, "Downloading", *resumed_bytes, Some(*total_bytes)),
        Event::Downloaded { layer, bytes } => with(layer, "Downloading", *bytes, None),
        Event::Verified(layer) => of(layer, "Download complete"),
        Event::Retrying {
            layer: Some(layer),
            pause_ms,
            ..
        } => of(
            layer,
            &format!("Retrying in {} seconds", pause_ms.div_ceil(1000)),
        ),
        Event::Converting { layer, total_bytes } => with(layer, "Extracting", 0, *total_bytes),
        Event::Stored { layer, .. } => of(layer, "Pull complete"),
        Event::Packing { layer, .. } => of(layer, "Preparing"),
        Event::Uploading { layer, total_bytes } => with(layer, "Pushing", 0, Some(*total_bytes)),
        Event::Uploaded { layer, bytes } => with(layer, "Pushing", *bytes, None),
        Event::Mounted { layer, repository } => of(layer, &format!("Mounted from {repository}")),
        Event::Pushed(layer) => of(layer, "Pushed"),
        _ => return None,
    })
}
