//! Go's text/template, the part that Corefiles use: text to texts and tokens.
//!
//! Owns delimiters, trimming, comments and where a token ends, white space included: `. .a` and `..a`
//! are two things. Never knows what an action means.

use crate::corefile::quote;

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// White space.
    Space,
    /// A name, or `true` and `false`.
    Word,
    /// A word that Go keeps for itself; `.` and `nil` among them.
    Keyword,
    /// `.a`
    Field,
    /// `$` or `$a`
    Variable,
    /// A number, sign included.
    Number,
    /// `'a'`
    Character,
    /// `"…"`
    Quoted,
    /// `` `…` ``
    Raw,
    /// `|`
    Pipe,
    /// `:=`
    Declare,
    /// `=`
    Assign,
    /// `(`
    Open,
    /// `)`
    Close,
    /// Any other character.
    Other,
    /// `}}`
    End,
    /// The source is wrong here: the text says why.
    Wrong,
}

/// A token of an action.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Token {
    /// What it is.
    pub(super) kind: Kind,
    /// As written.
    pub(super) text: String,
    /// Its line, from 1.
    pub(super) line: usize,
    /// The octets of its line that stand before it.
    pub(super) column: usize,
}

impl Token {
    /// As Go's errors show it.
    pub(super) fn shown(&self) -> String {
        match self.kind {
            Kind::Keyword => format!("<{}>", self.text),
            _ if self.text.len() > 10 => {
                let first: String = self.text.chars().take(10).collect();
                format!("{}...", quote(&first))
            }
            _ => quote(&self.text),
        }
    }
}

/// One piece of the source.
pub(super) enum Piece {
    /// Literal text.
    Text(String),
    /// The tokens of an action, the last one [`Kind::End`] or [`Kind::Wrong`].
    Action(Vec<Token>),
}

/// The words that Go keeps for itself.
const KEYWORDS: &[&str] = &[
    "block", "break", "continue", "define", "else", "end", "if", "nil", "range", "template", "with",
];

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
        let mut action = Lexer { source, rest, line, open: 0, tokens: Vec::new() };
        trims_next = action.action();
        (rest, line) = (action.rest, action.line);
        let is_wrong = action.tokens.last().is_none_or(|token| token.kind == Kind::Wrong);
        pieces.push(Piece::Action(action.tokens));
        if is_wrong {
            return Ok(pieces);
        }
    }
}

fn breaks(text: &str) -> usize {
    text.matches('\n').count()
}

fn is_of_words(letter: char) -> bool {
    letter == '_' || letter.is_alphanumeric()
}

/// `U+0040 '@'`, as Go writes a character.
fn unicode(letter: char) -> String {
    match letter.is_control() {
        true => format!("U+{:04X}", u32::from(letter)),
        false => format!("U+{:04X} '{letter}'", u32::from(letter)),
    }
}

/// Reads the tokens of one action up to its `}}`.
struct Lexer<'s> {
    /// All of the template; `rest` is its end.
    source: &'s str,
    rest: &'s str,
    line: usize,
    /// Parentheses that are open.
    open: usize,
    tokens: Vec<Token>,
}

