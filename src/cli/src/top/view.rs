//! The table, as it is drawn: a line about all of it, a row for each sandbox, and what else is known of the selected one.

use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::Stylize;
use ratatui::text::{Line, Text};
use ratatui::widgets::{Cell, Paragraph, Row as TableRow, Table, TableState};

use super::model::{Host, Model, Row, Sort};
use super::sample::Kind;
use crate::output;

/// A column: its heading, how wide its cells are, the order that it stands for, and its rank where there is not room for
/// all of them: 0 is the last to go.
struct Column {
    heading: &'static str,
    width: u16,
    sort: Option<Sort>,
    rank: u8,
}

/// All but the names, which take what is left.
const COLUMNS: [Column; 10] = [
    column("KIND", 6, None, 8),
    column("CPU %", 7, Some(Sort::Cpu), 0),
    column("MEM USED / LIMIT", 19, Some(Sort::Memory), 1),
    column("GUEST", 8, Some(Sort::Guest), 2),
    column("SHARED", 8, None, 4),
    column("VMM", 8, None, 5),
    column("NET/S IN / OUT", 15, Some(Sort::Net), 7),
    column("BLOCK/S R / W", 15, Some(Sort::Block), 6),
    column("EXITS/S", 8, Some(Sort::Exits), 3),
    column("PIDS", 4, None, 9),
];
/// The least for names.
const NAME_WIDTH: u16 = 12;
/// Between two columns.
const GAP: u16 = 2;
const KEYS: &str = "q quit   ↑↓ jk select   s sort   r reverse";

const fn column(heading: &'static str, width: u16, sort: Option<Sort>, rank: u8) -> Column {
    Column {
        heading,
        width,
        sort,
        rank,
    }
}

impl Column {
    /// With room for the mark of the order.
    fn whole_width(&self) -> u16 {
        let heading = self.heading.len() as u16 + 2 * u16::from(self.sort.is_some());
        self.width.max(heading)
    }
}

/// The indices of the columns that there is room for, in their order.
fn fitting(width: u16) -> Vec<usize> {
    let mut ranked: Vec<usize> = (0..COLUMNS.len()).collect();
    ranked.sort_by_key(|&index| COLUMNS[index].rank);
    let mut left = width.saturating_sub(NAME_WIDTH);
    ranked.retain(|&index| {
        let taken = COLUMNS[index].whole_width() + GAP;
        let fits = taken <= left;
        // What follows a column that is too wide goes with it.
        left = if fits { left - taken } else { 0 };
        fits
    });
    ranked.sort_unstable();
    ranked
}

/// Draws all of it.
pub(super) fn draw(frame: &mut Frame<'_>, model: &Model) {
    let areas = Layout::vertical([
        Constraint::Length(2),
        Constraint::Min(1),
        Constraint::Length(3),
        Constraint::Length(1),
    ]);
    let [summary, table, details, keys] = areas.areas(frame.area());
    frame.render_widget(Paragraph::new(summary_line(model)), summary);
    draw_table(frame, model, table);
    let selected = model.selection().and_then(|at| model.rows().get(at));
    if let Some(row) = selected {
        frame.render_widget(Paragraph::new(detail_lines(row)), details);
    }
    frame.render_widget(Paragraph::new(KEYS.dim()), keys);
}

fn summary_line(model: &Model) -> Line<'static> {
    let rows = model.rows();
    let containers: usize = rows.iter().map(|row| row.containers.len()).sum();
    let sum = |part: fn(&Host) -> u64| -> u64 {
        rows.iter()
            .filter_map(|row| row.host.as_ref())
            .map(part)
            .sum()
    };
    let text = match (model.is_ready(), rows.is_empty()) {
        (false, _) => "hull top".to_owned(),
        (true, true) => "hull top: nothing runs".to_owned(),
        (true, false) => format!(
            "hull top: {}, {}; their VMs' own memory {}",
            counted(rows.len(), "sandbox", "sandboxes"),
            counted(containers, "container", "containers"),
            output::binary_size(sum(|host| host.guest + host.vmm + host.monitor)),
        ),
    };
    Line::from(text.bold())
}

fn counted(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

fn draw_table(frame: &mut Frame<'_>, model: &Model, area: Rect) {
    let (sort, reversed) = model.order();
    let heading = |text: &str, of: Option<Sort>| match (of == Some(sort), reversed) {
        (false, _) => text.to_owned(),
        (true, false) => format!("{text} ▼"),
        (true, true) => format!("{text} ▲"),
    };
    let shown = fitting(area.width);
    let name = Cell::from(heading("NAME", Some(Sort::Name)));
    let columns = shown.iter().map(|&index| &COLUMNS[index]);
    let headings = columns
        .clone()
        .map(|column| right(heading(column.heading, column.sort)));
    let header = TableRow::new(std::iter::once(name).chain(headings)).bold();
    let widths = columns.map(|column| Constraint::Length(column.whole_width()));
    let widths = std::iter::once(Constraint::Min(NAME_WIDTH)).chain(widths);
    let rows = model.rows().iter().map(|row| cells(row, &shown));
    let table = Table::new(rows, widths)
        .header(header)
        .column_spacing(GAP)
        .row_highlight_style(ratatui::style::Style::new().reversed());
    let mut state = TableState::new().with_selected(model.selection());
    frame.render_stateful_widget(table, area, &mut state);
}

fn right(text: String) -> Cell<'static> {
    Cell::from(Text::from(text).alignment(Alignment::Right))
}

