//! A template once it is read: nodes, pipelines, operands.
//!
//! Owns no behaviour: `syntax` makes the tree, `evaluate` walks it.

use std::collections::BTreeMap;

/// A template with those that are defined in it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Tree {
    /// What Go's errors call it, and by which it can call itself.
    pub(super) name: String,
    /// What is executed.
    pub(super) nodes: Vec<Node>,
    /// What `define` and `block` name.
    pub(super) defined: BTreeMap<String, Vec<Node>>,
}

impl Tree {
    /// The nodes that a name stands for.
    pub(super) fn called(&self, name: &str) -> Option<&Vec<Node>> {
        if name == self.name { Some(&self.nodes) } else { self.defined.get(name) }
    }
}

/// A part of a template.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Node {
    /// Literal text.
    Text(String),
    /// A pipeline whose value is written, unless it only sets variables.
    Print(Pipeline),
    /// `if`, with the nodes of `else`.
    If(Pipeline, Vec<Node>, Vec<Node>),
    /// `with`, with the nodes of `else`.
    With(Pipeline, Vec<Node>, Vec<Node>),
    /// `range`, with the nodes of `else`.
    Range(Pipeline, Vec<Node>, Vec<Node>),
    /// `break` inside `range`.
    Break,
    /// `continue` inside `range`.
    Continue,
    /// `template`, or `block` where it stands: a name, and what becomes the dot there.
    Call(String, Option<Pipeline>, Place),
}

/// Commands, each fed with the value of the one before.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Pipeline {
    /// The variables that it sets, `$` included.
    pub(super) variables: Vec<String>,
    /// `:=` rather than `=`.
    pub(super) declares: bool,
    /// At least one.
    pub(super) commands: Vec<Command>,
}

/// What makes a value, or takes one: a function or a value, and arguments.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Command {
    /// At least one.
    pub(super) operands: Vec<Operand>,
    /// Where it stands, whole.
    pub(super) place: Place,
}

/// A term and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Operand {
    pub(super) term: Term,
    pub(super) place: Place,
}

/// What Go's errors say of where something stands: line from 1, octets before it in that line, text.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Place {
    pub(super) line: usize,
    pub(super) column: usize,
    pub(super) text: String,
}

/// What stands where an operand does.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Term {
    /// `nil`.
    Nil,
    /// `true` or `false`.
    Bool(bool),
    /// A number or character.
    Integer(i128),
    /// A string.
    Text(String),
    /// A function's name.
    Function(String),
    /// `.` and fields of it.
    Dot(Vec<String>),
    /// `$x` and fields of it.
    Variable(String, Vec<String>),
    /// `( … )` and fields of its value.
    Group(Box<Pipeline>, Vec<String>),
}
