//! Execution of a template.

use std::collections::BTreeMap;

use serde_json::Value;

use super::Fault;
use super::functions::{self, Function};
use super::parse::{Node, Operand, Pipeline, Term};

/// A value; `None` is a missing key of a map, which prints as Go prints it.
pub(super) type Got = Option<Value>;

/// What failed, and where in the template.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) fault: Fault,
}

/// What `.Label "name"` gives.
#[derive(Clone, Copy)]
pub(super) enum Labels<'a> {
    /// A row's label.
    Of(&'a BTreeMap<String, String>),
    /// The heading of such a column: the name's last part. Functions that change a text leave headings as they are.
    Headings,
}

impl Labels<'_> {
    fn get(self, name: &str) -> String {
        match self {
            Labels::Of(labels) => labels.get(name).cloned().unwrap_or_default(),
            Labels::Headings => {
                let last = name.rsplit('.').next().unwrap_or(name);
                last.replace(['-', '_'], " ")
            }
        }
    }
}

/// How a list of nodes ended.
#[derive(Debug, PartialEq, Eq)]
enum Flow {
    On,
    Break,
    Continue,
}

/// Executes a template with `value` as its dot.
pub(super) fn render(nodes: &[Node], value: &Value, labels: Labels<'_>) -> Result<String, Failure> {
    let mut executor = Executor {
        root: value,
        labels,
        variables: Vec::new(),
        out: String::new(),
    };
    executor.nodes(nodes, Some(value))?;
    Ok(executor.out)
}

struct Executor<'a> {
    /// `$`.
    root: &'a Value,
    labels: Labels<'a>,
    variables: Vec<(String, Got)>,
    out: String,
}

