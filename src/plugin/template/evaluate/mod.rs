//! Go's text/template, the part that Corefiles use: a tree and a query to text.
//!
//! Owns variables and control; [`command`] has the value of a pipeline, [`Data`] what the names mean. Bounded by [`MOST_STEPS`],
//! [`MOST_DEPTH`] and [`MOST_TEXT`], whatever the query.

mod command;

use super::data::Data;
use super::functions::{MOST_TEXT, Value};
use super::tree::{Node, Pipeline, Place, Tree};
use crate::corefile::quote;

/// The most nodes and commands that one execution may visit.
const MOST_STEPS: usize = 100_000;

/// How deep lists of nodes may be executed within others: more than a template without calls can have.
const MOST_DEPTH: usize = 100;

/// Why an execution ended, and where in the template.
#[derive(Debug)]
pub(super) struct Fault<'t> {
    /// The template that was called and failed, when it is not the first.
    within: Option<&'t str>,
    place: Option<&'t Place>,
    reason: String,
}

impl Fault<'_> {
    fn at(place: &Place, reason: String) -> Fault<'_> {
        Fault { within: None, place: Some(place), reason }
    }

    /// Go's error; `name` is what it calls the template.
    pub(super) fn told(&self, name: &str) -> String {
        let Fault { within, place, reason } = self;
        let executing = quote(within.unwrap_or(name));
        match place {
            None => format!("template: {name}: executing {executing}: {reason}"),
            Some(Place { line, column, text }) => {
                format!(
                    "template: {name}:{line}:{column}: executing {executing} at <{text}>: {reason}"
                )
            }
        }
    }
}

impl From<String> for Fault<'_> {
    fn from(reason: String) -> Self {
        Fault { within: None, place: None, reason }
    }
}

/// Executes a template.
pub(super) fn execute<'t>(tree: &'t Tree, data: &Data<'_>) -> Result<String, Fault<'t>> {
    let variables = vec![("$", Value::Data)];
    let mut run = Run { tree, data, out: String::new(), variables, steps: 0, depth: 0 };
    run.nodes(&tree.nodes, &Value::Data)?;
    Ok(run.out)
}

/// How a list of nodes ended.
#[derive(PartialEq)]
enum Ended {
    Whole,
    Break,
    Continue,
}

struct Run<'d, 't> {
    tree: &'t Tree,
    data: &'d Data<'d>,
    out: String,
    variables: Vec<(&'t str, Value)>,
    steps: usize,
    depth: usize,
}

impl<'t> Run<'_, 't> {
    fn step(&mut self) -> Result<(), String> {
        self.steps += 1;
        match self.steps > MOST_STEPS || self.out.len() > MOST_TEXT {
            true => Err("template takes too long".to_owned()),
            false => Ok(()),
        }
    }

