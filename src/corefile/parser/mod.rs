//! Tokens to server blocks: keys, snippets, imports, directives.
//!
//! Owns the two stacks of tokens (read, and still to come) and the snippets; follows caddy 1.1.4
//! token by token, since its leniencies decide which Corefiles start. Never knows what a directive
//! means, only whether its word exists.

mod imports;

use super::{CorefileError, Surroundings, Token, environment, lexer};
use std::collections::HashMap;
use std::mem;
use std::sync::Arc;

/// The greatest number of mistakes that [`parse_all`] goes on after.
const MOST_MISTAKES: usize = 100;

/// A directive of one block with all its tokens, the word first. A word that occurs several times
/// has its tokens joined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directive {
    /// The word.
    pub word: String,
    /// All tokens, the word itself first.
    pub tokens: Vec<Token>,
}

/// One server block.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServerBlock {
    /// The keys as written, environment replaced.
    pub keys: Vec<Token>,
    /// The directives in order of first appearance.
    pub directives: Vec<Directive>,
}

/// A parsed Corefile.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tree {
    /// The blocks in file order, snippets left out. None at all means CoreDNS's default:
    /// `whoami` and `log` for the root on the default port.
    pub blocks: Vec<ServerBlock>,
    /// Lines to log at WARNING, such as an import glob without match.
    pub warnings: Vec<String>,
}

/// Parses a Corefile. `file` is the path that errors name and that relative imports start from;
/// `known` tells whether a directive word exists (an unknown one is an error); `reload` passes
/// `|_| true`.
pub fn parse(
    text: &[u8],
    file: &str,
    known: &dyn Fn(&str) -> bool,
    surroundings: &dyn Surroundings,
) -> Result<Tree, CorefileError> {
    let file: Arc<str> = Arc::from(file);
    let tokens = lexer::tokens(text, &file);
    let mut parser = Parser::new(tokens, file, known, surroundings);
    parser.blocks()?;
    Ok(parser.tree)
}

/// As [`parse`], but goes on after a mistake: the tree of what is right, and all mistakes in the order
/// in which they were met. The first of them is the one that [`parse`] ends with.
pub fn parse_all(
    text: &[u8],
    file: &str,
    known: &dyn Fn(&str) -> bool,
    surroundings: &dyn Surroundings,
) -> (Tree, Vec<CorefileError>) {
    parse_tokens(lexer::tokens(text, &Arc::from(file)), known, surroundings)
}

/// As [`parse_all`], from tokens.
pub fn parse_tokens(
    tokens: Vec<Token>,
    known: &dyn Fn(&str) -> bool,
    surroundings: &dyn Surroundings,
) -> (Tree, Vec<CorefileError>) {
    let file = tokens.first().map_or_else(|| Arc::from(""), |token| token.file.clone());
    let mut parser = Parser::new(tokens, file, known, surroundings);
    parser.mistakes = Some(Vec::new());
    let end = parser.blocks().err();
    let mut mistakes = parser.mistakes.unwrap_or_default();
    mistakes.extend(end);
    (parser.tree, mistakes)
}

struct Parser<'p> {
    /// Stands for the place before the first token.
    start: Token,
    /// The tokens up to the current one, which is the last.
    read: Vec<Token>,
    /// The tokens to come, the next one last.
    ahead: Vec<Token>,
    snippets: HashMap<String, Vec<Token>>,
    snippet_imports: u32,
    file_imports: u32,
    known: &'p dyn Fn(&str) -> bool,
    surroundings: &'p dyn Surroundings,
    tree: Tree,
    /// The mistakes so far, when the first is not the end.
    mistakes: Option<Vec<CorefileError>>,
    /// That the text ended too early was said.
    is_end_told: bool,
}

/// How the list of keys ended.
enum KeysEnd {
    /// The current token is the one behind the keys.
    Token,
    /// The text ended.
    End,
}

