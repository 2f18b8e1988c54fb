//! The rows of the table, in which order, and which of them is selected.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use super::sample::{Kind, Sample, Sandbox};

/// What a key does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    Quit,
    Up,
    Down,
    First,
    Last,
    /// The next column decides about the order.
    Sort,
    Reverse,
}

/// The column that decides about the order. Numbers go from the greatest down, names from A.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Sort {
    #[default]
    Cpu,
    Memory,
    Guest,
    Net,
    Block,
    Exits,
    Name,
}

impl Sort {
    fn next(self) -> Sort {
        match self {
            Sort::Cpu => Sort::Memory,
            Sort::Memory => Sort::Guest,
            Sort::Guest => Sort::Net,
            Sort::Net => Sort::Block,
            Sort::Block => Sort::Exits,
            Sort::Exits => Sort::Name,
            Sort::Name => Sort::Cpu,
        }
    }
}

/// A sandbox, as it is shown. Rates are bytes or events a second.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Row {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) kind: Kind,
    pub(super) containers: Vec<String>,
    pub(super) image: String,
    /// Of one processor: two that are busy are 200.
    pub(super) cpu_percent: f64,
    /// Of the containers, as the machine that they are in counts it.
    pub(super) memory_bytes: u64,
    pub(super) limit_bytes: u64,
    pub(super) host: Option<Host>,
    /// Received and sent.
    pub(super) net_rate: [u64; 2],
    /// Read and written.
    pub(super) block_rate: [u64; 2],
    pub(super) exits_rate: Option<u64>,
    pub(super) processes: u64,
    /// The kinds of exit that were most since the sample before, with their rates.
    pub(super) exit_kinds: Vec<(String, u64)>,
}

/// What a VM takes of the host's memory, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Host {
    /// Pages of the guest that are its own.
    pub(super) guest: u64,
    /// Pages of the guest that are those of a file: the kernel, a template, layers. Every VM that maps them shares them.
    pub(super) shared: u64,
    /// hull-vmm itself; 0 where that is not told apart from the guest.
    pub(super) vmm: u64,
    pub(super) monitor: u64,
}

/// Kinds of exit that are told of.
const EXIT_KINDS: usize = 4;
/// KVM's statistic of all of them.
const ALL_EXITS: &str = "exits";

impl Row {
    fn of(now: &Sandbox, before: Option<&Sandbox>, seconds: f64) -> Row {
        let usage = &now.usage;
        let rate = |now: u64, before: u64| (now.saturating_sub(before) as f64 / seconds) as u64;
        let rates =
            |now: [u64; 2], before: [u64; 2]| [rate(now[0], before[0]), rate(now[1], before[1])];
        let mut row = Row {
            id: now.id.clone(),
            name: now.name.clone(),
            kind: now.kind,
            containers: now.containers.clone(),
            image: now.image.clone(),
            memory_bytes: usage.memory_bytes,
            limit_bytes: usage.limit_bytes,
            host: host(now),
            processes: usage.processes,
            ..Row::default()
        };
        // Without an earlier sample there are no rates.
        let Some(before) = before.filter(|_| seconds > 0.0) else {
            return row;
        };
        let earlier = &before.usage;
        let own = usage.cpu_us.saturating_sub(earlier.cpu_us);
        let machine = usage.machine_cpu_us.saturating_sub(earlier.machine_cpu_us);
        if machine > 0 {
            row.cpu_percent = own as f64 / machine as f64 * f64::from(usage.processors) * 100.0;
        }
        row.net_rate = rates(usage.net_bytes, earlier.net_bytes);
        row.block_rate = rates(usage.block_bytes, earlier.block_bytes);
        let (now, before) = (counts(now), counts(before));
        let exits = |counts: &Counts| counts.get(ALL_EXITS).copied();
        if let (Some(now), Some(before)) = (exits(&now), exits(&before)) {
            row.exits_rate = Some(rate(now, before));
        }
        row.exit_kinds = now
            .iter()
            .map(|(kind, count)| {
                let before = before.get(kind).copied().unwrap_or_default();
                (kind.clone(), rate(*count, before))
            })
            .filter(|(kind, rate)| kind != ALL_EXITS && *rate > 0)
            .collect();
        row.exit_kinds
            .sort_by(|(a, x), (b, y)| y.cmp(x).then_with(|| a.cmp(b)));
        row.exit_kinds.truncate(EXIT_KINDS);
        row
    }

