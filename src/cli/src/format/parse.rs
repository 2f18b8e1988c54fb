//! From a template's tokens to its tree.

use serde_json::Value;

use super::Fault;
use super::functions::Function;
use super::lex::{Kind, Token, lex};

/// How deep blocks and parentheses may nest, so that no template exhausts the stack.
pub(super) const MAX_DEPTH: usize = 64;

/// A part of a template.
#[derive(Debug)]
pub(super) enum Node {
    /// Text as it is.
    Text(String),
    /// A pipeline whose value is printed, unless it declares a variable.
    Print(Pipeline),
    /// `if`, or `with`, which makes its condition the dot.
    Branch {
        condition: Pipeline,
        is_with: bool,
        then: Vec<Node>,
        otherwise: Vec<Node>,
    },
    /// `range`
    Range {
        over: Pipeline,
        body: Vec<Node>,
        otherwise: Vec<Node>,
    },
    /// `break`
    Break,
    /// `continue`
    Continue,
}

/// Commands, of which each is the last argument of the next.
#[derive(Debug)]
pub(super) struct Pipeline {
    /// Variables that it sets; `range` has up to two.
    pub(super) variables: Vec<String>,
    /// They are new.
    pub(super) declares: bool,
    /// Never empty.
    pub(super) commands: Vec<Vec<Operand>>,
}

/// A value or function, and its bytes in the template.
#[derive(Debug)]
pub(super) struct Operand {
    pub(super) term: Term,
    /// Members of the value, outermost first.
    pub(super) fields: Vec<String>,
    pub(super) from: usize,
    pub(super) to: usize,
}

/// What an operand begins with.
#[derive(Debug)]
pub(super) enum Term {
    /// `.`
    Dot,
    /// With its dollar sign.
    Variable(String),
    /// A constant.
    Literal(Value),
    /// A function.
    Function(Function),
    /// A pipeline in parentheses.
    Group(Pipeline),
}

type Parsed<T> = Result<T, (usize, Fault)>;

/// Reads a template.
pub(super) fn parse(text: &str) -> Parsed<Vec<Node>> {
    let tokens = lex(text)?;
    let mut parser = Parser {
        tokens,
        next: 0,
        end: text.len(),
        depth: 0,
        ranges: 0,
        variables: vec!["$".to_owned()],
    };
    let (nodes, end) = parser.block()?;
    match end {
        BlockEnd::Template => Ok(nodes),
        BlockEnd::End => Err((parser.position(), Fault::Misplaced("end".into()))),
        BlockEnd::Else => Err((parser.position(), Fault::Misplaced("else".into()))),
    }
}

/// What a block ended with. After `else` the action is not finished.
#[derive(Debug, PartialEq, Eq)]
enum BlockEnd {
    Template,
    End,
    Else,
}

struct Parser {
    tokens: Vec<Token>,
    next: usize,
    end: usize,
    depth: usize,
    ranges: usize,
    variables: Vec<String>,
}

impl Parser {
    fn position(&self) -> usize {
        self.tokens
            .get(self.next)
            .map_or(self.end, |token| token.from)
    }

    fn peek(&self) -> Option<&Kind> {
        self.tokens.get(self.next).map(|token| &token.kind)
    }

    fn take(&mut self) -> Option<Token> {
        let token = self.tokens.get(self.next).cloned();
        self.next += usize::from(token.is_some());
        token
    }

    fn skip_blank(&mut self) {
        while self.peek() == Some(&Kind::Blank) {
            self.next += 1;
        }
    }

    fn unexpected(&self) -> (usize, Fault) {
        let fault = match self.peek() {
            None => Fault::UnclosedAction,
            Some(Kind::Close) => Fault::MissingValue("command"),
            Some(kind) => Fault::Unexpected(describe(kind)),
        };
        (self.position(), fault)
    }

    fn enter(&mut self) -> Parsed<()> {
        self.depth += 1;
        match self.depth > MAX_DEPTH {
            true => Err((self.position(), Fault::TooDeep)),
            false => Ok(()),
        }
    }

