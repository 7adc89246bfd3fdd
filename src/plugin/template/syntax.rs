//! Go's text/template, the part that Corefiles use: text to a tree.
//!
//! Owns actions, control, pipelines and operands. What Go has and this has not is an
//! error that says so, never a different meaning.

use super::functions::is_function;
use super::tokens::{Piece, Token, cut};

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
const ABSENT_WORDS: &[&str] = &["define", "template", "block"];
const ABSENT_FUNCTIONS: &[&str] = &["call", "html", "js", "urlquery"];

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

/// Reads a template. `name` is what Go's errors call it.
pub(super) fn parse(name: &str, source: &str) -> Result<Vec<Node>, String> {
    let located = |(line, reason): (usize, String)| format!("template: {name}:{line}: {reason}");
    let pieces = cut(source).map_err(located)?;
    let mut parser = Parser {
        pieces: pieces.into_iter(),
        line: 1,
        variables: vec!["$".to_owned()],
        depth: 0,
        in_range: 0,
    };
    let (nodes, end) = parser.nodes().map_err(|reason| located((parser.line, reason)))?;
    match end {
        Stop::Source => Ok(nodes),
        Stop::End => Err(located((parser.line, "unexpected {{end}}".to_owned()))),
        Stop::Else(_) => Err(located((parser.line, "unexpected {{else}}".to_owned()))),
    }
}

/// What ended a list of nodes.
enum Stop {
    Source,
    End,
    /// The tokens behind `else`.
    Else(Vec<Token>),
}

struct Parser {
    pieces: std::vec::IntoIter<Piece>,
    line: usize,
    /// The variables that are known where the parser stands.
    variables: Vec<String>,
    depth: usize,
    in_range: usize,
}

impl Parser {
    fn nodes(&mut self) -> Result<(Vec<Node>, Stop), String> {
        let mut nodes = Vec::new();
        while let Some(piece) = self.pieces.next() {
            let (tokens, line) = match piece {
                Piece::Text(text) => {
                    nodes.push(Node::Text(text));
                    continue;
                }
                Piece::Action(tokens, line) => (tokens, line),
            };
            self.line = line;
            let keyword = match tokens.first() {
                Some(Token::Word(word)) => word.as_str(),
                None => return Err("missing value for command".to_owned()),
                Some(_) => "",
            };
            match keyword {
                "end" if tokens.len() == 1 => return Ok((nodes, Stop::End)),
                "else" => return Ok((nodes, Stop::Else(tokens[1..].to_vec()))),
                "if" | "with" | "range" => {
                    let node = self.control(keyword, &tokens[1..])?;
                    nodes.push(node);
                }
                "break" | "continue" if tokens.len() == 1 => {
                    if self.in_range == 0 {
                        return Err(format!("{{{{{keyword}}}}} outside {{{{range}}}}"));
                    }
                    nodes.push(if keyword == "break" { Node::Break } else { Node::Continue });
                }
                word if ABSENT_WORDS.contains(&word) => {
                    return Err(format!("{{{{{word}}}}} is not supported"));
                }
                _ => nodes.push(Node::Print(self.whole_pipeline(&tokens, "command")?)),
            }
        }
        Ok((nodes, Stop::Source))
    }

    fn control(&mut self, keyword: &str, tokens: &[Token]) -> Result<Node, String> {
        self.deeper()?;
        let known = self.variables.len();
        let pipeline = self.whole_pipeline(tokens, keyword)?;
        self.in_range += usize::from(keyword == "range");
        let (body, end) = self.nodes()?;
        self.in_range -= usize::from(keyword == "range");
        let otherwise = match end {
            Stop::End => Vec::new(),
            Stop::Source => return Err("unexpected EOF".to_owned()),
            Stop::Else(rest) => match (rest.as_slice(), keyword) {
                ([], _) => {
                    let (nodes, end) = self.nodes()?;
                    match end {
                        Stop::End => nodes,
                        Stop::Source => return Err("unexpected EOF".to_owned()),
                        Stop::Else(_) => {
                            return Err("expected end; found {{else}}".to_owned());
                        }
                    }
                }
                // `else if` shares the `end` of its `if`.
                ([Token::Word(word), rest @ ..], "if" | "with") if word == keyword => {
                    vec![self.control(keyword, rest)?]
                }
                _ => return Err("unexpected operand in {{else}}".to_owned()),
            },
        };
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
        if self.depth > MOST_DEPTH {
            Err("template is nested too deeply".to_owned())
        } else {
            Ok(())
        }
    }