    fn compare(&self, other: &Row, sort: Sort) -> Ordering {
        let sum = |pair: [u64; 2]| pair[0].saturating_add(pair[1]);
        let guest = |row: &Row| row.host.map_or(0, |host| host.guest);
        match sort {
            Sort::Cpu => other.cpu_percent.total_cmp(&self.cpu_percent),
            Sort::Memory => other.memory_bytes.cmp(&self.memory_bytes),
            Sort::Guest => guest(other).cmp(&guest(self)),
            Sort::Net => sum(other.net_rate).cmp(&sum(self.net_rate)),
            Sort::Block => sum(other.block_rate).cmp(&sum(self.block_rate)),
            Sort::Exits => other.exits_rate.cmp(&self.exits_rate),
            Sort::Name => Ordering::Equal,
        }
        .then_with(|| (&self.name, &self.id).cmp(&(&other.name, &other.id)))
    }
}

type Counts = BTreeMap<String, u64>;

fn counts(sandbox: &Sandbox) -> Counts {
    let measured = sandbox.measured.as_ref();
    measured
        .map(|measured| measured.kvm_stats.clone())
        .unwrap_or_default()
}

/// `None` for a native container, which takes what its memory says, and for a VM whose memory was not measured.
fn host(sandbox: &Sandbox) -> Option<Host> {
    let measured = sandbox.measured.as_ref()?;
    measured.began?;
    if measured.guest_touched_bytes == 0 {
        return None;
    }
    let guest = measured.guest_touched_bytes;
    Some(Host {
        guest: guest.saturating_sub(measured.guest_shared_bytes),
        shared: measured.guest_shared_bytes,
        vmm: measured.vmm_rss_bytes,
        monitor: measured.monitor_rss_bytes,
    })
}

/// The table's state.
#[derive(Debug, Default)]
pub(super) struct Model {
    before: Option<Sample>,
    rows: Vec<Row>,
    sort: Sort,
    reversed: bool,
    /// The identifier of the selected sandbox, which keeps the selection wherever its row moves.
    selected: Option<String>,
}

impl Model {
    /// A new sample is there.
    pub(super) fn update(&mut self, sample: Sample) {
        let seconds = self.before.as_ref().map_or(0.0, |before| {
            sample.at.duration_since(before.at).as_secs_f64()
        });
        let earlier = |id: &str| {
            let before = self.before.as_ref()?;
            before.sandboxes.iter().find(|sandbox| sandbox.id == id)
        };
        let rows = sample.sandboxes.iter();
        let rows = rows.map(|now| Row::of(now, earlier(&now.id), seconds));
        let at = self.selection();
        self.rows = rows.collect();
        self.arrange();
        if self.selection().is_none() {
            // The selected one has ended: the one that takes its place is.
            self.select(at.unwrap_or(0));
        }
        self.before = Some(sample);
    }

    /// A key was pressed.
    pub(super) fn press(&mut self, key: Key) {
        let at = self.selection().unwrap_or(0);
        match key {
            Key::Quit => {}
            Key::Up => self.select(at.saturating_sub(1)),
            Key::Down => self.select(at + 1),
            Key::First => self.select(0),
            Key::Last => self.select(usize::MAX),
            Key::Sort => {
                self.sort = self.sort.next();
                self.reversed = false;
                self.arrange();
            }
            Key::Reverse => {
                self.reversed = !self.reversed;
                self.arrange();
            }
        }
    }

    fn select(&mut self, at: usize) {
        let last = self.rows.len().saturating_sub(1);
        self.selected = self.rows.get(at.min(last)).map(|row| row.id.clone());
    }

    fn arrange(&mut self) {
        self.rows.sort_by(|a, b| a.compare(b, self.sort));
        if self.reversed {
            self.rows.reverse();
        }
    }

    pub(super) fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// A sample has been taken.
    pub(super) fn is_ready(&self) -> bool {
        self.before.is_some()
    }

    pub(super) fn order(&self) -> (Sort, bool) {
        (self.sort, self.reversed)
    }

