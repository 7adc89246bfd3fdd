//! Go's text/template, the part that Corefiles use: text to a tree.
//!
//! Owns actions, control and definitions; [`pipeline`] has what stands in them. What Go has and this
//! has not is an error that says so, never a different meaning.

mod pipeline;

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
        name,
        action: Vec::new().into_iter().peekable(),
        began: 1,
        line: 1,
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
    nodes.map_err(|reason| located(parser.line, reason))?;
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
    /// What Go's errors call the template.
    name: &'s str,
    /// What is left of the action that is being read.
    action: std::iter::Peekable<std::vec::IntoIter<Token>>,
    /// The line that it begins on.
    began: usize,
    /// The line of the token that was read last.
    line: usize,
    /// The variables that are known where the parser stands.
    variables: Vec<String>,
    depth: usize,
    /// Controls and definitions that are open.
    open: usize,
    in_range: usize,
    defined: BTreeMap<String, Vec<Node>>,
}

impl Parser<'_> {
    /// The next token, also white space.
    fn next(&mut self) -> Token {
        let end = Token { kind: Kind::End, text: "}}".to_owned(), line: self.line, column: 0 };
        let token = self.action.next().unwrap_or(end);
        self.line = token.line;
        token
    }

    fn peek(&mut self) -> Kind {
        self.action.peek().map_or(Kind::End, |token| token.kind)
    }

    /// The next token, white space left out.
    fn next_solid(&mut self) -> Token {
        self.skip_space();
        self.next()
    }

    fn peek_solid(&mut self) -> Kind {
        self.skip_space();
        self.peek()
    }

    fn skip_space(&mut self) {
        while self.action.next_if(|token| token.kind == Kind::Space).is_some() {}
    }

    fn peek_keyword(&mut self) -> String {
        self.skip_space();
        let keyword = self.action.peek().filter(|token| token.kind == Kind::Keyword);
        keyword.map(|token| token.text.clone()).unwrap_or_default()
    }

    /// The end of the action, or Go's error.
    fn end(&mut self, context: &str) -> Result<(), String> {
        match self.next_solid() {
            token if token.kind == Kind::End => Ok(()),
            token => Err(self.unexpected(&token, context)),
        }
    }

    fn unexpected(&self, token: &Token, context: &str) -> String {
        if token.kind != Kind::Wrong {
            return format!("unexpected {} in {context}", token.shown());
        }
        let started = format!(" started at {}:{}", self.name, self.began);
        match token.line == self.began {
            true => token.text.clone(),
            false if token.text.ends_with(" action") => format!("{}{started}", token.text),
            false => format!("{} in action{started}", token.text),
        }
    }

    fn nodes(&mut self) -> Result<(Vec<Node>, Stop), String> {
        let mut nodes = Vec::new();
        loop {
            // The rest of an `else if` whose `if` has none.
            if self.action.peek().is_some() {
                let token = self.next_solid();
                return Err(self.unexpected(&token, "input"));
            }
            let tokens = match self.pieces.next() {
                None => return Ok((nodes, Stop::Source)),
                Some(Piece::Text(text)) => {
                    self.line += text.matches('\n').count();
                    nodes.push(Node::Text(text));
                    continue;
                }
                Some(Piece::Action(tokens)) => tokens,
            };
            self.began = tokens.first().map_or(self.line, |token| token.line);
            self.action = tokens.into_iter().peekable();
            let keyword = self.peek_keyword();
            match keyword.as_str() {
                "end" => {
                    self.next();
                    self.end("end")?;
                    return Ok((nodes, Stop::End));
                }
                "else" => {
                    self.next();
                    if !["if", "with"].contains(&self.peek_keyword().as_str()) {
                        self.end("else")?;
                    }
                    return Ok((nodes, Stop::Else));
                }
                "if" | "with" | "range" => {
                    self.next();
                    let node = self.control(&keyword)?;
                    nodes.push(node);
                }
                "break" | "continue" => {
                    self.next();
                    self.end(&format!("{{{{{keyword}}}}}"))?;
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
        self.next();
        let token = self.next_solid();
        let name = match token.kind {
            Kind::Quoted => quoted(&token.text)?,
            Kind::Raw => token.text.trim_matches('`').to_owned(),
            _ => return Err(self.unexpected(&token, clause)),
        };
        Ok((name, token))
    }

    /// `define`.
    fn definition(&mut self) -> Result<(), String> {
        const CLAUSE: &str = "define clause";
        let (name, _) = self.clause_name(CLAUSE)?;
        self.end(CLAUSE)?;
        let body = self.apart(CLAUSE)?;
        self.define(name, body)
    }

    /// `template`, or `block`, which defines what it calls.
    fn call(&mut self, keyword: &str) -> Result<Node, String> {
        let clause = format!("{keyword} clause");
        let (name, token) = self.clause_name(&clause)?;
        let is_bare = keyword == "template" && self.peek_solid() == Kind::End;
        let dot = match is_bare {
            true => self.end(&clause).map(|()| None)?,
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
            Stop::Else if keyword != "range" && self.peek_keyword() == keyword => {
                self.next();
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
