//! Go's text/template, the part that Corefiles use: text to a tree.
//!
//! Owns actions, control, pipelines and operands. What Go has and this has not is an
//! error that says so, never a different meaning.

use super::functions::is_function;
use super::literals::{character, integer, quoted};
use super::tokens::{Kind, Piece, Token, cut};
use super::tree::{Command, Node, Operand, Pipeline, Place, Term, Tree};
use crate::corefile::quote;
use std::collections::BTreeMap;

/// The greatest depth of nested actions and parentheses.
const MOST_DEPTH: usize = 64;

/// Fields of `.Message` that can be read.
pub(super) const MESSAGE_FIELDS: &[&str] = &[
    "Id",
    "Response",
    "Opcode",
    "Authoritative",
    "Truncated",
    "RecursionDesired",
    "RecursionAvailable",
    "Zero",
    "AuthenticatedData",
    "CheckingDisabled",
    "Rcode",
];

/// What Go has and templates here cannot use.
const ABSENT_FUNCTIONS: &[&str] = &["call"];

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

    /// A pipeline up to `end`, which is taken.
    fn pipeline(&mut self, context: &str, end: Kind) -> Result<Pipeline, String> {
        let mut pipeline = Pipeline::default();
        self.declarations(&mut pipeline, context)?;
        loop {
            match self.peek_solid() {
                kind if kind == end => {
                    self.next();
                    break;
                }
                kind if self.begins_term(kind) => {
                    let command = self.command()?;
                    pipeline.commands.push(command);
                }
                _ => {
                    let token = self.next();
                    return Err(self.unexpected(&token, context));
                }
            }
        }
        if pipeline.commands.is_empty() {
            return Err(format!("missing value for {context}"));
        }
        let stages = pipeline.commands.iter().enumerate().skip(1);
        for (before, command) in stages {
            let is_literal = match command.operands.first().map(|operand| &operand.term) {
                Some(Term::Dot(fields)) => fields.is_empty(),
                Some(Term::Nil | Term::Bool(_) | Term::Integer(_) | Term::Text(_)) => true,
                _ => false,
            };
            if is_literal {
                let stage = before + 1;
                return Err(format!("non executable command in pipeline stage {stage}"));
            }
        }
        Ok(pipeline)
    }

    /// `$a :=`, `$a =`, and `$a, $b :=` in `range`.
    fn declarations(&mut self, pipeline: &mut Pipeline, context: &str) -> Result<(), String> {
        while self.peek_solid() == Kind::Variable {
            // What follows decides; it is put back when this is an operand.
            let mut ahead = self.action.clone();
            let Some(variable) = ahead.next() else { return Ok(()) };
            while ahead.next_if(|token| token.kind == Kind::Space).is_some() {}
            let Some(sign) = ahead.next() else { return Ok(()) };
            let is_comma = sign.kind == Kind::Other && sign.text == ",";
            if !is_comma && ![Kind::Declare, Kind::Assign].contains(&sign.kind) {
                return Ok(());
            }
            (self.action, self.line) = (ahead, sign.line);
            self.variables.push(variable.text.clone());
            pipeline.variables.push(variable.text);
            if !is_comma {
                pipeline.declares = sign.kind == Kind::Declare;
                return Ok(());
            }
            if context != "range" || pipeline.variables.len() > 1 {
                return Err(format!("too many declarations in {context}"));
            }
            if ![Kind::Variable, Kind::End, Kind::Close].contains(&self.peek_solid()) {
                return Err("range can only initialize variables".to_owned());
            }
        }
        Ok(())
    }

    /// Operands up to a pipe, which is taken, or to an end, which stays.
    fn command(&mut self) -> Result<Command, String> {
        let mut operands: Vec<Operand> = Vec::new();
        loop {
            self.skip_space();
            operands.extend(self.operand()?);
            match self.peek() {
                Kind::Space => {}
                Kind::End | Kind::Close => break,
                Kind::Pipe => {
                    self.next();
                    break;
                }
                _ => {
                    let token = self.next();
                    return Err(self.unexpected(&token, "operand"));
                }
            }
        }
        let Some(first) = operands.first() else { return Err("empty command".to_owned()) };
        let texts: Vec<&str> = operands.iter().map(|operand| operand.place.text.as_str()).collect();
        let place = Place { text: texts.join(" "), ..first.place };
        Ok(Command { operands, place })
    }

    /// A term with the fields right behind it; `None` when there is no term.
    fn operand(&mut self) -> Result<Option<Operand>, String> {
        let Some(first) = self.action.peek().cloned() else { return Ok(None) };
        let Some(mut term) = self.term()? else { return Ok(None) };
        let mut place = Place { line: first.line, column: first.column, text: first.text };
        if let Term::Group(pipeline, _) = &term {
            place.text = format!("({})", shown(pipeline));
        }
        let may_have_numbers = matches!(&term, Term::Dot(_) | Term::Variable(..) | Term::Group(..));
        let mut fields = Vec::new();
        while let Some(token) = self.action.next_if(|token| {
            // Go refuses `.Group.1`, which can mean nothing else.
            let is_number = token.kind == Kind::Number && may_have_numbers;
            token.kind == Kind::Field || is_number && token.text.starts_with('.')
        }) {
            if fields.is_empty() {
                // What stands before its fields is known by the place of the first one.
                (place.line, place.column) = (token.line, token.column);
            }
            place.text.push_str(&token.text);
            fields.push(token.text.trim_start_matches('.').to_owned());
        }
        if !fields.is_empty() {
            let bare = place.text.len() - fields.iter().map(|field| 1 + field.len()).sum::<usize>();
            term = match term {
                Term::Dot(before) if !before.is_empty() => Term::Dot([before, fields].concat()),
                Term::Variable(name, _) => Term::Variable(name, fields),
                Term::Group(pipeline, _) => Term::Group(pipeline, fields),
                Term::Function(function) => {
                    let operand = Operand { term: Term::Function(function), place: place.clone() };
                    let command = Command { operands: vec![operand], place: place.clone() };
                    let pipeline = Pipeline { commands: vec![command], ..Pipeline::default() };
                    Term::Group(Box::new(pipeline), fields)
                }
                _ => return Err(format!("unexpected . after term {}", quote(&place.text[..bare]))),
            };
        }
        match &term {
            Term::Dot(fields) => check_message(fields)?,
            Term::Variable(name, fields) if name == "$" => check_message(fields)?,
            _ => {}
        }
        Ok(Some(Operand { term, place }))
    }

    /// Whether a term begins with the next token, which is of this kind.
    fn begins_term(&mut self, kind: Kind) -> bool {
        match kind {
            Kind::Keyword => [".", "nil"].contains(&self.peek_keyword().as_str()),
            Kind::Word
            | Kind::Field
            | Kind::Variable
            | Kind::Number
            | Kind::Character
            | Kind::Quoted
            | Kind::Raw
            | Kind::Open => true,
            _ => false,
        }
    }

    fn term(&mut self) -> Result<Option<Term>, String> {
        let kind = self.peek();
        if !self.begins_term(kind) {
            return Ok(None);
        }
        let Token { text, .. } = self.next();
        Ok(Some(match kind {
            Kind::Keyword if text == "nil" => Term::Nil,
            Kind::Keyword => Term::Dot(Vec::new()),
            Kind::Field => Term::Dot(vec![text.trim_start_matches('.').to_owned()]),
            Kind::Variable => match self.variables.contains(&text) {
                true => Term::Variable(text, Vec::new()),
                false => return Err(format!("undefined variable {}", quote(&text))),
            },
            Kind::Number => Term::Integer(integer(&text)?),
            Kind::Character => Term::Integer(character(&text)?),
            Kind::Quoted => Term::Text(quoted(&text)?),
            Kind::Raw => Term::Text(text.trim_matches('`').to_owned()),
            Kind::Open => {
                self.deeper()?;
                let pipeline = self.pipeline("parenthesized pipeline", Kind::Close)?;
                self.depth -= 1;
                Term::Group(Box::new(pipeline), Vec::new())
            }
            _ => match text.as_str() {
                "true" => Term::Bool(true),
                "false" => Term::Bool(false),
                word if is_function(word) => Term::Function(text),
                word if ABSENT_FUNCTIONS.contains(&word) => {
                    return Err(format!("function {} is not supported", quote(word)));
                }
                word => return Err(format!("function {} not defined", quote(word))),
            },
        }))
    }
}