    /// Nodes until the end of the template, `{{end}}` or `{{else`.
    fn block(&mut self) -> Parsed<(Vec<Node>, BlockEnd)> {
        self.enter()?;
        let scope = self.variables.len();
        let mut nodes = Vec::new();
        let end = loop {
            let Some(token) = self.take() else {
                break BlockEnd::Template;
            };
            if let Kind::Text(text) = token.kind {
                nodes.push(Node::Text(text));
                continue;
            }
            self.skip_blank();
            let word = match self.peek() {
                Some(Kind::Word(word)) => word.clone(),
                _ => String::new(),
            };
            match word.as_str() {
                "end" => {
                    self.next += 1;
                    self.close()?;
                    break BlockEnd::End;
                }
                "else" => {
                    self.next += 1;
                    break BlockEnd::Else;
                }
                word => nodes.push(self.action(word)?),
            }
        };
        self.variables.truncate(scope);
        self.depth -= 1;
        Ok((nodes, end))
    }

    /// An action, whose first word this is if it begins with one.
    fn action(&mut self, word: &str) -> Parsed<Node> {
        match word {
            "if" | "with" | "range" => {
                self.next += 1;
                self.control(word)
            }
            "break" | "continue" => {
                if self.ranges == 0 {
                    return Err((self.position(), Fault::Misplaced(word.to_owned())));
                }
                self.next += 1;
                self.close()?;
                Ok(match word {
                    "break" => Node::Break,
                    _ => Node::Continue,
                })
            }
            "define" | "template" | "block" => {
                Err((self.position(), Fault::Unsupported(word.to_owned())))
            }
            _ => {
                let pipeline = self.pipeline("command", false)?;
                self.close()?;
                Ok(Node::Print(pipeline))
            }
        }
    }

    /// `if`, `with` or `range`, from behind its word.
    fn control(&mut self, word: &str) -> Parsed<Node> {
        let scope = self.variables.len();
        let is_range = word == "range";
        let context = match word {
            "if" => "if",
            "with" => "with",
            _ => "range",
        };
        let condition = self.pipeline(context, is_range)?;
        self.close()?;
        self.ranges += usize::from(is_range);
        let (then, end) = self.block()?;
        self.ranges -= usize::from(is_range);
        let otherwise = match end {
            BlockEnd::Template => return Err((self.end, Fault::UnexpectedEnd)),
            BlockEnd::End => Vec::new(),
            BlockEnd::Else => self.otherwise(is_range)?,
        };
        self.variables.truncate(scope);
        Ok(match is_range {
            true => Node::Range {
                over: condition,
                body: then,
                otherwise,
            },
            false => Node::Branch {
                condition,
                is_with: word == "with",
                then,
                otherwise,
            },
        })
    }

    /// What follows `else`: `}}` and a block, or `if …` and all that belongs to it, whose `end` is this one's too.
    fn otherwise(&mut self, is_range: bool) -> Parsed<Vec<Node>> {
        self.skip_blank();
        if let Some(Kind::Word(word)) = self.peek().cloned()
            && matches!(word.as_str(), "if" | "with")
            && !is_range
        {
            self.next += 1;
            self.enter()?;
            let node = self.control(&word)?;
            self.depth -= 1;
            return Ok(vec![node]);
        }
        self.close()?;
        match self.block()? {
            (nodes, BlockEnd::End) => Ok(nodes),
            (_, BlockEnd::Template) => Err((self.end, Fault::UnexpectedEnd)),
            (_, BlockEnd::Else) => Err((self.position(), Fault::Misplaced("else".into()))),
        }
    }

    fn close(&mut self) -> Parsed<()> {
        self.skip_blank();
        match self.peek() {
            Some(Kind::Close) => {
                self.next += 1;
                Ok(())
            }
            _ => Err(self.unexpected()),
        }
    }

