//! One question to all nodes that the command line names, side by side; and how their answers are shown together.

use futures_util::stream::{self, StreamExt as _};
use serde::Serialize;

use crate::cli::NodeArgs;
use crate::error::{Exit, Failure};
use crate::node::connect::{Connection, ask, open};
use crate::node::target;
use crate::output::{Format, Ink, Output, Palette, printable};

/// How many nodes are asked at the same time.
const SIDE_BY_SIDE: usize = 64;

/// What one node answered.
#[derive(Debug)]
pub(crate) struct Named<T> {
    /// Where it is, as the user is shown it.
    pub(crate) node: String,
    pub(crate) answer: T,
}

/// What the nodes answered, in the order in which they were named.
#[derive(Debug)]
pub(crate) struct Answers<T> {
    pub(crate) answered: Vec<Named<T>>,
    failed: Vec<Named<Failure>>,
    /// One alone was named: its answer is shown as it is, without its name.
    alone: bool,
}

/// Asks every node the same thing. A single node that fails is the command's failure; of several, [`Answers::show`] tells.
pub(crate) fn each<T>(
    args: &NodeArgs,
    out: &mut Output,
    call: impl AsyncFn(Connection) -> Result<T, Failure>,
) -> Result<Answers<T>, Failure> {
    let targets = target::read(args)?;
    targets.remarks.iter().for_each(|remark| out.notice(remark));
    let alone = targets.nodes.len() == 1;
    let call = &call;
    let asked = ask(async {
        let questions = targets.nodes.iter().map(|target| async move {
            let mut remark = None;
            let answer = async {
                let (connection, kept) = open(target).await?;
                remark = kept;
                call(connection).await
            }
            .await;
            (Named { node: target.endpoint.to_string(), answer }, remark)
        });
        Ok(stream::iter(questions).buffered(SIDE_BY_SIDE).collect::<Vec<_>>().await)
    })?;
    let mut answers = Answers { answered: Vec::new(), failed: Vec::new(), alone };
    for (Named { node, answer }, remark) in asked {
        remark.into_iter().for_each(|remark| out.notice(&remark));
        match answer {
            Ok(answer) => answers.answered.push(Named { node, answer }),
            Err(failure) if alone => return Err(failure),
            Err(answer) => {
                let answer = answer.at(&node);
                answers.failed.push(Named { node, answer });
            }
        }
    }
    Ok(answers)
}

/// What `--output json` prints for several nodes; its keys are an interface.
#[derive(Debug, Serialize)]
struct Documents<V> {
    nodes: Vec<Document<V>>,
}

#[derive(Debug, Serialize)]
struct Document<V> {
    node: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    answer: Option<V>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl<T> Answers<T> {
    /// The only answer, where one node alone was named.
    pub(crate) fn alone(&self) -> Option<&T> {
        self.answered.first().filter(|_| self.alone).map(|named| &named.answer)
    }

    /// Shows one node's answer as `page`, several as the rows of a table with a column NODE before `header`; and for programs
    /// `view` of one, or a list of them by node. Nodes that failed are told of on stderr, and make the exit code 1.
    pub(crate) fn show<'a, V: Serialize, const N: usize>(
        &'a self,
        out: &mut Output,
        view: impl Fn(&'a T) -> V,
        page: impl Fn(&'a T, Palette) -> String,
        header: [&str; N],
        rows: impl Fn(&'a T) -> Vec<[Cell; N]>,
    ) -> Result<Exit, Failure> {
        if let Some(answer) = self.alone() {
            match out.format() {
                Format::Table => out.text(&page(answer, out.palette()))?,
                Format::Json => out.json(&view(answer))?,
            }
            return Ok(Exit::Clean);
        }
        match out.format() {
            Format::Table => {
                let rows = self.answered.iter().flat_map(|named| {
                    rows(&named.answer).into_iter().map(|row| (named.node.as_str(), row))
                });
                let rows: Vec<_> = rows.collect();
                if !rows.is_empty() {
                    out.text(&table(header, &rows, out.palette()))?;
                }
            }
            Format::Json => {
                let answered = self.answered.iter().map(|named| Document {
                    node: named.node.clone(),
                    answer: Some(view(&named.answer)),
                    error: None,
                });
                let failed = self.failed.iter().map(|named| Document {
                    node: named.node.clone(),
                    answer: None,
                    error: Some(in_a_line(&named.answer)),
                });
                out.json(&Documents { nodes: answered.chain(failed).collect() })?;
            }
        }
        Ok(self.complain(out))
    }

    /// Tells of the nodes that failed, on stderr.
    fn complain(&self, out: &mut Output) -> Exit {
        for named in &self.failed {
            // The exit code says it too, if stderr is gone.
            let _: std::io::Result<()> = out.failure(&named.answer);
        }
        if self.failed.is_empty() { Exit::Clean } else { Exit::Findings }
    }
}

fn in_a_line(failure: &Failure) -> String {
    let lines = failure.lines();
    let lines = lines.iter().filter(|(label, _)| *label != "next").map(|(_, line)| line.as_str());
    lines.collect::<Vec<_>>().join(": ")
}

/// A cell of a table, and what it means to the reader.
#[derive(Debug, Clone)]
pub(crate) struct Cell {
    text: String,
    ink: Option<Ink>,
}

impl Cell {
    pub(crate) fn plain(text: impl Into<String>) -> Self {
        Self { text: printable(&text.into()), ink: None }
    }

    pub(crate) fn inked(text: impl Into<String>, ink: Ink) -> Self {
        Self { text: printable(&text.into()), ink: Some(ink) }
    }
}

/// Columns as wide as their widest cell; a line ends where its text does.
fn table<const N: usize>(
    header: [&str; N],
    rows: &[(&str, [Cell; N])],
    palette: Palette,
) -> String {
    let chars = |text: &str| text.chars().count();
    let node = rows.iter().map(|(node, _)| chars(node)).max().unwrap_or(0).max("NODE".len());
    let mut widths = header.map(chars);
    for (_, cells) in rows {
        for (width, cell) in widths.iter_mut().zip(cells) {
            *width = (*width).max(chars(&cell.text));
        }
    }
    let head = header.iter().zip(widths).map(|(text, width)| format!("  {text:width$}"));
    let head = format!("{:node$}{}", "NODE", head.collect::<String>());
    let mut table = palette.paint(Ink::Faint, head.trim_end()) + "\n";
    for (name, cells) in rows {
        let mut line = format!("{name:node$}");
        let last = cells.iter().rposition(|cell| !cell.text.is_empty()).map_or(0, |at| at + 1);
        for (at, (cell, width)) in cells.iter().zip(widths).enumerate().take(last) {
            // Padded first, painted then: a terminal does not count colours as characters.
            let padded =
                if at + 1 == last { cell.text.clone() } else { format!("{:width$}", cell.text) };
            line += "  ";
            line += &cell.ink.map_or(padded.clone(), |ink| palette.paint(ink, &padded));
        }
        table += &line;
        table.push('\n');
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_by_node() {
        let row = |a: &str, b: &str| [Cell::inked(a, Ink::Bad), Cell::plain(b)];
        let rows = [("10.0.0.7:50051", row("booting", "a note")), ("[::1]:50051", row("up", ""))];
        assert_eq!(
            table(["STATE", "NOTE"], &rows, Palette::PLAIN),
            "NODE            STATE    NOTE\n\
             10.0.0.7:50051  booting  a note\n\
             [::1]:50051     up\n"
        );
    }
}
