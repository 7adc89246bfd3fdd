//! Go's text/template, the part that Corefiles use: a tree and a query to text.
//!
//! Owns variables and control; what the names mean is [`Data`]'s to say. Bounded by [`MOST_STEPS`],
//! [`MOST_DEPTH`] and [`MOST_TEXT`], whatever the query.

use super::data::Data;
use super::functions::{self, MOST_TEXT, Value};
use super::tree::{Command, Node, Operand, Pipeline, Place, Term, Tree};
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

    fn pipeline(&mut self, pipeline: &'t Pipeline, dot: &Value) -> Result<Value, Fault<'t>> {
        let value = self.commands(&pipeline.commands, dot)?;
        if let [name] = pipeline.variables.as_slice() {
            self.bind(pipeline, name, value.clone())?;
        }
        Ok(value)
    }

    fn commands(&mut self, commands: &'t [Command], dot: &Value) -> Result<Value, Fault<'t>> {
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

#[cfg(test)]
mod tests {
    use super::super::syntax::parse;
    use super::*;
    use crate::dns::{Class, Name, Query, RecordType};

    fn run(source: &str) -> Result<String, String> {
        let name: Name = "ip-10-0-0-1.a.test.".parse().unwrap();
        let mut query = Query::new(&name, RecordType::A, Class::IN);
        query.set_question(b"\x0bIP-10-0-0-1\x01a\x04test\0", RecordType::A, Class::IN);
        let data = Data {
            regex: ".*",
            zone: "test.".to_owned(),
            name: name.to_string(),
            class: "IN",
            qtype: "A",
            groups: ["ip-10-0-0-1", "10", "0", "0", "1"].map(str::to_owned).to_vec(),
            named: vec![("first".to_owned(), "10".to_owned())],
            remote: "192.0.2.9".to_owned(),
            query: &query,
            meta: &|label| (label == "a/b").then(|| "value".to_owned()),
        };
        execute(&parse("answer", source)?, &data).map_err(|fault| fault.told("answer"))
    }

    #[test]
    fn templates_of_corefiles_give_gos_text() {
        for (source, text) in [
            ("{{ .Name }} 60 IN A 192.0.2.1", "ip-10-0-0-1.a.test. 60 IN A 192.0.2.1"),
            ("{{.Zone}} {{ .Class }} {{ .Type }} {{ .Remote }}", "test. IN A 192.0.2.9"),
            ("{{ index .Match 1 }}.{{ index .Match 4 }}", "10.1"),
            ("{{ .Group.first }} {{ .Group.none }} {{ index .Group \"2\" }}", "10 <no value> 0"),
            ("{{ .Question.Name }} {{ .Question.Qtype }}", "IP-10-0-0-1.a.test. 1"),
            ("{{ .Meta \"a/b\" }}|{{ .Meta \"none/x\" }}|{{ \"a/b\" | .Meta }}", "value||value"),
            ("{{ parseInt .Group.first 16 8 }}", "16"),
            ("{{ .Group.first | printf \"%s-%d\" \"x\" | len }}", "16"),
            ("{{ printf \"%03d\" (parseInt .Group.first 10 32) }}", "010"),
            ("{{ if eq .Type \"AAAA\" \"A\" }}yes{{ else }}no{{ end }}", "yes"),
            ("{{ if false }}a{{ else if .Zone }}b{{ else }}c{{ end }}", "b"),
            ("{{ with .Group.first }}{{ . }}{{ $.Type }}{{ end }}", "10A"),
            ("{{ range $i, $m := .Match }}{{ if $i }}{{ $m }},{{ end }}{{ end }}", "10,0,0,1,"),
            (
                "{{ range .Match }}{{ if eq . \"0\" }}{{ break }}{{ end }}[{{ . }}]{{ end }}",
                "[ip-10-0-0-1][10]",
            ),
            ("{{ $x := 1 }}{{ if true }}{{ $x = 2 }}{{ end }}{{ $x }}", "2"),
            ("a {{- /* gone */ -}} b {{- 1 -}} c", "ab1c"),
            ("{{ and 1 0 }}{{ or 0 \"x\" }}{{ not 1 }}", "0xfalse"),
            ("{{ print 1 2 \"a\" 3 }}", "1 2a3"),
            ("{{ slice .Name 0 2 }}", "ip"),
            ("{{ .Message.RecursionDesired }} {{ .Message.Id }}", "true 0"),
            ("{{ `raw` }}{{ \"\\x41\\n\" }}{{ 'a' }}{{ 0x10 }}{{ -3 }}", "rawA\n9716-3"),
            ("{{ (index .Match 1) }}", "10"),
            ("{{ lt 1 2 }} {{ .Match }}", "true [ip-10-0-0-1 10 0 0 1]"),
            ("}} is text", "}} is text"),
        ] {
            match run(source) {
                Ok(result) => assert_eq!(result, text, "{source}"),
                Err(error) => assert_eq!(text, "error", "{source}: {error}"),
            }
        }
    }

    #[test]
    fn what_go_refuses_while_executing_is_an_error() {
        for source in [
            "{{ index .Match 9 }}",
            "{{ .Foo }}",
            "{{ $x = 1 }}",
            "{{ .Name.Foo }}",
            "{{ .Name 1 }}",
            "{{ .Group.none.x }}",
            "{{ parseInt \"x\" 10 8 }}",
            "{{ eq 1 \"a\" }}",
            "{{ range .Name }}{{ end }}",
            "{{ range $i, $number := 3 }}{{ end }}",
            "{{ if (nil) }}{{ end }}",
            "{{ $x := nil }}",
            "{{ .Meta }}",
            "{{ . }}",
        ] {
            assert!(run(source).is_err(), "{source}");
        }
    }

    #[test]
    fn errors_name_the_place_as_go_does() {
        for (source, at) in [
            (
                "a\n {{ index .Match 5 }}",
                ":2:4: executing \"answer\" at <index .Match 5>: error calling index: index out of range: 5",
            ),
            (
                "{{ $x := index .Match 7 }}",
                ":1:9: executing \"answer\" at <index .Match 7>: error calling index: index out of range: 7",
            ),
            (
                "{{ printf \"%d\" (index .Match 6) }}",
                ":1:16: executing \"answer\" at <index .Match 6>: error calling index: index out of range: 6",
            ),
            (
                "{{ .Foo }}",
                ":1:3: executing \"answer\" at <.Foo>: can't evaluate field Foo in type *template.templateData",
            ),
            (
                "{{ .Name.x }}",
                ":1:8: executing \"answer\" at <.Name.x>: can't evaluate field x in type string",
            ),
            (
                "{{ .Message.Opcode | len }}",
                ":1:21: executing \"answer\" at <len>: error calling len: len of type int",
            ),
            (
                "{{ index .Match \"a\" }}",
                ":1:3: executing \"answer\" at <index .Match \"a\">: error calling index: cannot index slice/array with type string",
            ),
            (
                "{{ range .Name }}{{ end }}",
                ":1:9: executing \"answer\" at <.Name>: range can't iterate over ip-10-0-0-1.a.test.",
            ),
            (
                "{{ len 1 2 }}",
                ":1:3: executing \"answer\" at <len>: wrong number of args for len: want 1 got 2",
            ),
            (
                "{{ .Meta }}",
                ":1:3: executing \"answer\" at <.Meta>: wrong number of args for Meta: want 1 got 0",
            ),
            (
                "{{ 1 | .Name }}",
                ":1:7: executing \"answer\" at <.Name>: Name has arguments but cannot be invoked as function",
            ),
            ("{{ nil }}", ":1:3: executing \"answer\" at <nil>: nil is not a command"),
        ] {
            assert_eq!(run(source), Err(format!("template: answer{at}")), "{source}");
        }
    }

    #[test]
    fn templates_that_are_defined_are_called_with_a_dot_of_their_own() {
        for (source, text) in [
            ("{{ define \"x\" }}[{{ . }}]{{ end }}{{ template \"x\" .Type }}", "[A]"),
            ("{{ template `x` 5 }}{{ define `x` }}[{{ $ }}]{{ end }}", "[5]"),
            ("{{ define \"x\" }}[{{ . }}]{{ end }}{{ template \"x\" }}", "[<no value>]"),
            ("{{ with .Zone }}{{ block \"x\" . }}<{{ . }}>{{ end }}{{ end }}", "<test.>"),
            ("{{ block \"x\" .Type }}{{ . }}{{ end }}{{ template \"x\" .Class }}", "AIN"),
            ("{{ define \"x\" }}a{{ end }}{{ define \"x\" }} {{ end }}{{ template \"x\" }}", "a"),
            ("{{ define \"x\" }} {{ end }}{{ define \"x\" }}b{{ end }}{{ template \"x\" }}", "b"),
            ("{{ define \"answer\" }}{{ .Type }}{{ end }} ", "A"),
            (
                "{{ define \"x\" }}{{ range . }}<{{ . }}>{{ end }}{{ end }}\
                 {{ template \"x\" slice .Match 1 3 }}",
                "<10><0>",
            ),
            (
                "{{ define \"x\" }}{{ $a := 2 }}{{ $a }}{{ end }}\
                 {{ $a := 1 }}{{ template \"x\" }}{{ $a }}{{ template \"x\" $b := 3 }}{{ $b }}",
                "2123",
            ),
            (
                "{{ define \"x\" }}{{ if . }}{{ len . }}{{ template \"x\" slice . 1 }}{{ end }}{{ end }}\
                 {{ template \"x\" \"abc\" }}",
                "321",
            ),
        ] {
            assert_eq!(run(source).as_deref(), Ok(text), "{source}");
        }
    }

    #[test]
    fn errors_name_the_template_that_was_executed() {
        for (source, at) in [
            (
                "{{ .Name }}{{ template \"x\" }}",
                ":1:23: executing \"answer\" at <{{template \"x\"}}>: template \"x\" not defined",
            ),
            (
                "{{ define \"x\" }}{{ .Foo }}{{ end }}{{ block \"y\" . }}{{ template \"x\" . }}{{ end }}",
                ":1:19: executing \"x\" at <.Foo>: can't evaluate field Foo in type *template.templateData",
            ),
            (
                "{{ template \"x\" .Foo }}{{ define \"x\" }}{{ end }}",
                ":1:16: executing \"answer\" at <.Foo>: can't evaluate field Foo in type *template.templateData",
            ),
            (
                "{{ template \"answer\" . }}",
                ":1:12: executing \"answer\" at <{{template \"answer\" .}}>: exceeded maximum template depth (100)",
            ),
        ] {
            assert_eq!(run(source), Err(format!("template: answer{at}")), "{source}");
        }
    }

    #[test]
    fn a_template_that_calls_itself_from_within_ends() {
        let deep = format!(
            "{{{{ define \"x\" }}}}{}{{{{ template \"x\" }}}}{}{{{{ end }}}}{{{{ template \"x\" }}}}",
            "{{ range 1 }}".repeat(60),
            "{{ end }}".repeat(60)
        );
        assert!(run(&deep).unwrap_err().contains("exceeded maximum template depth"));
        let wide = "{{ define \"x\" }}{{ template \"x\" }}{{ end }}{{ range 9 }}{{ template \"x\" }}{{ end }}";
        assert!(run(wide).is_err());
    }

    #[test]
    fn work_and_text_are_bounded() {
        assert!(run("{{ range 100000 }}{{ range 100000 }}x{{ end }}{{ end }}").is_err());
        assert!(run("{{ range 99999999999 }}{{ end }}").is_err());
        assert!(run("{{ range 900 }}{{ printf \"%1000s\" \"x\" }}{{ end }}").is_err());
    }
}
