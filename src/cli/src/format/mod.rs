//! Docker's `--format`: a subset of Go's text/template over JSON values.
//!
//! - [`Template`]: text with actions in `{{ }}`; [`parse`](self) reads them, `eval` executes them.
//! - `functions`: Go's predefined functions and Docker's own; `printf` has its own file.
//! - [`tabs`]: Go's text/tabwriter, which lays out tables.
//!
//! Supported: fields, variables, pipelines, literals, `if`, `with`, `range` with `else`, `break` and `continue`, trimmed
//! actions, comments, and the functions and, or, not, len, index, slice, print, printf, println, eq, ne, lt, le, gt, ge,
//! json, join, split, lower, upper, title, pad, truncate. Deliberately absent: named templates, and escaping for HTML,
//! JavaScript and URLs, which no command line needs.
//!
//! Invariant: no template and no value makes this panic; nesting and padding are bounded.

use std::collections::BTreeMap;

use serde_json::Value;

mod eval;
mod functions;
mod lex;
mod parse;
mod printf;
pub(crate) mod tabs;
#[cfg(test)]
mod tests;

/// Where in a template an error is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// Line, from 1.
    line: usize,
    /// Byte in the line, from 0.
    column: usize,
}

impl Place {
    /// Of a byte of a text.
    fn of(text: &str, at: usize) -> Place {
        let before = text.get(..at).unwrap_or(text);
        Place {
            line: before.matches('\n').count() + 1,
            column: before.len() - before.rfind('\n').map_or(0, |newline| newline + 1),
        }
    }
}

/// Why a template cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    /// It is malformed.
    #[error("template parsing error: template: :{line}: {fault}")]
    Parse {
        /// Line, from 1.
        line: usize,
        /// What is wrong.
        fault: Fault,
    },
    /// It does not fit the value.
    #[error("template parsing error: template: :{}:{}: executing \"\" at <{action}>: {fault}", place.line, place.column)]
    Execute {
        /// Where.
        place: Place,
        /// The part of the template that failed.
        action: String,
        /// What is wrong.
        fault: Fault,
    },
}

/// What is wrong with a template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fault {
    /// `{{` without `}}`.
    #[error("unclosed action")]
    UnclosedAction,
    /// `{{/*` without `*/}}`.
    #[error("unclosed comment")]
    UnclosedComment,
    /// A quote without its end.
    #[error("unterminated quoted string")]
    UnclosedQuote,
    /// `if`, `range` or `with` without `end`.
    #[error("unexpected EOF")]
    UnexpectedEnd,
    /// Something that does not belong there.
    #[error("unexpected {0} in operand")]
    Unexpected(String),
    /// `{{end}}`, `{{else}}`, `{{break}}` or `{{continue}}` where none belongs.
    #[error("unexpected {{{{{0}}}}}")]
    Misplaced(String),
    /// `{{}}`, `{{if}}`, `()`
    #[error("missing value for {0}")]
    MissingValue(&'static str),
    /// No such function.
    #[error("function {0:?} not defined")]
    NoFunction(String),
    /// No such variable.
    #[error("undefined variable {0:?}")]
    NoVariable(String),
    /// Part of text/template that is not supported.
    #[error("{{{{{0}}}}} is not supported by hull")]
    Unsupported(String),
    /// Deeper than any template is meant to be.
    #[error("nested more than {} deep", parse::MAX_DEPTH)]
    TooDeep,
    /// No such member.
    #[error("map has no entry for key {0:?}")]
    NoEntry(String),
    /// A member of what has none.
    #[error("can't evaluate field {name} in type {kind}")]
    NoField {
        /// The member.
        name: String,
        /// The type of what has none.
        kind: &'static str,
    },
    /// A value is given arguments.
    #[error("can't give argument to non-function {0}")]
    NotFunction(String),
    /// Not something to go through.
    #[error("range can't iterate over {0}")]
    NotIterable(&'static str),
    /// Too few or too many arguments.
    #[error("wrong number of args for {name}: want {want} got {got}")]
    Arguments {
        /// The function.
        name: &'static str,
        /// How many it takes.
        want: &'static str,
        /// How many there were.
        got: usize,
    },
    /// An argument of another type.
    #[error("wrong type for value; expected {want}; got {got}")]
    Type {
        /// What it takes.
        want: &'static str,
        /// What it got.
        got: &'static str,
    },
    /// Beyond a list's end.
    #[error("index out of range: {0}")]
    Range(i64),
    /// Types that do not compare.
    #[error("incompatible types for comparison")]
    Incomparable,
    /// Padding and widths are bounded by [`functions::MAX_PADDING`].
    #[error("{0} columns are more than any line has")]
    TooWide(i64),
}

/// A template that was read.
#[derive(Debug)]
pub(crate) struct Template {
    source: String,
    nodes: Vec<parse::Node>,
}

impl Template {
    /// Reads a template.
    pub(crate) fn parse(text: &str) -> Result<Template, Error> {
        let nodes = parse::parse(text).map_err(|(at, fault)| Error::Parse {
            line: Place::of(text, at).line,
            fault,
        })?;
        Ok(Template {
            source: text.to_owned(),
            nodes,
        })
    }

    /// What it makes of a value.
    pub(crate) fn render(&self, value: &Value) -> Result<String, Error> {
        self.render_labelled(value, &BTreeMap::new())
    }

    /// The same for a row of a listing: `{{.Label "name"}}` is one of `labels`.
    pub(crate) fn render_labelled(
        &self,
        value: &Value,
        labels: &BTreeMap<String, String>,
    ) -> Result<String, Error> {
        self.explained(eval::render(&self.nodes, value, eval::Labels::Of(labels)))
    }

    /// A table's headings, from an object that holds each field's. Functions that change a text leave them as they are.
    pub(crate) fn headings(&self, headings: &Value) -> Result<String, Error> {
        self.explained(eval::render(&self.nodes, headings, eval::Labels::Headings))
    }

    fn explained(&self, rendered: Result<String, eval::Failure>) -> Result<String, Error> {
        rendered.map_err(|failure| Error::Execute {
            place: Place::of(&self.source, failure.from),
            action: self
                .source
                .get(failure.from..failure.to)
                .unwrap_or_default()
                .to_owned(),
            fault: failure.fault,
        })
    }
}
