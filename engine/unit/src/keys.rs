//! Tables with known keys: one declaration gives the struct, its decoder, its defaults and its documentation.
//!
//! Every error of a table is found, not only the first; an unknown key is told together with the table it belongs
//! to. The same declaration is what the reference documentation and `osctl explain` are made from, so that neither
//! can say anything else than the decoder does.

use crate::diagnostic::{Diagnostic, nearest};
use crate::shape::Shape;
use crate::source::{FileId, Span, obeyed};
use crate::tree::{Node, Table as Tree, Value as Raw};

/// A value of a key: how it is read from TOML, and what a person is told when it is not one.
pub trait Value: Sized {
    /// What was expected, with an example: `a duration such as "30s"`.
    fn expected() -> String;

    /// Reads the value, or says what is wrong with it.
    fn decode(node: &Node, findings: &mut Vec<Diagnostic>) -> Option<Self>;

    /// The value of a key that is not written and has no default; `None` makes the key required.
    fn absent() -> Option<Self> {
        None
    }

    /// What it looks like in TOML.
    fn shape() -> Shape;

    /// The keys inside, where the value is a table with known keys.
    fn keys() -> &'static [Key] {
        &[]
    }
}

/// A key of a table, as documentation shows it.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// The key.
    pub name: &'static str,
    /// What it means.
    pub doc: &'static str,
    /// What is expected as its value.
    pub expected: fn() -> String,
    /// The default as TOML text.
    pub default: Option<&'static str>,
    /// Whether it must be written.
    pub required: bool,
    /// The keys inside, where the value is a table.
    pub inner: fn() -> &'static [Key],
    /// What the value looks like.
    pub shape: fn() -> Shape,
    /// What is wrong with a value; none when it is taken.
    pub check: fn(&Node) -> Vec<Diagnostic>,
}

/// Everything that is wrong with a node as a value of a type.
pub(crate) fn check<T: Value>(node: &Node) -> Vec<Diagnostic> {
    let mut findings = Vec::new();
    T::decode(node, &mut findings);
    findings
}

/// A table with known keys, declared by [`keys!`](crate::keys::keys).
pub trait Table: Sized {
    /// What the table is for.
    const DOC: &'static str;

    /// Its keys in the order of their declaration.
    fn known() -> &'static [Key];

    /// Reads the table. Unknown keys are the caller's matter.
    fn read(fields: &mut Fields<'_>) -> Option<Self>;
}

/// Reads a node as a table with known keys and nothing else.
pub fn decode_table<T: Table>(node: &Node, findings: &mut Vec<Diagnostic>) -> Option<T> {
    let before = findings.len();
    let tree = node.as_table().into_iter().flat_map(Tree::iter);
    for entry in tree.filter(|e| T::known().iter().all(|k| k.name != e.key)) {
        findings.push(unknown_key(&entry.key, entry.key_span, T::known()));
    }
    read_table(node, findings).filter(|_| findings.len() == before)
}

/// Reads a node as a table with known keys; what else is in it was reported before.
pub(crate) fn read_table<T: Table>(node: &Node, findings: &mut Vec<Diagnostic>) -> Option<T> {
    let Raw::Table(tree) = &node.value else {
        findings.push(mismatch(node, "a table"));
        return None;
    };
    let before = findings.len();
    let read = T::read(&mut Fields::new(tree, node.span, T::known(), findings));
    read.filter(|_| findings.len() == before)
}

/// The finding for a key that a table does not have.
pub(crate) fn unknown_key(key: &str, span: Span, known: &[Key]) -> Diagnostic {
    let names = known.iter().map(|k| k.name);
    let found = Diagnostic::new("unknown-key", span, format!("unknown key `{}`", clip(key)));
    let found = found.label("not a key of this table");
    match nearest(key, names.clone()) {
        Some(near) => found.help(format!("did you mean `{near}`?")),
        None if known.is_empty() => found.help("this table has no keys"),
        None => found.help(format!("the keys here are {}", names.collect::<Vec<_>>().join(", "))),
    }
}

/// The finding for a value of the wrong type.
pub(crate) fn mismatch(node: &Node, expected: &str) -> Diagnostic {
    Diagnostic::new(
        "wrong-type",
        node.span,
        format!("expected {expected}, found {}", node.article()),
    )
    .label(format!("expected {expected}"))
}

/// A text from a file as it may stand in a message: short, and without anything that a terminal would obey.
pub(crate) fn clip(text: &str) -> String {
    let (text, more) = match text.char_indices().nth(60) {
        Some((end, _)) => (&text[..end], "…"),
        None => (text, ""),
    };
    let plain = |c: char| match obeyed(c) {
        true => c.escape_default().to_string(),
        false => c.to_string(),
    };
    text.chars().map(plain).chain([more.to_owned()]).collect()
}

/// The entries of a table while it is read.
pub struct Fields<'a> {
    tree: &'a Tree,
    span: Span,
    known: &'static [Key],
    /// How many findings there were before this table.
    before: usize,
    findings: &'a mut Vec<Diagnostic>,
}