    /// A pipeline up to `}}` or `)`, neither of which is taken.
    fn pipeline(&mut self, context: &'static str, is_range: bool) -> Parsed<Pipeline> {
        let (variables, declares) = self.declaration(is_range)?;
        let mut commands = Vec::new();
        loop {
            let command = self.command()?;
            if command.is_empty() {
                return Err((self.position(), Fault::MissingValue(context)));
            }
            commands.push(command);
            match self.peek() {
                Some(Kind::Pipe) => self.next += 1,
                Some(Kind::Close | Kind::Right) => break,
                _ => return Err(self.unexpected()),
            }
        }
        if declares {
            self.variables.extend(variables.iter().cloned());
        }
        Ok(Pipeline {
            variables,
            declares,
            commands,
        })
    }

    /// `$a :=`, `$a =`, and for `range` `$a, $b :=`; otherwise nothing is taken.
    fn declaration(&mut self, is_range: bool) -> Parsed<(Vec<String>, bool)> {
        let from = self.next;
        let mut names = Vec::new();
        loop {
            self.skip_blank();
            let Some(Kind::Variable(name)) = self.peek().cloned() else {
                break;
            };
            names.push(name);
            self.next += 1;
            self.skip_blank();
            match self.peek() {
                Some(Kind::Comma) if is_range && names.len() < 2 => self.next += 1,
                Some(Kind::Declare) => {
                    self.next += 1;
                    return Ok((names, true));
                }
                Some(Kind::Assign) => {
                    self.next += 1;
                    for name in &names {
                        self.known(name)?;
                    }
                    return Ok((names, false));
                }
                _ => break,
            }
        }
        self.next = from;
        Ok((Vec::new(), false))
    }

    fn known(&self, name: &str) -> Parsed<()> {
        match self.variables.iter().any(|known| known == name) {
            true => Ok(()),
            false => Err((self.position(), Fault::NoVariable(name.to_owned()))),
        }
    }

    fn command(&mut self) -> Parsed<Vec<Operand>> {
        let mut operands = Vec::new();
        loop {
            self.skip_blank();
            match self.peek() {
                Some(Kind::Pipe | Kind::Close | Kind::Right) => return Ok(operands),
                _ => operands.push(self.operand()?),
            }
        }
    }

    fn operand(&mut self) -> Parsed<Operand> {
        let from = self.position();
        let Some(token) = self.take() else {
            return Err(self.unexpected());
        };
        let mut fields = Vec::new();
        let term = match token.kind {
            Kind::Dot => Term::Dot,
            Kind::Field(name) => {
                fields.push(name);
                Term::Dot
            }
            Kind::Variable(name) => {
                self.known(&name)?;
                Term::Variable(name)
            }
            Kind::Quoted(text) => Term::Literal(Value::String(text)),
            Kind::Integer(number) => Term::Literal(Value::from(number)),
            Kind::Float(number) => Term::Literal(Value::from(number)),
            Kind::Left => {
                self.enter()?;
                let group = self.pipeline("parenthesized pipeline", false)?;
                self.depth -= 1;
                match self.peek() {
                    Some(Kind::Right) => self.next += 1,
                    _ => return Err(self.unexpected()),
                }
                Term::Group(group)
            }
            Kind::Word(word) => match word.as_str() {
                "true" => Term::Literal(Value::Bool(true)),
                "false" => Term::Literal(Value::Bool(false)),
                "nil" => Term::Literal(Value::Null),
                name => match Function::named(name) {
                    Some(function) => Term::Function(function),
                    None => return Err((from, Fault::NoFunction(word))),
                },
            },
            kind => return Err((from, Fault::Unexpected(describe(&kind)))),
        };
        while let Some(Kind::Field(name)) = self.peek().cloned() {
            fields.push(name);
            self.next += 1;
        }
        let to = self
            .tokens
            .get(self.next.saturating_sub(1))
            .map_or(from, |token| token.to);
        Ok(Operand {
            term,
            fields,
            from,
            to,
        })
    }
}

fn describe(kind: &Kind) -> String {
    match kind {
        Kind::Word(word) => format!("<{word}>"),
        Kind::Field(name) => format!("<.{name}>"),
        Kind::Pipe => "\"|\"".into(),
        Kind::Right => "right paren".into(),
        Kind::Comma => "\",\"".into(),
        Kind::Assign => "\"=\"".into(),
        Kind::Declare => "\":=\"".into(),
        _ => "token".into(),
    }
}