/// Whether nodes are white space and no more.
fn is_blank(nodes: &[Node]) -> bool {
    nodes.iter().all(|node| matches!(node, Node::Text(text) if text.trim().is_empty()))
}

/// A pipeline as Go writes it.
fn shown(pipeline: &Pipeline) -> String {
    let texts: Vec<&str> =
        pipeline.commands.iter().map(|command| command.place.text.as_str()).collect();
    let sign = if pipeline.declares { ":=" } else { "=" };
    match pipeline.variables.join(", ").as_str() {
        "" => texts.join(" | "),
        variables => format!("{variables} {sign} {}", texts.join(" | ")),
    }
}

/// `.Message` is a whole DNS message in Go; here it is the query's header.
fn check_message(fields: &[String]) -> Result<(), String> {
    let [first, rest @ ..] = fields else { return Ok(()) };
    if first != "Message" {
        return Ok(());
    }
    let rest = match rest {
        [header, rest @ ..] if header == "MsgHdr" => rest,
        rest => rest,
    };
    match rest {
        [field] if MESSAGE_FIELDS.contains(&field.as_str()) => Ok(()),
        _ => Err(format!(".{} is not supported", fields.join("."))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_gos() {
        for (source, reason) in [
            ("{{ .Foo", "1: unclosed action"),
            ("{{ .Name \"", "1: unterminated quoted string"),
            ("{{ }}", "1: missing value for command"),
            ("{{ end }}", "1: unexpected {{end}}"),
            ("a\n{{ if .Name }}x", "2: unexpected EOF"),
            ("{{ foo }}", "1: function \"foo\" not defined"),
            ("{{ $x }}", "1: undefined variable \"$x\""),
            ("{{ (.Name }}", "1: unclosed left paren"),
            ("{{ .Name | \"x\" }}", "1: non executable command in pipeline stage 2"),
            ("{{ | .Name }}", "1: unexpected \"|\" in command"),
            ("{{ .Name := 1 }}", "1: unexpected \":=\" in operand"),
            ("{{ @ }}", "1: unexpected \"@\" in command"),
            ("{{ \x01 }}", "1: unrecognized character in action: U+0001"),
            ("{{ .Name@ }}", "1: bad character U+0040 '@'"),
            ("{{ .Name }", "1: unexpected \"}\" in operand"),
            ("{{ true.x }}", "1: unexpected . after term \"true\""),
            ("{{ ..Name }}", "1: unexpected . after term \".\""),
            ("{{ range $a, $b, $c := .Match }}{{ end }}", "1: too many declarations in range"),
            ("{{ if .Name }}{{ else with .Zone }}{{ end }}", "1: unexpected <with> in input"),
            ("{{ end x }}", "1: unexpected \"x\" in end"),
            ("{{ break 1 }}", "1: unexpected \"1\" in {{break}}"),
            ("{{ .Name\n@ }}", "2: unexpected \"@\" in operand"),
            ("{{ .Name\n", "2: unclosed action started at answer:1"),
            ("{{ 0x }}", "1: illegal number syntax: \"0x\""),
            ("{{ break }}", "1: {{break}} outside {{range}}"),
            ("{{ define \"x\" }}y", "1: unexpected EOF"),
            ("{{ define \"x\" }}y{{ else }}", "1: unexpected {{else}} in define clause"),
            ("{{ define \"x\" 1 }}", "1: unexpected \"1\" in define clause"),
            ("{{ define \"x\" }}{{ define \"y\" }}", "1: unexpected <define> in command"),
            ("{{ define \"x\" }}{{ break }}", "1: {{break}} outside {{range}}"),
            ("{{ $y := 1 }}{{ define \"x\" }}{{ $y }}{{ end }}", "1: undefined variable \"$y\""),
            (
                "{{ define \"x\" }}a{{ end }}{{ define \"x\" }}b{{ end }}",
                "1: template: multiple definition of template \"x\"",
            ),
            (
                "{{ define \"answer\" }}a{{ end }}b",
                "1: template: multiple definition of template \"answer\"",
            ),
            ("{{ block \"x\" }}y{{ end }}", "1: missing value for block clause"),
            ("{{ block \"x\" . }}y{{ else }}", "1: unexpected {{else}} in block clause"),
            ("{{ block \"x\" . }}y", "1: unexpected EOF"),
            ("{{ range .Match }}{{ block \"x\" . }}{{ break }}", "1: {{break}} outside {{range}}"),
            ("{{ template x }}", "1: unexpected \"x\" in template clause"),
            ("{{ template }}", "1: unexpected \"}}\" in template clause"),
            ("{{ template \"x\"", "1: unclosed action"),
            ("{{ .", "1: illegal number syntax: \".\""),
            ("{{ . ", "1: unclosed action"),
            ("{{ define x }}", "1: unexpected \"x\" in define clause"),
            ("{{ if 1 }}{{ define \"x\" }}", "1: unexpected <define> in command"),
            ("{{ .Message.Extra }}", "1: .Message.Extra is not supported"),
            ("{{ .Message }}", "1: .Message is not supported"),
            ("{{ call .Name }}", "1: function \"call\" is not supported"),
            ("{{ 1.5 }}", "1: floating-point numbers are not supported"),
            ("{{/* x", "1: unclosed comment"),
        ] {
            let error = parse("answer", source).unwrap_err();
            assert_eq!(error, format!("template: answer:{reason}"), "{source}");
        }
    }

    #[test]
    fn a_deep_template_is_refused() {
        let source = format!("{{{{ {}1{} }}}}", "(".repeat(1000), ")".repeat(1000));
        assert!(parse("answer", &source).is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_source_panics(source in "[a-z{}()$.|:=,\"'`0-9 \\\\/*-]{0,60}") {
            let _ = parse("answer", &source);
            let _ = parse("answer", &format!("{{{{{source}}}}}"));
        }
    }
}