    /// The selected row's place.
    pub(super) fn selection(&self) -> Option<usize> {
        let id = self.selected.as_ref()?;
        self.rows.iter().position(|row| row.id == *id)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::{Duration, Instant};

    use engine::protocol::monitor::{Began, Measured};

    use super::super::sample::Usage;
    use super::*;

    /// A VM of two processors that was busy for this long of the machine's last two seconds.
    pub(in super::super) fn sandbox(name: &str, cpu_us: u64, exits: u64) -> Sandbox {
        Sandbox {
            id: format!("id-{name}"),
            name: name.to_owned(),
            containers: vec![name.to_owned()],
            image: "demo".to_owned(),
            usage: Usage {
                cpu_us,
                machine_cpu_us: cpu_us.min(1) * 2_000_000,
                processors: 2,
                memory_bytes: 12 << 20,
                limit_bytes: 512 << 20,
                processes: 3,
                block_bytes: [exits * 10, 0],
                net_bytes: [0, exits],
            },
            measured: Some(Measured {
                began: Some(Began::FromTemplate),
                kvm_stats: [
                    ("exits".to_owned(), exits),
                    ("halt_exits".to_owned(), exits / 2),
                ]
                .into(),
                guest_touched_bytes: 30 << 20,
                guest_shared_bytes: 22 << 20,
                vmm_rss_bytes: 3 << 19,
                monitor_rss_bytes: 5 << 19,
                ..Measured::default()
            }),
            ..Sandbox::default()
        }
    }

    /// Two samples, a second apart: nothing used in the first.
    pub(in super::super) fn model(now: Vec<Sandbox>) -> Model {
        let start = Instant::now();
        let before = now.iter().map(|one| sandbox(&one.name, 0, 0)).collect();
        let mut model = Model::default();
        model.update(Sample {
            at: start,
            sandboxes: before,
        });
        model.update(Sample {
            at: start + Duration::from_secs(1),
            sandboxes: now,
        });
        model
    }

    fn names(model: &Model) -> Vec<&str> {
        model.rows().iter().map(|row| row.name.as_str()).collect()
    }

    #[test]
    fn rates_are_what_was_added_since_the_sample_before() {
        let model = model(vec![sandbox("web", 500_000, 40)]);
        let row = &model.rows()[0];
        assert_eq!(row.cpu_percent, 50.0);
        assert_eq!((row.net_rate, row.block_rate), ([0, 40], [400, 0]));
        assert_eq!(row.exits_rate, Some(40));
        assert_eq!(row.exit_kinds, [("halt_exits".to_owned(), 20)]);
        let host = row.host.unwrap();
        assert_eq!((host.guest, host.shared), (8 << 20, 22 << 20));
    }

    #[test]
    fn the_first_sample_and_a_restarted_sandbox_have_no_rates_to_tell() {
        let mut model = model(vec![sandbox("web", 500_000, 40)]);
        model.update(Sample {
            at: Instant::now() + Duration::from_secs(9),
            sandboxes: vec![sandbox("web", 1, 1), sandbox("new", 500_000, 9)],
        });
        let row = |name: &str| model.rows().iter().find(|row| row.name == name).unwrap();
        assert_eq!(row("web").exits_rate, Some(0));
        assert_eq!(row("new").exits_rate, None);
        assert_eq!(row("new").cpu_percent, 0.0);
    }

    #[test]
    fn each_press_of_sort_orders_by_another_column_and_names_come_last() {
        let mut model = model(vec![sandbox("b", 100, 1), sandbox("a", 200, 7)]);
        assert_eq!(names(&model), ["a", "b"]);
        model.press(Key::Reverse);
        assert_eq!(names(&model), ["b", "a"]);
        let mut seen = vec![model.order().0];
        while seen.last() != Some(&Sort::Name) {
            model.press(Key::Sort);
            seen.push(model.order().0);
        }
        assert_eq!(seen.len(), 7);
        assert_eq!(names(&model), ["a", "b"]);
        model.press(Key::Sort);
        assert_eq!(model.order(), (Sort::Cpu, false));
    }

    #[test]
    fn the_selection_stays_with_its_sandbox_and_goes_to_its_neighbour_at_its_end() {
        let mut model = model(vec![
            sandbox("a", 300, 0),
            sandbox("b", 200, 0),
            sandbox("c", 100, 0),
        ]);
        assert_eq!(model.selection(), Some(0));
        model.press(Key::Down);
        model.press(Key::Reverse);
        model.press(Key::Up);
        assert_eq!(model.rows()[model.selection().unwrap()].name, "c");
        model.press(Key::Reverse);
        assert_eq!(model.selection(), Some(2));
        model.press(Key::Down);
        assert_eq!(model.selection(), Some(2));
        model.update(Sample {
            at: Instant::now(),
            sandboxes: vec![sandbox("a", 0, 0), sandbox("b", 0, 0)],
        });
        assert_eq!(model.selection(), Some(1));
        model.update(Sample {
            at: Instant::now(),
            sandboxes: Vec::new(),
        });
        assert_eq!(model.selection(), None);
        model.press(Key::Last);
        model.press(Key::Up);
    }

    #[test]
    fn a_native_container_has_no_guest() {
        let mut native = sandbox("n", 1, 0);
        native.measured = Some(Measured::default());
        let model = model(vec![native]);
        assert_eq!(model.rows()[0].host, None);
        assert_eq!(model.rows()[0].exits_rate, None);
    }
}
