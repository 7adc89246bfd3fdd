//! `import`: the tokens of a snippet or of files in the place of the line that names them.
//!
//! Owns the bounds on imports, and which files a pattern means. What was imported is parsed as if it
//! stood there.

use super::Parser;
use crate::corefile::glob::is_well_formed;
use crate::corefile::{CorefileError, Token, environment, lexer, system_error_text};
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

/// The greatest number of imports in one Corefile, of snippets and of files each: what ends a
/// snippet or file that imports itself.
const MOST_IMPORTS: u32 = 10_000;

/// The greatest number of tokens that imports may make of one Corefile.
const MOST_TOKENS: usize = 2_000_000;

impl Parser<'_> {
    /// Puts what `import PATTERN` names in its place, ahead of the cursor. After a mistake the line
    /// is left out.
    pub(super) fn import(&mut self) -> Result<(), CorefileError> {
        let before = self.read.len().saturating_sub(1);
        if let Err(error) = self.imported() {
            self.mistake(error)?;
            while self.next_arg() {}
            self.read.truncate(before);
        }
        Ok(())
    }

    fn imported(&mut self) -> Result<(), CorefileError> {
        if !self.next_arg() {
            let word = self.val();
            return Err(self
                .error(format!("Wrong argument count or unexpected line ending after '{word}'")));
        }
        let pattern = self.replaced();
        if pattern.is_empty() {
            return Err(self.error("Import requires a non-empty filepath"));
        }
        if self.next_arg() {
            return Err(self.error("Import takes only one argument (glob pattern or file)"));
        }
        let mut tokens = match self.snippets.get(&pattern) {
            Some(tokens) => {
                self.snippet_imports += 1;
                if self.snippet_imports > MOST_IMPORTS {
                    return Err(self.too_deep());
                }
                tokens.clone()
            }
            None => self.files(&pattern)?,
        };
        if self.read.len() + self.ahead.len() + tokens.len() > MOST_TOKENS {
            return Err(
                self.error(format!("imports make more than {MOST_TOKENS} tokens of this file"))
            );
        }
        // The two tokens of the import itself go.
        self.read.truncate(self.read.len().saturating_sub(2));
        tokens.reverse();
        self.ahead.append(&mut tokens);
        Ok(())
    }

    /// The tokens of all files that match `pattern`, which starts from the folder of the file
    /// that the import stands in.
    fn files(&mut self, pattern: &str) -> Result<Vec<Token>, CorefileError> {
        let folder = Path::new(&*self.current().file).parent().unwrap_or(Path::new(""));
        let path = cleaned(&folder.join(pattern));
        let text = path.to_string_lossy();
        let count = |letter| text.matches(letter).count();
        if count('*') > 1 || count('?') > 1 || (text.contains('[') && text.contains(']')) {
            return Err(self.error(format!(
                "Glob pattern may only contain one wildcard (*), but has others: {text}"
            )));
        }
        if !is_well_formed(&path) {
            return Err(self.error(format!(
                "Failed to use import pattern {pattern}: syntax error in pattern"
            )));
        }
        let found = self.surroundings.glob(&path);
        if found.is_empty() {
            if !text.contains(['*', '?', '[', ']']) {
                return Err(self.error(format!("File to import not found: {pattern}")));
            }
            self.tree.warnings.push(format!("No files matching import glob pattern: {pattern}"));
        }
        let mut tokens = Vec::new();
        for path in found {
            self.file_imports += 1;
            if self.file_imports > MOST_IMPORTS {
                return Err(
                    self.error(format!("maximum file import depth ({MOST_IMPORTS}) exceeded"))
                );
            }
            let shown = path.to_string_lossy();
            let content = self.surroundings.read(&path).map_err(|error| {
                self.error(match error.kind() {
                    io::ErrorKind::IsADirectory => {
                        format!("Could not import {shown}: is a directory")
                    }
                    _ => {
                        let reason = system_error_text(&error);
                        format!("Could not import {shown}: open {shown}: {reason}")
                    }
                })
            })?;
            let found = lexer::tokens(&content, &Arc::from(&*shown)).into_iter();
            tokens.extend(found.map(|token| Token { imported: true, ..token }));
        }
        Ok(tokens)
    }

    /// A snippet imports itself, or snippets one another.
    pub(super) fn too_deep(&self) -> CorefileError {
        self.error(format!("maximum snippet import depth ({MOST_IMPORTS}) exceeded"))
    }

    /// Whether a line among a snippet's tokens imports the snippet.
    pub(super) fn imports_itself(&self, name: &str, tokens: &[Token]) -> bool {
        tokens.windows(2).enumerate().any(|(index, pair)| {
            let begins_line = match index.checked_sub(1) {
                Some(before) => {
                    (&tokens[before].file, tokens[before].line) != (&pair[0].file, pair[0].line)
                }
                None => true,
            };
            begins_line
                && pair[0].text == "import"
                && environment::replace(&pair[1].text, self.surroundings) == name
        })
    }
}

/// The path without `.` and, where that is certain, without `..`.
fn cleaned(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir if clean.file_name().is_some() => {
                clean.pop();
            }
            other => clean.push(other),
        }
    }
    clean
}
