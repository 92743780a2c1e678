//! What values look like in TOML, said by their types: for schemas, and for people who ask.

use crate::keys::{Key, Text};

/// What a value looks like.
#[derive(Debug, Clone)]
pub enum Shape {
    /// `true` or `false`.
    Boolean,
    /// An integer of a range, both ends included.
    Integer {
        /// The smallest.
        from: i64,
        /// The largest.
        to: i64,
    },
    /// A string.
    Text {
        /// One that is taken.
        example: &'static str,
        /// What all that are taken match; empty where nothing can be said.
        pattern: &'static str,
    },
    /// One of these strings, each with what it means.
    Words(&'static [(&'static str, &'static str)]),
    /// An array.
    List {
        /// Its items.
        item: Box<Shape>,
        /// Fewest items.
        least: usize,
    },
    /// A table with any keys of a form.
    Map {
        /// A key that is taken.
        example: &'static str,
        /// What all keys match that are taken.
        pattern: &'static str,
        /// Its values.
        value: Box<Shape>,
    },
    /// A table with known keys.
    Table(&'static [Key]),
    /// One of several; the first is the usual one.
    OneOf(Vec<Shape>),
    /// Parts of unit files by the names of their units.
    DropIns,
}

impl Shape {
    /// An array of any length.
    pub(crate) fn list(item: Shape) -> Shape {
        Shape::List { item: Box::new(item), least: 0 }
    }

    /// A table whose keys are texts of this type.
    pub(crate) fn map<K: Text>(value: Shape) -> Shape {
        Shape::Map { example: K::EXAMPLE, pattern: K::PATTERN, value: Box::new(value) }
    }
}