impl Lexer<'_> {
    /// Reads to the end; true when white space behind the action goes.
    fn action(&mut self) -> bool {
        loop {
            match self.token() {
                Ok((Kind::End, octets)) => {
                    let trims = !self.rest.starts_with("}}");
                    self.take(Kind::End, octets);
                    return trims;
                }
                Ok((kind, octets)) => self.take(kind, octets),
                Err(text) => {
                    let (line, column) = (self.line, self.column());
                    self.tokens.push(Token { kind: Kind::Wrong, text, line, column });
                    return false;
                }
            }
        }
    }

    fn column(&self) -> usize {
        let before = &self.source[..self.source.len() - self.rest.len()];
        before.len() - before.rfind('\n').map_or(0, |at| at + 1)
    }

    fn take(&mut self, kind: Kind, octets: usize) {
        let (text, rest) = self.rest.split_at(octets);
        let text = if kind == Kind::End { "}}" } else { text };
        let (line, column) = (self.line, self.column());
        self.tokens.push(Token { kind, text: text.to_owned(), line, column });
        self.line += breaks(&self.rest[..octets]);
        self.rest = rest;
    }

    /// The next token and its length.
    fn token(&mut self) -> Result<(Kind, usize), String> {
        let rest = self.rest;
        let spaces = rest.len() - rest.trim_start_matches(SPACE).len();
        // The last space before `-}}` is a part of it.
        let trimming = spaces > 0 && rest[spaces..].starts_with("-}}");
        if rest.starts_with("}}") || trimming {
            if self.open > 0 {
                return Err("unclosed left paren".to_owned());
            }
            return Ok((Kind::End, if trimming { spaces + 3 } else { 2 }));
        }
        let Some(first) = rest.chars().next() else { return Err("unclosed action".to_owned()) };
        let second = rest.chars().nth(1);
        Ok(match first {
            _ if spaces > 0 => (Kind::Space, spaces),
            '=' => (Kind::Assign, 1),
            ':' if second == Some('=') => (Kind::Declare, 2),
            ':' => return Err("expected :=".to_owned()),
            '|' => (Kind::Pipe, 1),
            '"' => (Kind::Quoted, quoted(rest, '"').ok_or("unterminated quoted string")?),
            '\'' => (Kind::Character, quoted(rest, '\'').ok_or("unterminated character constant")?),
            '`' => {
                let end = rest[1..].find('`').ok_or("unterminated raw quoted string")?;
                (Kind::Raw, end + 2)
            }
            '$' => (Kind::Variable, self.word(1)?),
            // Go takes a point at the very end for a number.
            '.' if second.is_none() => return Err("illegal number syntax: \".\"".to_owned()),
            '.' if !second.is_some_and(|letter| letter.is_ascii_digit()) => match self.word(1)? {
                1 => (Kind::Keyword, 1),
                octets => (Kind::Field, octets),
            },
            '.' | '+' | '-' | '0'..='9' => (Kind::Number, number(rest)?),
            letter if is_of_words(letter) => {
                let octets = self.word(0)?;
                let is_kept = KEYWORDS.contains(&&rest[..octets]);
                (if is_kept { Kind::Keyword } else { Kind::Word }, octets)
            }
            '(' => {
                self.open += 1;
                (Kind::Open, 1)
            }
            ')' => {
                self.open = self.open.checked_sub(1).ok_or("unexpected right paren")?;
                (Kind::Close, 1)
            }
            ' '..='~' => (Kind::Other, 1),
            other => return Err(format!("unrecognized character in action: {}", unicode(other))),
        })
    }

    /// The length of a name behind `before` octets, those included. It must end where a name may.
    fn word(&self, before: usize) -> Result<usize, String> {
        let behind = &self.rest[before..];
        let length = behind.find(|letter| !is_of_words(letter)).unwrap_or(behind.len());
        let next = &behind[length..];
        match next.chars().next() {
            Some(letter) if !SPACE.contains(&letter) && !".,|:()".contains(letter) => {
                match next.starts_with("}}") {
                    true => Ok(before + length),
                    false => Err(format!("bad character {}", unicode(letter))),
                }
            }
            _ => Ok(before + length),
        }
    }
}

/// The length of what begins with a quote, up to the next one that no backslash stands before.
fn quoted(text: &str, quote: char) -> Option<usize> {
    let mut letters = text.char_indices().skip(1);
    while let Some((at, letter)) = letters.next() {
        match letter {
            '\n' => return None,
            '\\' => drop(letters.next().filter(|(_, letter)| *letter != '\n')?),
            letter if letter == quote => return Some(at + 1),
            _ => {}
        }
    }
    None
}

const DECIMAL: &str = "0123456789_";
const HEXADECIMAL: &str = "0123456789abcdefABCDEF_";

/// What is behind one of these letters, if one is there.
fn behind<'t>(text: &'t str, letters: &str) -> Option<&'t str> {
    text.strip_prefix(|letter| letters.contains(letter))
}

/// The length of a number. What it is worth is for the parser to say.
fn number(text: &str) -> Result<usize, String> {
    let past = |text, digits: &str| str::trim_start_matches(text, |one| digits.contains(one));
    let mut rest = behind(text, "+-").unwrap_or(text);
    let (mut digits, mut exponent) = (DECIMAL, "eE");
    if let Some(zero) = rest.strip_prefix('0') {
        rest = zero;
        let bases = [("xX", HEXADECIMAL, "pP"), ("oO", "01234567_", ""), ("bB", "01_", "")];
        for (letters, others, exponents) in bases {
            if let Some(prefixed) = behind(zero, letters) {
                (rest, digits, exponent) = (prefixed, others, exponents);
            }
        }
    }
    rest = past(rest, digits);
    if let Some(fraction) = rest.strip_prefix('.') {
        rest = past(fraction, digits);
    }
    if let Some(power) = behind(rest, exponent) {
        rest = past(behind(power, "+-").unwrap_or(power), DECIMAL);
    }
    rest = behind(rest, "i").unwrap_or(rest);
    let octets = text.len() - rest.len();
    match rest.chars().next() {
        Some(letter) if is_of_words(letter) => {
            Err(format!("bad number syntax: {}", quote(&text[..octets + letter.len_utf8()])))
        }
        _ => Ok(octets),
    }
}
