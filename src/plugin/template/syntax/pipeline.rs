//! Pipelines: variables that they set, commands, operands.
//!
//! Owns which terms there are.

use super::super::data::check_message;
use super::super::functions::is_function;
use super::super::literals::{character, integer, quoted};
use super::super::tokens::{Kind, Token};
use super::super::tree::{Command, Operand, Pipeline, Place, Term};
use super::Parser;
use crate::corefile::quote;

/// What Go has and templates here cannot use.
const ABSENT_FUNCTIONS: &[&str] = &["call"];

impl Parser<'_> {
    /// A pipeline up to `end`, which is taken.
    pub(super) fn pipeline(&mut self, context: &str, end: Kind) -> Result<Pipeline, String> {
        let mut pipeline = Pipeline::default();
        self.declarations(&mut pipeline, context)?;
        loop {
            match self.action.peek_solid() {
                kind if kind == end => {
                    self.action.next();
                    break;
                }
                kind if self.begins_term(kind) => {
                    let command = self.command()?;
                    pipeline.commands.push(command);
                }
                _ => {
                    let token = self.action.next();
                    return Err(self.action.unexpected(&token, context));
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
        while self.action.peek_solid() == Kind::Variable {
            // What follows decides; the action stays as it is when this is an operand.
            let mut ahead = self.action.clone();
            let (variable, sign) = (ahead.next(), ahead.next_solid());
            let is_comma = sign.kind == Kind::Other && sign.text == ",";
            if !is_comma && ![Kind::Declare, Kind::Assign].contains(&sign.kind) {
                return Ok(());
            }
            self.action = ahead;
            self.variables.push(variable.text.clone());
            pipeline.variables.push(variable.text);
            if !is_comma {
                pipeline.declares = sign.kind == Kind::Declare;
                return Ok(());
            }
            if context != "range" || pipeline.variables.len() > 1 {
                return Err(format!("too many declarations in {context}"));
            }
            if ![Kind::Variable, Kind::End, Kind::Close].contains(&self.action.peek_solid()) {
                return Err("range can only initialize variables".to_owned());
            }
        }
        Ok(())
    }

    /// Operands up to a pipe, which is taken, or to an end, which stays.
    fn command(&mut self) -> Result<Command, String> {
        let mut operands: Vec<Operand> = Vec::new();
        loop {
            self.action.skip_space();
            operands.extend(self.operand()?);
            match self.action.peek() {
                Kind::Space => {}
                Kind::End | Kind::Close => break,
                Kind::Pipe => {
                    self.action.next();
                    break;
                }
                _ => {
                    let token = self.action.next();
                    return Err(self.action.unexpected(&token, "operand"));
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
        let Some(first) = self.action.ahead().cloned() else { return Ok(None) };
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
            Kind::Keyword => [".", "nil"].contains(&self.action.peek_keyword().as_str()),
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
        let kind = self.action.peek();
        if !self.begins_term(kind) {
            return Ok(None);
        }
        let Token { text, .. } = self.action.next();
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

/// A pipeline as Go writes it.
pub(super) fn shown(pipeline: &Pipeline) -> String {
    let texts: Vec<&str> =
        pipeline.commands.iter().map(|command| command.place.text.as_str()).collect();
    let sign = if pipeline.declares { ":=" } else { "=" };
    match pipeline.variables.join(", ").as_str() {
        "" => texts.join(" | "),
        variables => format!("{variables} {sign} {}", texts.join(" | ")),
    }
}
