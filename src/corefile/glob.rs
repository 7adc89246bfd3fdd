//! The file patterns of `import`: `*` and `?` within one path component, and `\` before what stands
//! for itself. Decides matches only; whoever has the files walks them.

use std::path::Path;

/// True when `path` matches `pattern`, component by component: `*` is any run of characters, `?`
/// any one, neither crosses a `/`; a character behind `\` is itself. No malformed pattern matches.
pub fn glob_matches(pattern: &Path, path: &Path) -> bool {
    let (mut patterns, mut parts) = (pattern.components(), path.components());
    loop {
        match (patterns.next(), parts.next()) {
            (None, None) => return true,
            (Some(pattern), Some(part)) => {
                let Some(pattern) = pieces(&pattern.as_os_str().to_string_lossy()) else {
                    return false;
                };
                let part: Vec<char> = part.as_os_str().to_string_lossy().chars().collect();
                if !component_matches(&pattern, &part) {
                    return false;
                }
            }
            _ => return false,
        }
    }
}

/// True when Go's `filepath.Match` takes `pattern` for one: no `[` without `\` before it, which would
/// open a range, and no component that ends with `\`.
pub(super) fn is_well_formed(pattern: &Path) -> bool {
    pattern.components().all(|part| pieces(&part.as_os_str().to_string_lossy()).is_some())
}

/// A piece of a pattern.
#[derive(Clone, Copy, PartialEq)]
enum Piece {
    /// `*`
    Any,
    /// `?`
    One,
    /// A character that stands for itself.
    Is(char),
}

/// The pieces of a component; `None` when it is malformed.
fn pieces(component: &str) -> Option<Vec<Piece>> {
    let mut letters = component.chars();
    let mut pieces = Vec::with_capacity(component.len());
    while let Some(letter) = letters.next() {
        pieces.push(match letter {
            '*' => Piece::Any,
            '?' => Piece::One,
            '[' => return None,
            '\\' => Piece::Is(letters.next()?),
            letter => Piece::Is(letter),
        });
    }
    Some(pieces)
}

/// Wildcard matching with one remembered star: linear but for the last star's retries.
fn component_matches(pattern: &[Piece], text: &[char]) -> bool {
    let (mut at, mut place) = (0, 0);
    let mut retry = None;
    while place < text.len() {
        match pattern.get(at) {
            Some(Piece::Any) => {
                retry = Some((at, place));
                at += 1;
            }
            Some(&piece) if piece == Piece::One || piece == Piece::Is(text[place]) => {
                at += 1;
                place += 1;
            }
            _ => match retry {
                Some((star, from)) => {
                    at = star + 1;
                    place = from + 1;
                    retry = Some((star, from + 1));
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(|&piece| piece == Piece::Any)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_stay_within_a_component() {
        let check = |pattern: &str, path: &str| glob_matches(pattern.as_ref(), path.as_ref());
        assert!(check("/etc/*.server", "/etc/a.server"));
        assert!(check("/etc/*", "/etc/a"));
        assert!(check("/e?c/a*b*c", "/etc/axxbyybc"));
        assert!(!check("/etc/*", "/etc/a/b"));
        assert!(!check("/etc/?.x", "/etc/ab.x"));
        assert!(check("/etc/a", "/etc/a"));
    }

    #[test]
    fn a_backslash_takes_a_character_for_itself() {
        let check = |pattern: &str, path: &str| glob_matches(pattern.as_ref(), path.as_ref());
        assert!(check(r"/e/a\*.x", "/e/a*.x") && !check(r"/e/a\*.x", "/e/ab.x"));
        assert!(check(r"/e/\a\\", r"/e/a\") && check(r"/e/\[", "/e/[") && check("/e/]", "/e/]"));
        for (pattern, good) in [(r"/a\", false), ("/[a", false), (r"/\[a", true), ("/a]", true)] {
            assert_eq!(is_well_formed(pattern.as_ref()), good, "{pattern}");
        }
    }
}