fn cells(row: &Row, shown: &[usize]) -> TableRow<'static> {
    let of_host = |part: fn(&Host) -> u64| {
        let bytes = row.host.as_ref().map(part).filter(|bytes| *bytes > 0);
        bytes.map_or_else(|| "-".to_owned(), output::binary_size)
    };
    let pair = |pair: [u64; 2]| format!("{} / {}", output::size(pair[0]), output::size(pair[1]));
    let kind = match row.kind {
        Kind::Vm => "vm",
        Kind::Pod => "pod",
        Kind::Native => "native",
    };
    let memory = format!(
        "{} / {}",
        output::binary_size(row.memory_bytes),
        output::binary_size(row.limit_bytes)
    );
    let mut others = [
        kind.to_owned(),
        format!("{:.1}", row.cpu_percent),
        memory,
        of_host(|host| host.guest),
        of_host(|host| host.shared),
        of_host(|host| host.vmm),
        pair(row.net_rate),
        pair(row.block_rate),
        row.exits_rate
            .map_or_else(|| "-".to_owned(), |rate| rate.to_string()),
        row.processes.to_string(),
    ];
    let name = Cell::from(crate::printable(&row.name));
    let shown = shown
        .iter()
        .map(|&index| right(std::mem::take(&mut others[index])));
    TableRow::new(std::iter::once(name).chain(shown))
}

/// What the columns have no room for.
fn detail_lines(row: &Row) -> Vec<Line<'static>> {
    let about = match row.kind {
        Kind::Pod => format!("containers {}", row.containers.join(", ")),
        Kind::Vm | Kind::Native => format!("image {}", row.image),
    };
    let first = format!("{}  {}  {about}", row.name, output::short_id(&row.id),);
    let second = match &row.host {
        Some(host) => {
            let monitor = output::binary_size(host.monitor);
            let kinds: Vec<String> = row
                .exit_kinds
                .iter()
                .map(|(kind, rate)| format!("{} {rate}/s", kind.trim_end_matches("_exits")))
                .collect();
            match kinds.is_empty() {
                true => format!("monitor {monitor}"),
                false => format!("monitor {monitor}  exits: {}", kinds.join(", ")),
            }
        }
        None => String::new(),
    };
    vec![
        Line::default(),
        Line::from(crate::printable(&first)),
        Line::from(crate::printable(&second)),
    ]
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::super::model::Key;
    use super::super::model::tests::{model, sandbox};
    use super::*;

    fn drawn(model: &Model, width: u16, height: u16) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, model)).unwrap();
        let buffer = terminal.backend().buffer().clone();
        let line = |y| -> String { (0..width).map(|x| buffer[(x, y)].symbol()).collect() };
        (0..height).map(|y| line(y).trim_end().to_owned()).collect()
    }

    #[test]
    fn a_table_has_a_row_for_each_sandbox_and_the_selected_one_is_told_of() {
        let mut native = sandbox("plain", 1000, 0);
        native.measured = Some(Default::default());
        native.kind = Kind::Native;
        let mut pod = sandbox("box", 400_000, 0);
        pod.kind = Kind::Pod;
        pod.containers = vec!["db".into(), "web".into()];
        let mut model = model(vec![native, sandbox("web", 500_000, 40), pod]);
        model.press(Key::Down);
        assert_eq!(
            drawn(&model, 150, 10),
            [
                "hull top: 3 sandboxes, 4 containers; their VMs' own memory 24MiB",
                "",
                "NAME                              KIND  CPU % ▼     MEM USED / LIMIT     GUEST    SHARED       VMM    \
                 NET/S IN / OUT    BLOCK/S R / W    EXITS/S  PIDS",
                "web                                 vm     50.0       12MiB / 512MiB      8MiB     22MiB    1.5MiB    \
                 \u{20}     0B / 40B        400B / 0B         40     3",
                "box                                pod     40.0       12MiB / 512MiB      8MiB     22MiB    1.5MiB    \
                 \u{20}      0B / 0B          0B / 0B          0     3",
                "plain                           native      0.1       12MiB / 512MiB         -         -         -    \
                 \u{20}      0B / 0B          0B / 0B          -     3",
                "",
                "plain  id-plain  image demo",
                "",
                KEYS,
            ]
        );
        model.press(Key::Up);
        model.press(Key::Up);
        let lines = drawn(&model, 150, 10);
        assert_eq!(lines[7], "web  id-web  image demo");
        assert_eq!(lines[8], "monitor 2.5MiB  exits: halt 20/s");
    }

    #[test]
    fn before_the_first_sample_and_when_nothing_runs_the_table_says_so() {
        let lines = drawn(&Model::default(), 60, 8);
        assert_eq!(lines[0], "hull top");
        let lines = drawn(&model(Vec::new()), 60, 8);
        assert_eq!(lines[0], "hull top: nothing runs");
        assert_eq!(lines[7], KEYS);
    }

    #[test]
    fn a_narrow_terminal_shows_what_matters_most() {
        let lines = drawn(&model(vec![sandbox("web", 500_000, 40)]), 80, 8);
        assert_eq!(
            lines[2..4],
            [
                "NAME                 CPU % ▼     MEM USED / LIMIT     GUEST    SHARED    EXITS/S",
                "web                     50.0       12MiB / 512MiB      8MiB     22MiB         40",
            ]
        );
        assert_eq!(fitting(20), Vec::<usize>::new());
        assert_eq!(fitting(200).len(), COLUMNS.len());
    }

    #[test]
    fn a_small_terminal_breaks_nothing() {
        let model = model(vec![sandbox("web", 1, 1)]);
        for (width, height) in [(1, 1), (20, 3), (80, 5)] {
            drawn(&model, width, height);
        }
    }
}