impl Executor<'_> {
    fn nodes(&mut self, nodes: &[Node], dot: Option<&Value>) -> Result<Flow, Failure> {
        let scope = self.variables.len();
        let mut flow = Flow::On;
        for node in nodes {
            flow = self.node(node, dot)?;
            if flow != Flow::On {
                break;
            }
        }
        self.variables.truncate(scope);
        Ok(flow)
    }

    fn node(&mut self, node: &Node, dot: Option<&Value>) -> Result<Flow, Failure> {
        match node {
            Node::Text(text) => self.out.push_str(text),
            Node::Print(pipeline) => {
                let value = self.pipeline(pipeline, dot)?;
                if pipeline.variables.is_empty() {
                    self.out.push_str(&functions::text(value.as_ref()));
                }
            }
            Node::Branch {
                condition,
                is_with,
                then,
                otherwise,
            } => {
                let scope = self.variables.len();
                let value = self.pipeline(condition, dot)?;
                let flow = if !functions::is_true(value.as_ref()) {
                    self.nodes(otherwise, dot)?
                } else if *is_with {
                    self.nodes(then, value.as_ref())?
                } else {
                    self.nodes(then, dot)?
                };
                self.variables.truncate(scope);
                return Ok(flow);
            }
            Node::Range {
                over,
                body,
                otherwise,
            } => return self.range(over, body, otherwise, dot),
            Node::Break => return Ok(Flow::Break),
            Node::Continue => return Ok(Flow::Continue),
        }
        Ok(Flow::On)
    }

    fn range(
        &mut self,
        over: &Pipeline,
        body: &[Node],
        otherwise: &[Node],
        dot: Option<&Value>,
    ) -> Result<Flow, Failure> {
        let value = self.commands(over, dot)?;
        let items: Vec<(Value, Value)> = match value {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Array(items)) => items
                .into_iter()
                .enumerate()
                .map(|(index, item)| (Value::from(index), item))
                .collect(),
            Some(Value::Object(members)) => members
                .into_iter()
                .map(|(key, member)| (Value::String(key), member))
                .collect(),
            Some(other) => {
                return Err(failure_of(
                    over,
                    Fault::NotIterable(functions::kind(&other)),
                ));
            }
        };
        if items.is_empty() {
            return self.nodes(otherwise, dot);
        }
        let scope = self.variables.len();
        for (key, item) in items {
            self.variables.truncate(scope);
            let values: Vec<Got> = match over.variables.len() {
                2 => vec![Some(key), Some(item.clone())],
                _ => vec![Some(item.clone())],
            };
            for (name, value) in over.variables.iter().zip(values) {
                self.set(name, value, over.declares);
            }
            if self.nodes(body, Some(&item))? == Flow::Break {
                break;
            }
        }
        self.variables.truncate(scope);
        Ok(Flow::On)
    }

    fn set(&mut self, name: &str, value: Got, is_new: bool) {
        let known = self
            .variables
            .iter_mut()
            .rev()
            .find(|(known, _)| known == name);
        match known {
            Some((_, known)) if !is_new => *known = value,
            _ => self.variables.push((name.to_owned(), value)),
        }
    }

    fn pipeline(&mut self, pipeline: &Pipeline, dot: Option<&Value>) -> Result<Got, Failure> {
        let value = self.commands(pipeline, dot)?;
        for name in &pipeline.variables {
            self.set(name, value.clone(), pipeline.declares);
        }
        Ok(value)
    }

    fn commands(&mut self, pipeline: &Pipeline, dot: Option<&Value>) -> Result<Got, Failure> {
        let mut last: Option<Got> = None;
        for command in &pipeline.commands {
            last = Some(self.command(command, last, dot)?);
        }
        Ok(last.flatten())
    }

    /// `piped`: the value of the command before, which is the last argument.
    fn command(
        &mut self,
        operands: &[Operand],
        piped: Option<Got>,
        dot: Option<&Value>,
    ) -> Result<Got, Failure> {
        let Some((first, rest)) = operands.split_first() else {
            return Ok(None);
        };
        let function = match &first.term {
            Term::Function(function) => Some(*function),
            // Docker's rows have this one method.
            Term::Dot if first.fields == ["Label"] => None,
            _ if !rest.is_empty() || piped.is_some() => {
                return Err(failure(
                    first,
                    Fault::NotFunction(format!("{:?}", first.fields.join("."))),
                ));
            }
            _ => return self.operand(first, dot),
        };
        if let Some(value) = self.short_circuit(function, rest, piped.as_ref(), dot)? {
            return Ok(value);
        }
        let mut arguments = Vec::with_capacity(rest.len() + 1);
        for operand in rest {
            arguments.push(self.operand(operand, dot)?);
        }
        arguments.extend(piped);
        let value = match function {
            Some(function)
                if matches!(self.labels, Labels::Headings) && function.changes_text() =>
            {
                arguments.into_iter().next().flatten()
            }
            Some(function) => function
                .call(&arguments)
                .map_err(|fault| failure(first, fault))?,
            None => return self.label(first, &arguments, dot),
        };
        let member = members(value.as_ref(), &first.fields);
        Ok(member.map_err(|fault| failure(first, fault))?.cloned())
    }

    /// `and` and `or` evaluate no more than they must.
    fn short_circuit(
        &mut self,
        function: Option<Function>,
        operands: &[Operand],
        piped: Option<&Got>,
        dot: Option<&Value>,
    ) -> Result<Option<Got>, Failure> {
        let until = match function {
            Some(Function::And) => false,
            Some(Function::Or) => true,
            _ => return Ok(None),
        };
        let mut value = None;
        for operand in operands {
            let got = self.operand(operand, dot)?;
            let is_last = functions::is_true(got.as_ref()) == until;
            value = Some(got);
            if is_last {
                return Ok(value);
            }
        }
        Ok(piped.cloned().or(value))
    }

    fn label(
        &mut self,
        operand: &Operand,
        arguments: &[Got],
        dot: Option<&Value>,
    ) -> Result<Got, Failure> {
        match arguments {
            [Some(Value::String(name))] => Ok(Some(Value::String(self.labels.get(name)))),
            [] => self.operand(operand, dot),
            arguments => Err(failure(
                operand,
                Fault::Arguments {
                    name: "Label",
                    want: "1",
                    got: arguments.len(),
                },
            )),
        }
    }

    fn operand(&mut self, operand: &Operand, dot: Option<&Value>) -> Result<Got, Failure> {
        let made;
        let value = match &operand.term {
            Term::Dot => dot,
            Term::Literal(value) => Some(value),
            Term::Variable(name) => {
                let found = self.variables.iter().rev().find(|(known, _)| known == name);
                match found {
                    Some((_, value)) => value.as_ref(),
                    None => (name == "$").then_some(self.root),
                }
            }
            Term::Group(pipeline) => {
                made = self.pipeline(pipeline, dot)?;
                made.as_ref()
            }
            Term::Function(function) => {
                made = function
                    .call(&[])
                    .map_err(|fault| failure(operand, fault))?;
                made.as_ref()
            }
        };
        let member = members(value, &operand.fields).map_err(|fault| failure(operand, fault))?;
        Ok(member.cloned())
    }
}

/// A member of a member, and so on. A key of a map need not be there; Go's own structures have capitalised members alone,
/// so a capitalised one that is missing is a mistake.
fn members<'a>(
    mut value: Option<&'a Value>,
    fields: &[String],
) -> Result<Option<&'a Value>, Fault> {
    for name in fields {
        value = match value {
            Some(Value::Object(object)) => match object.get(name) {
                Some(member) => Some(member),
                None if name.starts_with(char::is_uppercase) => {
                    return Err(Fault::NoEntry(name.clone()));
                }
                None => None,
            },
            None | Some(Value::Null) => None,
            Some(other) => {
                return Err(Fault::NoField {
                    name: name.clone(),
                    kind: functions::kind(other),
                });
            }
        };
    }
    Ok(value)
}

fn failure(operand: &Operand, fault: Fault) -> Failure {
    Failure {
        from: operand.from,
        to: operand.to,
        fault,
    }
}

fn failure_of(pipeline: &Pipeline, fault: Fault) -> Failure {
    let mut operands = pipeline.commands.iter().flatten();
    match operands.next() {
        Some(first) => failure(first, fault),
        None => Failure {
            from: 0,
            to: 0,
            fault,
        },
    }
}