impl<'a> Fields<'a> {
    /// The entries of `tree`, with findings going to `findings`.
    pub(crate) fn new(
        tree: &'a Tree,
        span: Span,
        known: &'static [Key],
        findings: &'a mut Vec<Diagnostic>,
    ) -> Self {
        Fields { tree, span, known, before: findings.len(), findings }
    }

    /// Whether nothing is wrong with single keys of this table, so that it can be looked at as a whole.
    pub fn sound(&self) -> bool {
        let known = |key: &str| self.known.iter().any(|k| k.name == key);
        self.findings.len() == self.before && self.tree.iter().all(|e| known(&e.key))
    }

    /// Where the table stands.
    pub fn span(&self) -> Span {
        self.span
    }

    /// Reports a finding about the table as a whole.
    pub fn report(&mut self, finding: Diagnostic) {
        self.findings.push(finding);
    }

    /// Whether a key is written.
    pub fn has(&self, key: &str) -> bool {
        self.tree.entry(key).is_some()
    }

    /// Where a key stands, or the table where it does not.
    pub fn span_of(&self, key: &str) -> Span {
        self.tree.entry(key).map_or(self.span, |e| e.node.span)
    }

    /// Where an item of an array stands; else where the array does.
    pub fn span_of_item(&self, array: &str, item: usize) -> Span {
        let items = self.tree.get(array).map(|node| &node.value);
        let item = match items {
            Some(Raw::Array(items)) => items.get(item),
            _ => None,
        };
        item.map_or(self.span_of(array), |node| node.span)
    }

    /// Where a key of one item of an array of tables stands; else where the array does.
    pub fn span_in(&self, array: &str, item: usize, key: &str) -> Span {
        let items = self.tree.get(array).map(|node| &node.value);
        let item = match items {
            Some(Raw::Array(items)) => items.get(item),
            _ => None,
        };
        item.and_then(|item| item.at(&[key])).map_or(self.span_of(array), |node| node.span)
    }

    /// Whether a key that is not known was meant to be this one.
    fn slip_of(&self, name: &str) -> bool {
        let known = || self.known.iter().map(|k| k.name);
        let mut unknown = self.tree.iter().filter(|e| known().all(|k| k != e.key));
        unknown.any(|e| nearest(&e.key, known()) == Some(name))
    }

    /// Reads one key; `default` is what it is when it is not written.
    pub fn take<T: Value + Clone>(&mut self, name: &str, default: Option<&T>) -> Option<T> {
        if let Some(entry) = self.tree.entry(name) {
            return T::decode(&entry.node, self.findings);
        }
        if let Some(value) = default {
            return Some(value.clone());
        }
        let absent = T::absent();
        // A key with a slip in it looks as if it were missing; one finding is enough.
        if absent.is_none() && !self.slip_of(name) {
            let found = Diagnostic::new("missing-key", self.span, format!("missing key `{name}`"));
            self.findings.push(found.label(format!("`{name}` is {}", T::expected())));
        }
        absent
    }
}

