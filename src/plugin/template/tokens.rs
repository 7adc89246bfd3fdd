//! Go's text/template, the part that Corefiles use: text to texts and tokens.
//!
//! Owns delimiters, trimming, comments and literals. Never knows what an action means.

/// A token of an action.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    Word(String),
    /// `.a.b`; empty for a lone dot.
    Chain(Vec<String>, /* a space stood before it */ bool),
    Variable(String),
    Integer(i128),
    Text(String),
    Pipe,
    Comma,
    Declare,
    Assign,
    Open,
    Close,
}

/// One piece of the source.
pub(super) enum Piece {
    Text(String),
    Action(Vec<Token>, usize),
}

/// The names of trimmed white space in Go: space, tab, CR, LF.
const SPACE: [char; 4] = [' ', '\t', '\r', '\n'];

/// Cuts a template into texts and the tokens of its actions; the error has its line.
pub(super) fn cut(source: &str) -> Result<Vec<Piece>, (usize, String)> {
    let mut pieces = Vec::new();
    let mut rest = source;
    let mut line = 1;
    let mut trims_next = false;
    loop {
        let open = rest.find("{{");
        let text = open.map_or(rest, |at| &rest[..at]);
        let mut shown = if trims_next { text.trim_start_matches(SPACE) } else { text };
        line += breaks(text);
        let Some(open) = open else {
            if !shown.is_empty() {
                pieces.push(Piece::Text(shown.to_owned()));
            }
            return Ok(pieces);
        };
        rest = &rest[open + 2..];
        if let Some(after) = rest.strip_prefix('-').filter(|after| after.starts_with(SPACE)) {
            shown = shown.trim_end_matches(SPACE);
            rest = after.trim_start_matches(SPACE);
        }
        if !shown.is_empty() {
            pieces.push(Piece::Text(shown.to_owned()));
        }
        if let Some(comment) = rest.strip_prefix("/*") {
            let end = comment.find("*/").ok_or((line, "unclosed comment".to_owned()))?;
            line += breaks(&comment[..end]);
            let after = &comment[end + 2..];
            let trimmed = after.trim_start_matches(SPACE).strip_prefix("-}}");
            let (after, trims) = match (trimmed, after.strip_prefix("}}")) {
                (Some(after), _) => (after, true),
                (None, Some(after)) => (after, false),
                (None, None) => {
                    return Err((line, "comment ends before closing delimiter".to_owned()));
                }
            };
            rest = after;
            trims_next = trims;
            continue;
        }
        let began = line;
        let mut action = Lexer { rest, line };
        let (tokens, trims) = action.tokens().map_err(|reason| (action.line, reason))?;
        rest = action.rest;
        line = action.line;
        trims_next = trims;
        pieces.push(Piece::Action(tokens, began));
    }
}

fn breaks(text: &str) -> usize {
    text.matches('\n').count()
}

/// Reads the tokens of one action up to its `}}`.
struct Lexer<'s> {
    rest: &'s str,
    line: usize,
}