    fn whole_pipeline(&mut self, tokens: &[Token], place: &str) -> Result<Pipeline, String> {
        let mut rest = tokens;
        let mut pipeline = Pipeline::default();
        match tokens {
            [Token::Variable(name), sign @ (Token::Declare | Token::Assign), behind @ ..] => {
                pipeline.variables = vec![name.clone()];
                pipeline.declares = *sign == Token::Declare;
                rest = behind;
            }
            [
                Token::Variable(first),
                Token::Comma,
                Token::Variable(second),
                sign @ (Token::Declare | Token::Assign),
                behind @ ..,
            ] => {
                if place != "range" {
                    return Err(format!("too many declarations in {place}"));
                }
                pipeline.variables = vec![first.clone(), second.clone()];
                pipeline.declares = *sign == Token::Declare;
                rest = behind;
            }
            _ => {}
        }
        pipeline.commands = self.commands(&mut rest, place)?;
        if !rest.is_empty() {
            return Err(format!("unexpected right paren in {place}"));
        }
        if pipeline.declares {
            self.variables.extend(pipeline.variables.iter().cloned());
        } else {
            pipeline.variables.iter().try_for_each(|name| self.check_variable(name))?;
        }
        Ok(pipeline)
    }

    fn check_variable(&self, name: &str) -> Result<(), String> {
        match self.variables.iter().any(|known| known == name) {
            true => Ok(()),
            false => Err(format!("undefined variable {name:?}")),
        }
    }

    /// Commands up to the end or to a closing parenthesis, which stays.
    fn commands(&mut self, rest: &mut &[Token], place: &str) -> Result<Vec<Vec<Term>>, String> {
        let mut commands = vec![Vec::new()];
        loop {
            match rest.first() {
                None | Some(Token::Close) => break,
                Some(Token::Pipe) => {
                    *rest = &rest[1..];
                    if commands.last().is_none_or(Vec::is_empty) {
                        return Err(format!("missing value for {place}"));
                    }
                    commands.push(Vec::new());
                }
                Some(_) => {
                    let term = self.term(rest)?;
                    if let Some(command) = commands.last_mut() {
                        command.push(term);
                    }
                }
            }
        }
        if commands.last().is_none_or(Vec::is_empty) {
            return Err(format!("missing value for {place}"));
        }
        for command in &commands[1..] {
            let takes_value = match command.first() {
                Some(Term::Function(_)) => true,
                Some(Term::Dot(fields) | Term::Variable(_, fields) | Term::Group(_, fields)) => {
                    !fields.is_empty()
                }
                _ => false,
            };
            if !takes_value {
                return Err("non executable command in pipeline".to_owned());
            }
        }
        Ok(commands)
    }

    fn term(&mut self, rest: &mut &[Token]) -> Result<Term, String> {
        let Some((token, behind)) = rest.split_first() else {
            return Err("missing value for command".to_owned());
        };
        *rest = behind;
        Ok(match token {
            Token::Integer(number) => Term::Integer(*number),
            Token::Text(text) => Term::Text(text.clone()),
            Token::Word(word) => match word.as_str() {
                "true" => Term::Bool(true),
                "false" => Term::Bool(false),
                "nil" => Term::Nil,
                word if is_function(word) => Term::Function(word.to_owned()),
                word if ABSENT_FUNCTIONS.contains(&word) => {
                    return Err(format!("function {word:?} is not supported"));
                }
                word => return Err(format!("function {word:?} not defined")),
            },
            Token::Chain(fields, _) => {
                check_message(fields)?;
                Term::Dot(fields.clone())
            }
            Token::Variable(name) => {
                self.check_variable(name)?;
                let fields = fields_behind(rest);
                if name == "$" {
                    check_message(&fields)?;
                }
                Term::Variable(name.clone(), fields)
            }
            Token::Open => {
                self.deeper()?;
                let commands = self.commands(rest, "parenthesized pipeline")?;
                self.depth -= 1;
                if rest.first() != Some(&Token::Close) {
                    return Err("unclosed left paren".to_owned());
                }
                *rest = &rest[1..];
                let pipeline = Pipeline { commands, ..Pipeline::default() };
                Term::Group(Box::new(pipeline), fields_behind(rest))
            }
            Token::Close | Token::Pipe | Token::Comma | Token::Declare | Token::Assign => {
                return Err("unexpected token in operand".to_owned());
            }
        })
    }
}

/// Fields that stand right behind a variable or parenthesis, without a space.
fn fields_behind(rest: &mut &[Token]) -> Vec<String> {
    match rest.first() {
        Some(Token::Chain(fields, false)) => {
            *rest = &rest[1..];
            fields.clone()
        }
        _ => Vec::new(),
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
            ("{{ .Name | \"x\" }}", "1: non executable command in pipeline"),
            ("{{ break }}", "1: {{break}} outside {{range}}"),
            ("{{ template \"x\" }}", "1: {{template}} is not supported"),
            ("{{ .Message.Extra }}", "1: .Message.Extra is not supported"),
            ("{{ .Message }}", "1: .Message is not supported"),
            ("{{ html .Name }}", "1: function \"html\" is not supported"),
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
