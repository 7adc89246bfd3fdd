//! Go's text/template, the part that Corefiles use: text to a tree.
//!
//! Owns actions, control and definitions; [`pipeline`] has what stands in them. What Go has and this
//! has not is an error that says so, never a different meaning.

mod action;
mod pipeline;

use self::action::Action;
use self::pipeline::shown;
use super::literals::quoted;
use super::tokens::{Kind, Piece, Token, cut};
use super::tree::{Node, Place, Tree};
use crate::corefile::quote;
use std::collections::BTreeMap;

/// The greatest depth of nested actions and parentheses.
const MOST_DEPTH: usize = 64;

/// Reads a template. `name` is what Go's errors call it.
pub(super) fn parse(name: &str, source: &str) -> Result<Tree, String> {
    let located = |line: usize, reason: String| format!("template: {name}:{line}: {reason}");
    let pieces = cut(source).map_err(|(line, reason)| located(line, reason))?;
    let mut parser = Parser {
        pieces: pieces.into_iter(),
        action: Action::new(name),
        variables: vec!["$".to_owned()],
        depth: 0,
        open: 0,
        in_range: 0,
        defined: BTreeMap::new(),
    };
    let nodes = parser.nodes().and_then(|(nodes, stop)| match stop {
        // It is the last of its name.
        Stop::Source => parser.define(name.to_owned(), nodes),
        Stop::End => Err("unexpected {{end}}".to_owned()),
        Stop::Else => Err("unexpected {{else}}".to_owned()),
    });
    nodes.map_err(|reason| located(parser.action.line(), reason))?;
    let mut defined = parser.defined;
    let nodes = defined.remove(name).unwrap_or_default();
    Ok(Tree { name: name.to_owned(), nodes, defined })
}

/// What ended a list of nodes.
enum Stop {
    Source,
    End,
    /// The rest of the action is still to be read, when it is another condition.
    Else,
}

struct Parser<'s> {
    pieces: std::vec::IntoIter<Piece>,
    /// The action that is being read.
    action: Action<'s>,
    /// The variables that are known where the parser stands.
    variables: Vec<String>,
    depth: usize,
    /// Controls and definitions that are open.
    open: usize,
    in_range: usize,
    defined: BTreeMap<String, Vec<Node>>,
}