impl Lexer<'_> {
    /// The tokens, and whether white space behind the action goes.
    fn tokens(&mut self) -> Result<(Vec<Token>, bool), String> {
        let mut tokens = Vec::new();
        let mut parentheses = 0usize;
        loop {
            let spaced = self.rest.starts_with(SPACE);
            let trimmed = self.rest.trim_start_matches(SPACE);
            self.line += breaks(&self.rest[..self.rest.len() - trimmed.len()]);
            self.rest = trimmed;
            let is_end = |text: &str| text.starts_with("}}") || spaced && text.starts_with("-}}");
            if is_end(trimmed) {
                if parentheses > 0 {
                    return Err("unclosed left paren".to_owned());
                }
                let trims = trimmed.starts_with('-');
                self.rest = &trimmed[if trims { 3 } else { 2 }..];
                return Ok((tokens, trims));
            }
            let first = trimmed.chars().next().ok_or("unclosed action")?;
            let token = match first {
                '"' => Token::Text(self.quoted()?),
                '`' => Token::Text(self.raw()?),
                '\'' => Token::Integer(self.character()?),
                '.' => Token::Chain(self.chain()?, spaced),
                '$' => {
                    self.rest = &trimmed[1..];
                    Token::Variable(format!("${}", self.word()))
                }
                '|' => self.mark(1, Token::Pipe),
                ',' => self.mark(1, Token::Comma),
                ':' if trimmed.starts_with(":=") => self.mark(2, Token::Declare),
                '=' => self.mark(1, Token::Assign),
                '(' => {
                    parentheses += 1;
                    self.mark(1, Token::Open)
                }
                ')' => {
                    parentheses = parentheses.checked_sub(1).ok_or("unexpected right paren")?;
                    self.mark(1, Token::Close)
                }
                '0'..='9' | '+' | '-' => Token::Integer(self.integer()?),
                letter if letter == '_' || letter.is_alphabetic() => Token::Word(self.word()),
                other => return Err(format!("unexpected {other:?} in command")),
            };
            tokens.push(token);
        }
    }

    fn mark(&mut self, octets: usize, token: Token) -> Token {
        self.rest = &self.rest[octets..];
        token
    }

    fn word(&mut self) -> String {
        let is_part = |c: char| c == '_' || c.is_alphanumeric();
        let end = self.rest.find(|c: char| !is_part(c)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word.to_owned()
    }

    fn chain(&mut self) -> Result<Vec<String>, String> {
        let mut fields = Vec::new();
        while let Some(rest) = self.rest.strip_prefix('.') {
            // Go refuses `.Group.1`, which can mean nothing else.
            if fields.is_empty() && rest.starts_with(|c: char| c.is_ascii_digit()) {
                return Err("floating-point numbers are not supported".to_owned());
            }
            self.rest = rest;
            let field = self.word();
            if field.is_empty() {
                if fields.is_empty() {
                    return Ok(fields);
                }
                return Err("unexpected <.> in operand".to_owned());
            }
            fields.push(field);
        }
        Ok(fields)
    }

    fn integer(&mut self) -> Result<i128, String> {
        let is_part = |c: char| c.is_ascii_alphanumeric() || "+-._".contains(c);
        let end = self.rest.find(|c: char| !is_part(c)).unwrap_or(self.rest.len());
        let (text, rest) = self.rest.split_at(end);
        self.rest = rest;
        let bad = || format!("bad number syntax: {text:?}");
        let digits = text.trim_start_matches(['+', '-']).replace('_', "").to_lowercase();
        let (digits, radix) = match digits.as_bytes() {
            [b'0', b'x', ..] => (&digits[2..], 16),
            [b'0', b'o', ..] => (&digits[2..], 8),
            [b'0', b'b', ..] => (&digits[2..], 2),
            [b'0', b'0'..=b'7', ..] => (&digits[1..], 8),
            _ => (digits.as_str(), 10),
        };
        if radix == 10 && digits.contains(['.', 'e', 'i']) {
            return Err("floating-point numbers are not supported".to_owned());
        }
        let number = i128::from(u64::from_str_radix(digits, radix).map_err(|_| bad())?);
        match text.len() - text.trim_start_matches(['+', '-']).len() {
            0 => Ok(number),
            1 if text.starts_with('-') => Ok(-number),
            1 => Ok(number),
            _ => Err(bad()),
        }
    }

    fn raw(&mut self) -> Result<String, String> {
        let (text, rest) =
            self.rest[1..].split_once('`').ok_or("unterminated raw quoted string")?;
        self.rest = rest;
        self.line += breaks(text);
        Ok(text.to_owned())
    }

    /// What stands between two quotes, escapes still in it.
    fn between(&mut self, quote: char, unterminated: &str) -> Result<&str, String> {
        let body = &self.rest[1..];
        let mut is_escaped = false;
        for (at, c) in body.char_indices() {
            match c {
                '\n' => break,
                _ if std::mem::take(&mut is_escaped) => {}
                '\\' => is_escaped = true,
                c if c == quote => {
                    self.rest = &body[at + 1..];
                    return Ok(&body[..at]);
                }
                _ => {}
            }
        }
        Err(unterminated.to_owned())
    }

    fn quoted(&mut self) -> Result<String, String> {
        unquote(self.between('"', "unterminated quoted string")?)
    }

    fn character(&mut self) -> Result<i128, String> {
        let text = unquote(self.between('\'', "unterminated character constant")?)?;
        let mut characters = text.chars();
        match (characters.next(), characters.next()) {
            (Some(character), None) => Ok(i128::from(u32::from(character))),
            _ => Err(format!("malformed character constant: '{text}'")),
        }
    }
}

/// Go's escapes in strings.
fn unquote(text: &str) -> Result<String, String> {
    let bad = || format!("invalid syntax: \"{text}\"");
    let mut out = String::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        let letter = rest.next().ok_or_else(bad)?;
        let (first, digits, radix) = match letter {
            'a' => ('\x07', 0, 0),
            'b' => ('\x08', 0, 0),
            'f' => ('\x0c', 0, 0),
            'n' => ('\n', 0, 0),
            'r' => ('\r', 0, 0),
            't' => ('\t', 0, 0),
            'v' => ('\x0b', 0, 0),
            '\\' | '"' | '\'' => (letter, 0, 0),
            'x' => ('0', 2, 16),
            'u' => ('0', 4, 16),
            'U' => ('0', 8, 16),
            '0'..='7' => (letter, 2, 8),
            _ => return Err(bad()),
        };
        if radix == 0 {
            out.push(first);
            continue;
        }
        let mut value = first.to_digit(radix).ok_or_else(bad)?;
        for _ in 0..digits {
            let digit = rest.next().and_then(|c| c.to_digit(radix)).ok_or_else(bad)?;
            value = value.checked_mul(radix).and_then(|v| v.checked_add(digit)).ok_or_else(bad)?;
        }
        out.push(char::from_u32(value).ok_or_else(bad)?);
    }
    Ok(out)
}
