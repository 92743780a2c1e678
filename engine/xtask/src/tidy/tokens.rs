//! What a source file says, without its comments and strings: words, and the paths that they form.

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// A path such as `std::fs::File`, with the line that it ends on. `use a::{b, c}` says `a::b` and `a::c`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Path {
    pub(crate) text: String,
    pub(crate) line: usize,
}

/// Every path of a file, a single word being one too. A macro's name ends in `!`; a word that stands first in an attribute
/// begins with `#`.
pub(crate) fn paths(tokens: TokenStream) -> Vec<Path> {
    let mut paths = Vec::new();
    collect(tokens, "", &mut paths);
    paths
}

fn collect(tokens: TokenStream, prefix: &str, paths: &mut Vec<Path>) {
    let tokens: Vec<_> = tokens.into_iter().collect();
    let mut at = 0;
    while at < tokens.len() {
        match &tokens[at] {
            TokenTree::Ident(_) => at = path(&tokens, at, prefix, paths),
            TokenTree::Group(group) => {
                let attribute =
                    group.delimiter() == Delimiter::Bracket && is_attribute(&tokens[..at]);
                // Only braces that stand in a path's place carry its beginning on; `path` has seen to those.
                collect(group.stream(), if attribute { "#" } else { "" }, paths);
                at += 1;
            }
            TokenTree::Punct(_) | TokenTree::Literal(_) => at += 1,
        }
        if prefix == "#" && at > 0 {
            // Only an attribute's first word names it; what is in its parentheses was collected as code.
            return tokens[at..].iter().for_each(|token| collect(token.clone().into(), "", paths));
        }
    }
}

/// Reads the path that starts at `at`, and returns where the tokens go on.
fn path(tokens: &[TokenTree], mut at: usize, prefix: &str, paths: &mut Vec<Path>) -> usize {
    let mut text = prefix.to_owned();
    let mut line = 0;
    while let Some(TokenTree::Ident(word)) = tokens.get(at) {
        text += &word.to_string();
        line = word.span().start().line;
        at += 1;
        if !is_colons(&tokens[at..]) {
            break;
        }
        at += 2;
        match tokens.get(at) {
            Some(TokenTree::Ident(_)) => text += "::",
            Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace => {
                paths.push(Path { text: text.clone(), line });
                collect(group.stream(), &format!("{text}::"), paths);
                return at + 1;
            }
            // A turbofish, or `*`: the path is over.
            _ => break,
        }
    }
    if matches!(tokens.get(at), Some(TokenTree::Punct(mark)) if mark.as_char() == '!') {
        text.push('!');
    }
    paths.push(Path { text, line });
    at
}

fn is_colons(tokens: &[TokenTree]) -> bool {
    let colon = |token: Option<&TokenTree>| matches!(token, Some(TokenTree::Punct(mark)) if mark.as_char() == ':');
    colon(tokens.first()) && colon(tokens.get(1))
}

/// Whether brackets after these tokens are an attribute's: `#[…]` or `#![…]`.
fn is_attribute(before: &[TokenTree]) -> bool {
    let mark = |token: &TokenTree, mark: char| matches!(token, TokenTree::Punct(found) if found.as_char() == mark);
    match before {
        [.., hash, bang] if mark(bang, '!') => mark(hash, '#'),
        [.., hash] => mark(hash, '#'),
        [] => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(source: &str, expect: &[&str]) {
        let found: Vec<_> =
            paths(source.parse().unwrap()).into_iter().map(|path| path.text).collect();
        assert_eq!(found, expect, "{source}");
    }

    #[test]
    fn what_a_source_says() {
        check("use std::fs;", &["use", "std::fs"]);
        check("use std::{fs::File, io};", &["use", "std", "std::fs::File", "std::io"]);
        check("use a::{b::{c, d}, e::*};", &["use", "a", "a::b", "a::b::c", "a::b::d", "a::e"]);
        check("nix::unistd::sync()", &["nix::unistd::sync"]);
        check("x.fs(Vec::<u8>::new())", &["x", "fs", "Vec", "u8", "new"]);
        check("// std::fs\n\"std::fs\" /* nix::x */", &[]);
        check("todo!(\"x\")", &["todo!"]);
        check("#[ignore] fn ignore() {}", &["#ignore", "fn", "ignore"]);
        check("#[cfg(target_os = \"linux\")] mod a;", &["#cfg", "target_os", "mod", "a"]);
        check("#![expect(unsafe_code, reason = \"x\")]", &["#expect", "unsafe_code", "reason"]);
    }

    #[test]
    fn lines_are_known() {
        let found = paths("a\n\nb::\nc".parse().unwrap());
        assert_eq!(found.iter().map(|path| path.line).collect::<Vec<_>>(), [1, 4]);
    }
}
