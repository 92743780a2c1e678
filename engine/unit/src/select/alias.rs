//! The patterns of modules.alias: fnmatch(3) without flags, on bytes.
//!
//! `*` any run, `?` any one byte, `[abc]`, `[a-z]`, `[!a]`; nothing is special about `/`.

/// Whether `text` matches `pattern`.
///
/// Walks both once and, on a mismatch, goes back only to the latest `*`: no recursion, at worst
/// `pattern.len() * text.len()` comparisons, whatever the pattern.
pub fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    // Where to resume after a mismatch: just behind the latest `*`, with one more byte given to it.
    let mut resume: Option<(usize, usize)> = None;

    while t < text.len() {
        if pattern.get(p) == Some(&b'*') {
            p += 1;
            resume = Some((p, t));
            continue;
        }
        if let Some(next) = match_one(pattern, p, text[t]) {
            p = next;
            t += 1;
            continue;
        }
        let Some((after_star, taken)) = resume else { return false };
        p = after_star;
        t = taken + 1;
        resume = Some((after_star, t));
    }
    pattern[p..].iter().all(|&b| b == b'*')
}

/// `-` becomes `_`, except inside `[…]`, where it is the dash of a range.
///
/// depmod(8) spells alias patterns so, and what is matched against them has to follow.
pub fn underscored(text: &str) -> String {
    let mut in_brackets = false;
    text.chars()
        .map(|c| match c {
            '[' => {
                in_brackets = true;
                c
            }
            ']' => {
                in_brackets = false;
                c
            }
            '-' if !in_brackets => '_',
            c => c,
        })
        .collect()
}

/// How many leading bytes of a pattern stand for themselves.
pub fn literal_prefix(pattern: &str) -> usize {
    pattern.find(['*', '?', '[']).unwrap_or(pattern.len())
}

/// Matches one element of the pattern at `p` against one byte; gives the position of the next element.
fn match_one(pattern: &[u8], p: usize, byte: u8) -> Option<usize> {
    match *pattern.get(p)? {
        b'?' => Some(p + 1),
        b'[' => match bracket(&pattern[p..], byte) {
            Some((true, len)) => Some(p + len),
            Some((false, _)) => None,
            // An unclosed bracket is an ordinary character (POSIX, 2.13.1).
            None => (byte == b'[').then_some(p + 1),
        },
        literal => (literal == byte).then_some(p + 1),
    }
}

/// Reads a bracket expression: whether it holds `byte`, and how long it is. `None`: it never closes.
fn bracket(pattern: &[u8], byte: u8) -> Option<(bool, usize)> {
    let negated = matches!(pattern.get(1), Some(b'!' | b'^'));
    let first = if negated { 2 } else { 1 };
    let mut at = first;
    let mut found = false;
    loop {
        let low = *pattern.get(at)?;
        // A `]` that stands first is a member.
        if low == b']' && at > first {
            return Some((found != negated, at + 1));
        }
        let high = match (pattern.get(at + 1), pattern.get(at + 2)) {
            (Some(b'-'), Some(&high)) if high != b']' => {
                at += 2;
                high
            }
            _ => low,
        };
        found |= (low..=high).contains(&byte);
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fnmatch_table() {
        #[track_caller]
        fn check(pattern: &str, text: &str, expect: bool) {
            assert_eq!(matches(pattern, text), expect, "{pattern:?} against {text:?}");
        }
        check("", "", true);
        check("", "a", false);
        check("a", "", false);
        check("*", "", true);
        check("***", "abc", true);
        check("a*", "abc", true);
        check("*c", "abc", true);
        check("a*c", "abbbc", true);
        check("a*c", "abbb", false);
        check("a?c", "abc", true);
        check("a?c", "ac", false);
        check("*a*b*", "xxaxxbxx", true);
        check("*a*b*", "xxbxxaxx", false);
        check("[abc]x", "bx", true);
        check("[a-c]x", "dx", false);
        check("[!a-c]x", "dx", true);
        check("[^a]", "a", false);
        check("[]]", "]", true);
        check("[a-]", "-", true);
        check("[a", "[a", true);
        check("[a", "a", false);
        check("virtio:d00000002v*", "virtio:d00000002v00001AF4", true);
        check("virtio:d00000002v*", "virtio:d00000001v00001AF4", false);
        check(
            "pci:v00001AF4d*sv*sd*bc*sc*i*",
            "pci:v00001AF4d00001041sv00001AF4sd00001100bc02sc00i00",
            true,
        );
        check(
            "pci:v*d*sv*sd*bc02sc00i*",
            "pci:v00001AF4d00001041sv00001AF4sd00001100bc02sc01i00",
            false,
        );
        check("input:b*v*p*e*-e*1,*k*", "input:b0011v0001p0001eAB41-e0,1,4,k71", true);
    }

    #[test]
    fn a_hostile_pattern_ends() {
        let pattern = "*a".repeat(200) + "b";
        assert!(!matches(&pattern, &"a".repeat(5_000)));
    }

    #[test]
    fn literal_prefixes() {
        assert_eq!(literal_prefix("pci:v00001AF4d*"), 14);
        assert_eq!(literal_prefix("fs_ext4"), 7);
        assert_eq!(literal_prefix("*"), 0);
        assert_eq!(literal_prefix("usb:v1[0-9]"), 6);
    }

    proptest::proptest! {
        /// Against the two-line definition of `*`, `?` and literals.
        #[test]
        fn agrees_with_the_definition(pattern in "[ab*?]{0,8}", text in "[ab]{0,10}") {
            fn defined(p: &[u8], t: &[u8]) -> bool {
                match (p.first(), t.first()) {
                    (None, rest) => rest.is_none(),
                    (Some(b'*'), _) => defined(&p[1..], t) || (!t.is_empty() && defined(p, &t[1..])),
                    (Some(b'?'), Some(_)) => defined(&p[1..], &t[1..]),
                    (Some(a), Some(b)) => a == b && defined(&p[1..], &t[1..]),
                    (Some(_), None) => false,
                }
            }
            proptest::prop_assert_eq!(matches(&pattern, &text), defined(pattern.as_bytes(), text.as_bytes()));
        }

        #[test]
        fn never_panics(pattern in "\\PC{0,40}", text in "\\PC{0,40}") {
            matches(&pattern, &text);
        }
    }
}
