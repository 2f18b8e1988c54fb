//! How a speaker ended.

use super::*;

impl Life {
    /// Why the speaker ended, if not by itself: refused a system call, panicked, or killed.
    pub(super) fn reason(&self, ended: Option<ExitStatus>) -> Option<String> {
        let words = jail::explain("hull-monitor", self.words.as_fd()).unwrap_or_else(|error| {
            tracing::warn!(%error, "the speaker's last words cannot be read");
            None
        });
        words.or_else(|| {
            let ended = ended.filter(|ended| !ended.success())?;
            Some(match ended.signal() {
                Some(_) => {
                    format!("the monitor's process that talks to the guest was ended ({ended})")
                }
                None => format!("the monitor's process that talks to the guest failed ({ended})"),
            })
        })
    }
}
