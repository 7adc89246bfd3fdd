//! The file patterns of `import`: `*` and `?` within one path component. Decides matches only;
//! whoever has the files walks them.

use std::path::Path;

/// True when `path` matches `pattern`, component by component: `*` is any run of characters, `?`
/// any one, neither crosses a `/`.
pub fn glob_matches(pattern: &Path, path: &Path) -> bool {
    let (mut patterns, mut parts) = (pattern.components(), path.components());
    loop {
        match (patterns.next(), parts.next()) {
            (None, None) => return true,
            (Some(pattern), Some(part)) => {
                let pattern: Vec<char> = pattern.as_os_str().to_string_lossy().chars().collect();
                let part: Vec<char> = part.as_os_str().to_string_lossy().chars().collect();
                if !component_matches(&pattern, &part) {
                    return false;
                }
            }
            _ => return false,
        }
    }
}

/// Wildcard matching with one remembered star: linear but for the last star's retries.
fn component_matches(pattern: &[char], text: &[char]) -> bool {
    let (mut at, mut place) = (0, 0);
    let mut retry = None;
    while place < text.len() {
        match pattern.get(at) {
            Some('*') => {
                retry = Some((at, place));
                at += 1;
            }
            Some(&letter) if letter == '?' || letter == text[place] => {
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
    pattern[at..].iter().all(|&letter| letter == '*')
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
}