impl<'p> Parser<'p> {
    fn new(
        mut ahead: Vec<Token>,
        file: Arc<str>,
        known: &'p dyn Fn(&str) -> bool,
        surroundings: &'p dyn Surroundings,
    ) -> Parser<'p> {
        ahead.reverse();
        Parser {
            start: Token {
                file,
                imported: false,
                line: 1,
                column: 1,
                length: 0,
                text: String::new(),
            },
            read: Vec::with_capacity(ahead.len()),
            ahead,
            snippets: HashMap::new(),
            snippet_imports: 0,
            file_imports: 0,
            known,
            surroundings,
            tree: Tree::default(),
            mistakes: None,
            is_end_told: false,
        }
    }

    /// All that is ahead, into the tree.
    fn blocks(&mut self) -> Result<(), CorefileError> {
        while self.next() {
            let block = self.block()?;
            if !block.keys.is_empty() {
                self.tree.blocks.push(block);
            }
        }
        Ok(())
    }

    /// The end, or one mistake more to go on after.
    fn mistake(&mut self, error: CorefileError) -> Result<(), CorefileError> {
        match &mut self.mistakes {
            Some(mistakes) if mistakes.len() < MOST_MISTAKES => {
                mistakes.push(error);
                Ok(())
            }
            _ => Err(error),
        }
    }

    /// A mistake that the text ended too early, which is said once.
    fn early_end(&mut self, error: CorefileError) -> Result<(), CorefileError> {
        match mem::replace(&mut self.is_end_told, true) {
            true => Ok(()),
            false => self.mistake(error),
        }
    }

    fn next(&mut self) -> bool {
        let next = self.ahead.pop();
        let more = next.is_some();
        self.read.extend(next);
        more
    }

    fn next_arg(&mut self) -> bool {
        let same_line = match (self.read.last(), self.ahead.last()) {
            (Some(now), Some(next)) => now.shares_line_with(next),
            _ => false,
        };
        same_line && self.next()
    }

    /// The current token goes back to those to come.
    fn back(&mut self) {
        self.ahead.extend(self.read.pop());
    }

    fn current(&self) -> &Token {
        self.read.last().unwrap_or(&self.start)
    }

    fn val(&self) -> &str {
        &self.current().text
    }

    /// Whether the current token begins a line. Tokens of a snippet keep the lines of its
    /// declaration, so this compares rather than counts.
    fn is_new_line(&self) -> bool {
        let [.., before, now] = self.read.as_slice() else { return true };
        before.file != now.file || before.imported != now.imported || before.last_line() < now.line
    }

    fn error(&self, message: impl AsRef<str>) -> CorefileError {
        CorefileError::at(self.current(), message)
    }

    fn eof_error(&self) -> CorefileError {
        self.error("Unexpected EOF")
    }

    fn syntax_error(&self, expecting: &str) -> CorefileError {
        CorefileError::syntax(self.current(), self.val(), expecting)
    }

    fn replaced(&self) -> String {
        environment::replace(self.val(), self.surroundings)
    }

    /// One server block or snippet; a snippet leaves the block without keys.
    fn block(&mut self) -> Result<ServerBlock, CorefileError> {
        let mut block = ServerBlock::default();
        if let KeysEnd::End = self.keys(&mut block)? {
            return Ok(block);
        }
        if let [key] = block.keys.as_slice()
            && let Some(name) = key.text.strip_prefix('(').and_then(|name| name.strip_suffix(')'))
        {
            let again = self.snippets.contains_key(name);
            if again {
                let text = format!("redeclaration of previously declared snippet {name}");
                self.mistake(self.error(text))?;
            }
            let mut tokens = self.snippet()?;
            if self.imports_itself(name, &tokens) {
                // Mostly a brace is missing, and the snippet has swallowed the blocks behind it.
                self.mistake(self.too_deep())?;
                tokens = Vec::new();
            }
            if !again {
                self.snippets.insert(name.to_owned(), tokens);
            }
            return Ok(ServerBlock::default());
        }
        let braced = self.val() == "{";
        if !braced {
            // Without braces the rest of the file is this block.
            self.back();
        }
        self.directives(&mut block)?;
        if braced && self.val() != "}" {
            self.early_end(self.syntax_error("}"))?;
        }
        Ok(block)
    }

    fn keys(&mut self, block: &mut ServerBlock) -> Result<KeysEnd, CorefileError> {
        let mut another = false;
        loop {
            let text = self.replaced();
            if text == "import" && self.is_new_line() {
                self.import()?;
                if !self.next() {
                    break;
                }
                continue;
            }
            if text == "{" {
                if another {
                    let text = "Expected another address but had '{' - check for extra comma";
                    self.mistake(self.error(text))?;
                }
                return Ok(KeysEnd::Token);
            }
            if !text.is_empty() {
                let (text, comma) = match text.strip_suffix(',') {
                    Some(text) => (text.to_owned(), true),
                    None => (text, false),
                };
                another = comma;
                block.keys.push(Token { text, ..self.current().clone() });
            }
            if !self.next() {
                break;
            }
            if !another && self.is_new_line() {
                return Ok(KeysEnd::Token);
            }
        }
        // Too early, when a comma promised another key.
        if another {
            self.early_end(self.eof_error())?;
        }
        Ok(KeysEnd::End)
    }

    /// The tokens between a snippet's braces.
    fn snippet(&mut self) -> Result<Vec<Token>, CorefileError> {
        if self.val() != "{" {
            self.mistake(self.syntax_error("{"))?;
            self.back();
            return Ok(Vec::new());
        }
        let mut tokens = Vec::new();
        let mut open = 1u32;
        while self.next() {
            match self.val() {
                "}" => open -= 1,
                "{" => open += 1,
                _ => {}
            }
            if open == 0 {
                return Ok(tokens);
            }
            tokens.push(self.current().clone());
        }
        self.early_end(self.syntax_error("}"))?;
        Ok(tokens)
    }

    fn directives(&mut self, block: &mut ServerBlock) -> Result<(), CorefileError> {
        while self.next() {
            match self.val() {
                "}" => break,
                "import" => self.import()?,
                _ => self.directive(block)?,
            }
        }
        Ok(())
    }

    fn directive(&mut self, block: &mut ServerBlock) -> Result<(), CorefileError> {
        let word = self.replaced();
        let is_known = (self.known)(&word);
        if !is_known {
            self.mistake(self.error(format!("Unknown directive '{word}'")))?;
        }
        // As it is written: the hash of a Corefile has the variable, not its value.
        let mut tokens = vec![self.current().clone()];
        let mut nesting = 0u32;
        while self.next() {
            match self.val() {
                // Also on the next line: the plugin then sees it as a second occurrence of itself.
                "{" => nesting += 1,
                _ if nesting == 0 && self.is_new_line() => {
                    self.back();
                    break;
                }
                "}" if nesting > 0 => nesting -= 1,
                "}" => {
                    let text = "Unexpected '}' because no matching opening brace";
                    self.mistake(self.error(text))?;
                    self.stray_brace();
                    break;
                }
                "import" if self.is_new_line() => {
                    self.import()?;
                    continue;
                }
                _ => {}
            }
            let text = self.replaced();
            if let Some(token) = self.read.last_mut() {
                // For good: line breaks in the value count when the next token's line is judged.
                token.text = text;
            }
            tokens.push(self.current().clone());
        }
        if nesting > 0 {
            self.early_end(self.eof_error())?;
        }
        if !is_known {
            return Ok(());
        }
        match block.directives.iter_mut().find(|directive| directive.word == word) {
            Some(directive) => directive.tokens.append(&mut tokens),
            None => block.directives.push(Directive { word, tokens }),
        }
        Ok(())
    }

    /// After a `}` that no brace of its directive opened: it closes the block, unless the next line
    /// does.
    fn stray_brace(&mut self) {
        let is_closed_below = self.ahead.last().is_some_and(|next| next.text == "}");
        match is_closed_below {
            true => drop(self.read.pop()),
            false => self.back(),
        }
    }
}