    fn nodes(&mut self, nodes: &'t [Node], dot: &Value) -> Result<Ended, Fault<'t>> {
        self.depth += 1;
        let ended = self.each_node(nodes, dot);
        self.depth -= 1;
        ended
    }

    fn each_node(&mut self, nodes: &'t [Node], dot: &Value) -> Result<Ended, Fault<'t>> {
        for node in nodes {
            self.step()?;
            let ended = match node {
                Node::Text(text) => {
                    self.out.push_str(text);
                    Ended::Whole
                }
                Node::Print(pipeline) => {
                    let value = self.pipeline(pipeline, dot)?;
                    if pipeline.variables.is_empty() {
                        self.out.push_str(&value.print()?);
                    }
                    Ended::Whole
                }
                Node::If(pipeline, body, otherwise) => {
                    let known = self.variables.len();
                    let is_true = self.pipeline(pipeline, dot)?.is_true();
                    let ended = self.nodes(if is_true { body } else { otherwise }, dot)?;
                    self.variables.truncate(known);
                    ended
                }
                Node::With(pipeline, body, otherwise) => {
                    let known = self.variables.len();
                    let value = self.pipeline(pipeline, dot)?;
                    let ended = match value.is_true() {
                        true => self.nodes(body, &value)?,
                        false => self.nodes(otherwise, dot)?,
                    };
                    self.variables.truncate(known);
                    ended
                }
                Node::Range(pipeline, body, otherwise) => {
                    let known = self.variables.len();
                    let ended = self.range(pipeline, body, otherwise, dot)?;
                    self.variables.truncate(known);
                    ended
                }
                Node::Break => Ended::Break,
                Node::Continue => Ended::Continue,
                Node::Call(name, pipeline, place) => {
                    self.call(name, pipeline.as_ref(), place, dot)?;
                    Ended::Whole
                }
            };
            if ended != Ended::Whole {
                return Ok(ended);
            }
        }
        Ok(Ended::Whole)
    }

    /// Executes the template of a name with a dot of its own and no variable of the caller's.
    fn call(
        &mut self,
        name: &'t str,
        pipeline: Option<&'t Pipeline>,
        place: &'t Place,
        dot: &Value,
    ) -> Result<(), Fault<'t>> {
        let Some(nodes) = self.tree.called(name) else {
            return Err(Fault::at(place, format!("template {} not defined", quote(name))));
        };
        if self.depth >= MOST_DEPTH {
            let reason = format!("exceeded maximum template depth ({MOST_DEPTH})");
            return Err(Fault::at(place, reason));
        }
        let dot = match pipeline {
            Some(pipeline) => self.pipeline(pipeline, dot)?,
            None => Value::Nothing,
        };
        let outer = std::mem::replace(&mut self.variables, vec![("$", dot.clone())]);
        let ended = self.nodes(nodes, &dot);
        self.variables = outer;
        match ended {
            Ok(_) => Ok(()),
            Err(mut fault) => {
                fault.within.get_or_insert(name);
                Err(fault)
            }
        }
    }

    fn range(
        &mut self,
        pipeline: &'t Pipeline,
        body: &'t [Node],
        otherwise: &'t [Node],
        dot: &Value,
    ) -> Result<Ended, Fault<'t>> {
        let value = self.commands(&pipeline.commands, dot)?;
        // Go knows what it looked at last.
        let last = pipeline.commands.last().and_then(|command| command.operands.first());
        let fault = |reason: String| Fault {
            within: None,
            place: last.map(|operand| &operand.place),
            reason,
        };
        let items: Vec<(Value, Value)> = match &value {
            Value::List(list) => list
                .iter()
                .enumerate()
                .map(|(at, item)| (Value::Integer(at as i128), item.clone()))
                .collect(),
            Value::Map(map) => {
                map.iter().map(|(key, item)| (Value::text(key), item.clone())).collect()
            }
            Value::Integer(count) if pipeline.variables.len() > 1 => {
                let reason = format!("can't use {count} to iterate over more than one variable");
                return Err(fault(reason));
            }
            Value::Integer(count) => {
                if *count > MOST_STEPS as i128 {
                    return Err("template takes too long".to_owned().into());
                }
                (0..*count).map(|at| (Value::Integer(at), Value::Integer(at))).collect()
            }
            Value::Nothing | Value::Nil => Vec::new(),
            other => return Err(fault(format!("range can't iterate over {}", other.print()?))),
        };
        if items.is_empty() {
            return self.nodes(otherwise, dot);
        }
        let known = self.variables.len();
        for (key, item) in items {
            self.step()?;
            self.variables.truncate(known);
            match pipeline.variables.as_slice() {
                [one] => self.bind(pipeline, one, item.clone())?,
                [first, second] => {
                    self.bind(pipeline, first, key)?;
                    self.bind(pipeline, second, item.clone())?;
                }
                _ => {}
            }
            if self.nodes(body, &item)? == Ended::Break {
                break;
            }
        }
        Ok(Ended::Whole)
    }

    /// Gives a variable of the pipeline its value, declaring it where the pipeline does so.
    fn bind(&mut self, pipeline: &Pipeline, name: &'t str, value: Value) -> Result<(), String> {
        if pipeline.declares {
            self.variables.push((name, value));
            return Ok(());
        }
        let old = self.variables.iter_mut().rev().find(|(known, _)| *known == name);
        let (_, old) = old.ok_or_else(|| format!("undefined variable: {name}"))?;
        *old = value;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
