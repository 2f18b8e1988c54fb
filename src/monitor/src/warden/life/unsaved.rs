//! What the speaker is told of containers: only what is on disk.

use super::*;

impl Life {
    /// Tells the speaker once the container's state is on disk.
    pub(super) fn recorded(
        &mut self,
        warden: &mut Warden,
        container: &str,
        next: Next,
    ) -> Result<(), Breach> {
        if member(warden, container)?.unsaved {
            let waiting = self.unsaved.entry(container.to_owned()).or_default();
            waiting.push(next);
            return Ok(());
        }
        let mut all = self.unsaved.remove(container).unwrap_or_default();
        all.push(next);
        for next in all {
            let container = container.to_owned();
            self.tell(&ToSpeaker::Recorded { container, next }, None)?;
        }
        Ok(())
    }

    /// Tells the speaker at once, and has the state written when there is room: of a pause, which ends with its machine
    /// whatever the disk says. (What is waited for may be the very thing that needs it: a commit on a full disk.)
    pub(super) fn recorded_or_not(
        &mut self,
        warden: &mut Warden,
        container: &str,
    ) -> Result<(), Breach> {
        if member(warden, container)?.unsaved {
            let waiting = self.unsaved.entry(container.to_owned()).or_default();
            // Answers come in the order of what they answer.
            if !waiting.is_empty() {
                waiting.push(Next::Stay);
                return Ok(());
            }
        }
        let container = container.to_owned();
        let next = Next::Stay;
        self.tell(&ToSpeaker::Recorded { container, next }, None)
    }

    /// Tries again to write what a full disk did not take (lifecycle H22).
    pub(super) fn retry_unsaved(&mut self, warden: &mut Warden) {
        let waiting: Vec<String> = self.unsaved.keys().cloned().collect();
        for container in waiting {
            let saved = match warden.members.get_mut(&container) {
                Some(member) => member.save(),
                None => Ok(()),
            };
            match saved {
                Ok(()) => {
                    let all = self.unsaved.remove(&container).unwrap_or_default();
                    for next in all {
                        let container = container.clone();
                        let told = self.tell(&ToSpeaker::Recorded { container, next }, None);
                        if told.is_err() {
                            return self.kill_speaker();
                        }
                    }
                }
                Err(error) => {
                    tracing::debug!(error = %chain(&error), "the state is still not on disk");
                }
            }
        }
    }
}