impl Parser<'_> {
    fn nodes(&mut self) -> Result<(Vec<Node>, Stop), String> {
        let mut nodes = Vec::new();
        loop {
            // The rest of an `else if` whose `if` has none.
            if self.action.ahead().is_some() {
                let token = self.action.next_solid();
                return Err(self.action.unexpected(&token, "input"));
            }
            let tokens = match self.pieces.next() {
                None => return Ok((nodes, Stop::Source)),
                Some(Piece::Text(text)) => {
                    self.action.pass(&text);
                    nodes.push(Node::Text(text));
                    continue;
                }
                Some(Piece::Action(tokens)) => tokens,
            };
            self.action.begin(tokens);
            let keyword = self.action.peek_keyword();
            match keyword.as_str() {
                "end" => {
                    self.action.next();
                    self.action.end("end")?;
                    return Ok((nodes, Stop::End));
                }
                "else" => {
                    self.action.next();
                    if !["if", "with"].contains(&self.action.peek_keyword().as_str()) {
                        self.action.end("else")?;
                    }
                    return Ok((nodes, Stop::Else));
                }
                "if" | "with" | "range" => {
                    self.action.next();
                    let node = self.control(&keyword)?;
                    nodes.push(node);
                }
                "break" | "continue" => {
                    self.action.next();
                    self.action.end(&format!("{{{{{keyword}}}}}"))?;
                    if self.in_range == 0 {
                        return Err(format!("{{{{{keyword}}}}} outside {{{{range}}}}"));
                    }
                    nodes.push(if keyword == "break" { Node::Break } else { Node::Continue });
                }
                "template" | "block" => {
                    let call = self.call(&keyword)?;
                    nodes.push(call);
                }
                // Anywhere else it is no definition.
                "define" if self.open == 0 => self.definition()?,
                _ => nodes.push(Node::Print(self.pipeline("command", Kind::End)?)),
            }
        }
    }

    /// The name in a clause, and its token.
    fn clause_name(&mut self, clause: &str) -> Result<(String, Token), String> {
        self.action.next();
        let token = self.action.next_solid();
        let name = match token.kind {
            Kind::Quoted => quoted(&token.text)?,
            Kind::Raw => token.text.trim_matches('`').to_owned(),
            _ => return Err(self.action.unexpected(&token, clause)),
        };
        Ok((name, token))
    }

    /// `define`.
    fn definition(&mut self) -> Result<(), String> {
        const CLAUSE: &str = "define clause";
        let (name, _) = self.clause_name(CLAUSE)?;
        self.action.end(CLAUSE)?;
        let body = self.apart(CLAUSE)?;
        self.define(name, body)
    }

    /// `template`, or `block`, which defines what it calls.
    fn call(&mut self, keyword: &str) -> Result<Node, String> {
        let clause = format!("{keyword} clause");
        let (name, token) = self.clause_name(&clause)?;
        let is_bare = keyword == "template" && self.action.peek_solid() == Kind::End;
        let dot = match is_bare {
            true => self.action.end(&clause).map(|()| None)?,
            false => Some(self.pipeline(&clause, Kind::End)?),
        };
        let with = dot.as_ref().map(|dot| format!(" {}", shown(dot))).unwrap_or_default();
        let text = format!("{{{{template {}{with}}}}}", quote(&name));
        let place = Place { line: token.line, column: token.column, text };
        if keyword == "block" {
            let body = self.apart(&clause)?;
            self.define(name.clone(), body)?;
        }
        Ok(Node::Call(name, dot, place))
    }

    /// The nodes up to `end`, which know nothing of the variables around them.
    fn apart(&mut self, clause: &str) -> Result<Vec<Node>, String> {
        self.deeper()?;
        self.open += 1;
        let variables = std::mem::replace(&mut self.variables, vec!["$".to_owned()]);
        let in_range = std::mem::take(&mut self.in_range);
        let (nodes, stop) = self.nodes()?;
        (self.variables, self.in_range) = (variables, in_range);
        self.open -= 1;
        self.depth -= 1;
        match stop {
            Stop::End => Ok(nodes),
            Stop::Source => Err("unexpected EOF".to_owned()),
            Stop::Else => Err(format!("unexpected {{{{else}}}} in {clause}")),
        }
    }

    /// Gives nodes a name. One that has nothing to show gives way to another of its name.
    fn define(&mut self, name: String, nodes: Vec<Node>) -> Result<(), String> {
        match self.defined.get(&name) {
            Some(known) if !is_blank(known) => match is_blank(&nodes) {
                true => Ok(()),
                false => Err(format!("template: multiple definition of template {}", quote(&name))),
            },
            _ => {
                self.defined.insert(name, nodes);
                Ok(())
            }
        }
    }

    fn control(&mut self, keyword: &str) -> Result<Node, String> {
        self.deeper()?;
        let known = self.variables.len();
        let pipeline = self.pipeline(keyword, Kind::End)?;
        self.open += 1;
        self.in_range += usize::from(keyword == "range");
        let (body, end) = self.nodes()?;
        self.in_range -= usize::from(keyword == "range");
        let otherwise = match end {
            Stop::End => Vec::new(),
            Stop::Source => return Err("unexpected EOF".to_owned()),
            // `else if` shares the `end` of its `if`.
            Stop::Else if keyword != "range" && self.action.peek_keyword() == keyword => {
                self.action.next();
                vec![self.control(keyword)?]
            }
            Stop::Else => match self.nodes()? {
                (nodes, Stop::End) => nodes,
                (_, Stop::Source) => return Err("unexpected EOF".to_owned()),
                (_, Stop::Else) => return Err("expected end; found {{else}}".to_owned()),
            },
        };
        self.open -= 1;
        self.variables.truncate(known);
        self.depth -= 1;
        Ok(match keyword {
            "if" => Node::If(pipeline, body, otherwise),
            "with" => Node::With(pipeline, body, otherwise),
            _ => Node::Range(pipeline, body, otherwise),
        })
    }

    fn deeper(&mut self) -> Result<(), String> {
        self.depth += 1;
        match self.depth > MOST_DEPTH {
            true => Err("template is nested too deeply".to_owned()),
            false => Ok(()),
        }
    }
}

/// Whether nodes are white space and no more.
fn is_blank(nodes: &[Node]) -> bool {
    nodes.iter().all(|node| matches!(node, Node::Text(text) if text.trim().is_empty()))
}

#[cfg(test)]
mod tests;