/// Declares tables with known keys.
///
/// A key is written `field "key": Type`, or `field "key": Type = "TOML text"` when it has a default. A key without
/// default is required unless its type is an `Option`. A function after the keys (`check = path`) sees the
/// whole table and reports what no single key can: it takes `(&Self, &mut Fields)`.
macro_rules! keys {
    ($(
        $(#[doc = $doc:literal])*
        $(#[derive($($derive:ident),*)])?
        pub struct $name:ident {
            $(
                $(#[doc = $fdoc:literal])*
                $field:ident $key:literal: $ty:ty $(= $default:literal)?
            ),* $(,)?
        }
        $(check = $check:expr;)?
    )*) => {$(
        $(#[doc = $doc])*
        #[derive(Debug, Clone, PartialEq, $($($derive),*)?)]
        pub struct $name {
            $(
                $(#[doc = $fdoc])*
                pub $field: $ty,
            )*
        }

        impl $crate::keys::Table for $name {
            const DOC: &'static str = concat!($($doc, "\n",)* "");

            fn known() -> &'static [$crate::keys::Key] {
                static KNOWN: std::sync::LazyLock<Vec<$crate::keys::Key>> = std::sync::LazyLock::new(|| vec![$(
                    $crate::keys::Key {
                        name: $key,
                        doc: concat!($($fdoc, "\n",)* ""),
                        expected: <$ty as $crate::keys::Value>::expected,
                        default: $crate::keys::keys!(@default $($default)?),
                        required: $crate::keys::keys!(@default $($default)?).is_none()
                            && <$ty as $crate::keys::Value>::absent().is_none(),
                        inner: <$ty as $crate::keys::Value>::keys,
                        shape: <$ty as $crate::keys::Value>::shape,
                        check: $crate::keys::check::<$ty>,
                    },
                )*]);
                &KNOWN
            }

            #[expect(clippy::allow_attributes, reason = "a table without keys leaves the argument unused, others do not")]
            #[allow(unused_variables, reason = "a table without keys leaves the argument unused")]
            fn read(fields: &mut $crate::keys::Fields<'_>) -> Option<Self> {
                // Every key is read before the first `?`, so that all of their errors are reported.
                $(let $field = {
                    static DEFAULT: std::sync::LazyLock<Option<$ty>> =
                        std::sync::LazyLock::new(|| $crate::keys::default_value($crate::keys::keys!(@default $($default)?)));
                    fields.take::<$ty>($key, DEFAULT.as_ref())
                };)*
                let table = $name { $($field: $field?,)* };
                $(
                    // What is wrong with single keys would be told once more.
                    if fields.sound() {
                        ($check as fn(&$name, &mut $crate::keys::Fields<'_>))(&table, fields);
                    }
                )?
                Some(table)
            }
        }

        impl $crate::keys::Value for $name {
            fn expected() -> String {
                "a table".to_owned()
            }

            fn decode(
                node: &$crate::tree::Node,
                findings: &mut Vec<$crate::diagnostic::Diagnostic>,
            ) -> Option<Self> {
                $crate::keys::decode_table(node, findings)
            }

            fn shape() -> $crate::shape::Shape {
                $crate::shape::Shape::Table(<Self as $crate::keys::Table>::known())
            }

            fn keys() -> &'static [$crate::keys::Key] {
                <Self as $crate::keys::Table>::known()
            }
        }
    )*};
    (@default) => { None::<&'static str> };
    (@default $default:literal) => { Some($default) };
}
pub(crate) use keys;

/// The node of a default's TOML text. A test decodes every default, so a faulty one cannot ship.
pub(crate) fn default_node(text: Option<&str>) -> Option<Node> {
    let mut sources = crate::source::Sources::default();
    let file = sources.add("default", format!("v = {}", text?));
    let mut findings = Vec::new();
    let node = crate::tree::parse(&sources, file, &mut findings);
    node.at(&["v"]).map(|node| node.moved(Span::whole(FileId::DEFAULT)))
}

/// The value of a default's TOML text.
pub(crate) fn default_value<T: Value>(text: Option<&str>) -> Option<T> {
    T::decode(&default_node(text)?, &mut Vec::new())
}

impl<T: Value> Value for Option<T> {
    fn expected() -> String {
        T::expected()
    }

    fn decode(node: &Node, findings: &mut Vec<Diagnostic>) -> Option<Self> {
        T::decode(node, findings).map(Some)
    }

    fn absent() -> Option<Self> {
        Some(None)
    }

    fn shape() -> Shape {
        T::shape()
    }

    fn keys() -> &'static [Key] {
        T::keys()
    }
}

impl<T: Value> Value for Vec<T> {
    fn expected() -> String {
        format!("an array, each item {}", T::expected())
    }

    fn shape() -> Shape {
        Shape::list(T::shape())
    }

    fn decode(node: &Node, findings: &mut Vec<Diagnostic>) -> Option<Self> {
        let Raw::Array(items) = &node.value else {
            findings.push(mismatch(node, &Self::expected()));
            return None;
        };
        // All items are decoded before the first failure ends it, so that all are reported.
        let decoded: Vec<Option<T>> = items.iter().map(|item| T::decode(item, findings)).collect();
        decoded.into_iter().collect()
    }

    fn keys() -> &'static [Key] {
        T::keys()
    }
}

impl Value for bool {
    fn expected() -> String {
        "true or false".to_owned()
    }

    fn shape() -> Shape {
        Shape::Boolean
    }

    fn decode(node: &Node, findings: &mut Vec<Diagnostic>) -> Option<Self> {
        match node.value {
            Raw::Boolean(b) => Some(b),
            _ => {
                findings.push(mismatch(node, &Self::expected()));
                None
            }
        }
    }
}

macro_rules! integers {
    ($($ty:ty),*) => {$(
        impl Value for $ty {
            fn expected() -> String {
                format!("an integer from {} to {}", <$ty>::MIN, <$ty>::MAX)
            }

            fn shape() -> Shape {
                // i64 is the widest.
                Shape::Integer { from: i64::from(<$ty>::MIN), to: i64::from(<$ty>::MAX) }
            }

            fn decode(node: &Node, findings: &mut Vec<Diagnostic>) -> Option<Self> {
                match node.value {
                    Raw::Integer(i) => match <$ty>::try_from(i) {
                        Ok(i) => Some(i),
                        Err(_) => {
                            let message = format!("{i} is out of range");
                            let found = Diagnostic::new("out-of-range", node.span, message);
                            findings.push(found.label(format!("expected {}", Self::expected())));
                            None
                        }
                    },
                    _ => {
                        findings.push(mismatch(node, &Self::expected()));
                        None
                    }
                }
            }
        }
    )*};
}
integers!(u8, u16, u32, i16, i32, i64);

/// A value that is written as a string.
pub trait Text: Sized {
    /// What was expected, with an example.
    const EXPECTED: &'static str;

    /// A string that is taken.
    const EXAMPLE: &'static str;

    /// A regular expression (the part that ECMA 262 and the regex crate share) that every string matches that is taken; empty where
    /// there is none.
    const PATTERN: &'static str;

    /// Reads the string.
    ///
    /// # Errors
    /// What is wrong with it, in lower case.
    fn parse(text: &str) -> Result<Self, String>;
}

impl<T: Text> Value for T {
    fn expected() -> String {
        T::EXPECTED.to_owned()
    }

    fn shape() -> Shape {
        Shape::Text { example: T::EXAMPLE, pattern: T::PATTERN }
    }

    fn decode(node: &Node, findings: &mut Vec<Diagnostic>) -> Option<Self> {
        let Raw::String(text) = &node.value else {
            findings.push(mismatch(node, T::EXPECTED));
            return None;
        };
        let parsed = if text.contains('\0') {
            Err("it holds a NUL character".to_owned())
        } else {
            T::parse(text)
        };
        match parsed {
            Ok(value) => Some(value),
            Err(why) => {
                let message = format!("`{}`: {why}", clip(text));
                findings.push(
                    Diagnostic::new("bad-value", node.span, message)
                        .label(format!("expected {}", T::EXPECTED)),
                );
                None
            }
        }
    }
}

/// Declares an enum whose variants are words in TOML.
macro_rules! words {
    ($(
        $(#[doc = $doc:literal])*
        pub enum $name:ident {
            $($(#[doc = $vdoc:literal])* $variant:ident = $word:literal),* $(,)?
        }
    )*) => {$(
        $(#[doc = $doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name {
            $($(#[doc = $vdoc])* $variant,)*
        }

        impl $name {
            /// Every variant.
            pub const ALL: &'static [$name] = &[$($name::$variant,)*];

            /// The word in TOML.
            pub fn as_str(self) -> &'static str {
                match self {
                    $($name::$variant => $word,)*
                }
            }

            /// The variant of a word.
            pub fn from_word(word: &str) -> Option<Self> {
                match word {
                    $($word => Some($name::$variant),)*
                    _ => None,
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl $crate::keys::Value for $name {
            fn expected() -> String {
                let words: Vec<_> = $name::ALL.iter().map(|w| format!("\"{w}\"")).collect();
                words.join(" | ")
            }

            fn shape() -> $crate::shape::Shape {
                $crate::shape::Shape::Words(&[$(($word, concat!($($vdoc, "\n",)* ""))),*])
            }

            fn decode(
                node: &$crate::tree::Node,
                findings: &mut Vec<$crate::diagnostic::Diagnostic>,
            ) -> Option<Self> {
                let Some(word) = node.as_str() else {
                    findings.push($crate::keys::mismatch(node, &Self::expected()));
                    return None;
                };
                let found = $name::from_word(word);
                if found.is_none() {
                    let message = format!("unknown value `{}`", $crate::keys::clip(word));
                    findings.push(
                        $crate::diagnostic::Diagnostic::new("unknown-value", node.span, message)
                            .label(format!("expected {}", Self::expected()))
                            .did_you_mean(word, $name::ALL.iter().map(|w| w.as_str())),
                    );
                }
                found
            }
        }
    )*};
}
pub(crate) use words;
