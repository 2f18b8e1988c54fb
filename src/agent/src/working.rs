//! Requests that workers carry out.

use std::os::fd::AsFd;
use std::path::PathBuf;

use protocol::agent::{Done, ProcessId, Request};

use crate::containers::Phase;
use crate::failure::Refusal;
use crate::files;
use crate::poll::{EventFlags, Number, Side};
use crate::requests::{Begun, wrong_state};
use crate::server::{Server, Source};
use crate::streams;
use crate::usage;
use crate::worker::Worker;

impl Server {
    /// Begins a request of those that take long.
    pub(crate) fn set_to_work(&mut self, seq: u64, name: &str, request: Request) -> Begun {
        let worker = match request {
            Request::Stat { path, follow, .. } => {
                let tree = self.tree(name, &path);
                Worker::start(seq, name, &tree.descriptors(), || {
                    Ok(Done::Stat(files::stat(&tree.enter()?, &path, follow)?))
                })
            }
            Request::Archive {
                path,
                follow,
                stream,
                ..
            } => {
                let tree = self.tree(name, &path);
                let stream = streams::open(&stream, &self.place)?;
                let keep = [&tree.descriptors()[..], &[stream.as_fd()]].concat();
                Worker::start(seq, name, &keep, || {
                    files::archive(&tree.enter()?, &path, follow, stream.as_fd())?;
                    Ok(Done::Ok)
                })
            }
            Request::Extract {
                path,
                owners,
                no_overwrite_kind,
                stream,
                ..
            } => {
                let tree = self.tree(name, &path);
                let stream = streams::open(&stream, &self.place)?;
                let options = files::Options {
                    owners,
                    no_overwrite_kind,
                };
                let keep = [&tree.descriptors()[..], &[stream.as_fd()]].concat();
                Worker::start(seq, name, &keep, || {
                    files::extract(&tree.enter()?, &path, options, stream.as_fd())?;
                    Ok(Done::Ok)
                })
            }
            Request::Diff { stream, .. } => {
                let overlay = self.containers[name].root.overlay(name)?;
                let stream = streams::open(&stream, &self.place)?;
                Worker::start(seq, name, &[stream.as_fd()], || {
                    files::diff(&overlay, stream.as_fd())?;
                    Ok(Done::Ok)
                })
            }
            Request::Changes { stream, .. } => {
                let overlay = self.containers[name].root.overlay(name)?;
                let stream = streams::open(&stream, &self.place)?;
                Worker::start(seq, name, &[stream.as_fd()], || {
                    files::changes(&overlay, stream.as_fd())?;
                    Ok(Done::Ok)
                })
            }
            Request::Processes { .. } => {
                let running = self.containers[name].running.as_ref();
                let Some(joinable) = running else {
                    return Err(wrong_state(name, self.state_of(name), "running"));
                };
                Worker::start(seq, name, &[], || {
                    let processes = usage::processes(joinable.cgroup());
                    Ok(Done::Processes { processes })
                })
            }
            _ => unreachable!("every other request is begun elsewhere"),
        }?;
        self.add_worker(worker)?;
        Ok(None)
    }

    /// Removes a container's writable directory, and answers the Delete then.
    pub(crate) fn remove_directory(
        &mut self,
        seq: u64,
        name: &str,
        directory: PathBuf,
    ) -> Result<(), Refusal> {
        let mut worker = Worker::start(seq, name, &[], || {
            files::remove_tree(&directory).map_err(|source| Refusal::Removal {
                path: directory,
                source,
            })?;
            Ok(Done::Ok)
        })?;
        worker.is_removal = true;
        self.add_worker(worker)
    }

    fn add_worker(&mut self, worker: Worker) -> Result<(), Refusal> {
        let number = self.poll.number();
        if let Err(source) = self.poll.add(&worker, number, Side::From, EventFlags::IN) {
            worker.kill();
            return Err(Refusal::Worker(source));
        }
        self.sources.insert(number, Source::Worker(worker));
        Ok(())
    }

    /// The tree that a path is looked up in: that of the container's processes, with all that is mounted there, while
    /// there are any; but its root file system alone for the root itself.
    fn tree(&self, name: &str, path: &str) -> files::Tree {
        let root = self.containers[name].root.rootfs();
        let is_whole = path.split('/').all(|part| part.is_empty() || part == ".");
        let process = self.processes.get(&ProcessId::first(name));
        let process = process.filter(|process| {
            !is_whole && matches!(process.phase, Phase::Created(_) | Phase::Running { .. })
        });
        files::Tree::of(root, process.map(|process| process.pid))
    }

    /// A worker has something to say.
    pub(crate) fn work(&mut self, number: Number) {
        let Some(Source::Worker(worker)) = self.sources.get_mut(&number) else {
            return;
        };
        let Some(report) = worker.report() else {
            return;
        };
        let Some(worker) = self.dismiss(number) else {
            return;
        };
        if worker.is_removal {
            let result = report.map_err(Refusal::Reported);
            self.removed(&worker.container, worker.seq, result);
        } else {
            self.reply(worker.seq, report.map_err(Refusal::Reported));
        }
    }

    fn dismiss(&mut self, number: Number) -> Option<Worker> {
        match self.sources.remove(&number) {
            Some(Source::Worker(worker)) => {
                self.poll.delete(&worker);
                Some(worker)
            }
            _ => None,
        }
    }

    /// Kills a container's workers and answers their requests.
    pub(crate) fn dismiss_workers(&mut self, name: &str) {
        let numbers: Vec<Number> = self
            .sources
            .iter()
            .filter(|(_, source)| matches!(source, Source::Worker(w) if w.container == name))
            .map(|(number, _)| *number)
            .collect();
        for number in numbers {
            if let Some(worker) = self.dismiss(number) {
                worker.kill();
                self.reply(worker.seq, Err(Refusal::Removed(name.to_owned())));
            }
        }
    }
}
