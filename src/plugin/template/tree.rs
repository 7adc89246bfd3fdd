//! A template once it is read: nodes, pipelines, operands.
//!
//! Owns no behaviour: `syntax` makes the tree, `evaluate` walks it.

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
}

/// Commands, each fed with the value of the one before.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Pipeline {
    /// The variables that it sets, `$` included.
    pub(super) variables: Vec<String>,
    /// `:=` rather than `=`.
    pub(super) declares: bool,
    /// At least one.
    pub(super) commands: Vec<Vec<Term>>,
}

/// An operand.
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
