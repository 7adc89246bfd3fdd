//! The value of a pipeline: commands, each fed with the value of the one before, functions, operands.
//!
//! Owns what Go says of a command that cannot be executed.

use super::super::functions::{self, Value};
use super::super::tree::{Command, Operand, Pipeline, Place, Term};
use super::{Fault, Run};

impl<'t> Run<'_, 't> {
    pub(super) fn pipeline(
        &mut self,
        pipeline: &'t Pipeline,
        dot: &Value,
    ) -> Result<Value, Fault<'t>> {
        let value = self.commands(&pipeline.commands, dot)?;
        if let [name] = pipeline.variables.as_slice() {
            self.bind(pipeline, name, value.clone())?;
        }
        Ok(value)
    }

    pub(super) fn commands(
        &mut self,
        commands: &'t [Command],
        dot: &Value,
    ) -> Result<Value, Fault<'t>> {
        let mut last = None;
        for command in commands {
            self.step()?;
            last = Some(self.command(command, dot, last)?);
        }
        last.ok_or_else(|| "missing value for command".to_owned().into())
    }

    fn command(
        &mut self,
        command: &'t Command,
        dot: &Value,
        last: Option<Value>,
    ) -> Result<Value, Fault<'t>> {
        let Some((first, rest)) = command.operands.split_first() else {
            return Err("missing value for command".to_owned().into());
        };
        if let Term::Function(_) = first.term {
            return self.function(first, &command.place, rest, dot, last);
        }
        let is_method = match &first.term {
            Term::Dot(fields) => is_meta(fields) && *dot == Value::Data,
            Term::Variable(name, fields) => is_meta(fields) && self.get(name)? == Value::Data,
            _ => false,
        };
        if is_method {
            let mut arguments = self.operands(rest, dot)?;
            arguments.extend(last);
            return match arguments.as_slice() {
                [Value::Text(label)] => {
                    Ok(Value::text(&(self.data.meta)(label).unwrap_or_default()))
                }
                [other] => {
                    let place = rest.first().map_or(&first.place, |argument| &argument.place);
                    let kind = other.kind();
                    let reason = format!("wrong type for value; expected string; got {kind}");
                    Err(Fault::at(place, reason))
                }
                other => {
                    let reason =
                        format!("wrong number of args for Meta: want 1 got {}", other.len());
                    Err(Fault::at(&first.place, reason))
                }
            };
        }
        let fault = |reason: String| Fault::at(&first.place, reason);
        if !rest.is_empty() || last.is_some() {
            let (Term::Dot(fields) | Term::Variable(_, fields) | Term::Group(_, fields)) =
                &first.term
            else {
                let text = &first.place.text;
                return Err(fault(format!("can't give argument to non-function {text}")));
            };
            self.operand(first, dot)?;
            return Err(fault(match fields.last() {
                Some(field) => {
                    format!("{field} has arguments but cannot be invoked as function")
                }
                None => format!("can't give argument to non-function {}", first.place.text),
            }));
        }
        if matches!(first.term, Term::Nil) {
            return Err(fault("nil is not a command".to_owned()));
        }
        self.operand(first, dot)
    }

    fn operands(&mut self, operands: &'t [Operand], dot: &Value) -> Result<Vec<Value>, Fault<'t>> {
        operands.iter().map(|operand| self.operand(operand, dot)).collect()
    }

    /// Calls the function that `callee` names; `whole` is where the call stands.
    fn function(
        &mut self,
        callee: &'t Operand,
        whole: &'t Place,
        arguments: &'t [Operand],
        dot: &Value,
        last: Option<Value>,
    ) -> Result<Value, Fault<'t>> {
        let Term::Function(function) = &callee.term else {
            return Err(Fault::at(whole, "missing value for command".to_owned()));
        };
        if matches!(function.as_str(), "and" | "or") {
            let mut value = None;
            for argument in arguments {
                let found = self.operand(argument, dot)?;
                if found.is_true() == (function == "or") {
                    return Ok(found);
                }
                value = Some(found);
            }
            let reason = || format!("wrong number of args for {function}: want at least 1 got 0");
            return last.or(value).ok_or_else(|| Fault::at(&callee.place, reason()));
        }
        let mut values = self.operands(arguments, dot)?;
        values.extend(last);
        functions::call(function, &values).map_err(|reason| {
            let is_count = reason.starts_with("wrong number of args");
            Fault::at(if is_count { &callee.place } else { whole }, reason)
        })
    }

    fn get(&self, name: &str) -> Result<Value, String> {
        self.variables
            .iter()
            .rev()
            .find(|(known, _)| *known == name)
            .map(|(_, value)| value.clone())
            .ok_or_else(|| format!("undefined variable: {name}"))
    }

    fn operand(&mut self, operand: &'t Operand, dot: &Value) -> Result<Value, Fault<'t>> {
        let place = &operand.place;
        let (mut value, fields) = match &operand.term {
            Term::Nil => return Ok(Value::Nil),
            Term::Bool(value) => return Ok(Value::Bool(*value)),
            Term::Integer(number) => return Ok(Value::Integer(*number)),
            Term::Text(text) => return Ok(Value::text(text)),
            Term::Function(_) => return self.function(operand, place, &[], dot, None),
            Term::Dot(fields) => (dot.clone(), fields),
            Term::Variable(name, fields) => (self.get(name)?, fields),
            Term::Group(pipeline, fields) => (self.pipeline(pipeline, dot)?, fields),
        };
        for field in fields {
            value = self.data.field(&value, field).map_err(|reason| Fault::at(place, reason))?;
        }
        Ok(value)
    }
}

fn is_meta(fields: &[String]) -> bool {
    matches!(fields, [only] if only == "Meta")
}
