//! What is said of configs as it stands in a file, and as keel-control tells it: conversion at the edge, nothing else.

use keel_control::{Generation, GenerationResult};
use serde_json::{Value, json};

use super::book::{Book, Fate, Page, Pending, Wants};

/// As it stands in a file.
pub(super) fn written(book: &Book) -> Value {
    json!({
        "last": book.last,
        "good": book.good,
        "stands_for": book.stands_for,
        "pending": book.pending.as_ref().map(|pending| json!({
            "number": pending.number,
            "word_within_ms": match pending.wants {
                Wants::Goal => None,
                Wants::Word { within_ms } => Some(within_ms),
            },
            "tried": pending.tried,
            "down_before": pending.down_before,
        })),
        "pages": book.pages.iter().map(|page| json!({
            "number": page.number,
            "digest": page.digest,
            "text_sha256": page.text_sha256,
            "author": page.author,
            "reason": page.reason,
            "at_ms": page.at_ms,
            "fate": word(page.fate),
            "note": page.note,
        })).collect::<Vec<_>>(),
    })
}

/// What stands in a file; none if that is no book.
pub(super) fn read(value: &Value) -> Option<Book> {
    let pending = match &value["pending"] {
        Value::Null => None,
        pending => {
            let down = pending["down_before"].as_array()?.iter();
            Some(Pending {
                number: pending["number"].as_u64()?,
                wants: match pending["word_within_ms"].as_u64() {
                    Some(within_ms) => Wants::Word { within_ms },
                    None => Wants::Goal,
                },
                tried: pending["tried"].as_bool()?,
                down_before: down.map(text).collect::<Option<_>>()?,
            })
        }
    };
    let page = |page: &Value| {
        Some(Page {
            number: page["number"].as_u64()?,
            digest: text(&page["digest"])?,
            text_sha256: text(&page["text_sha256"])?,
            author: text(&page["author"])?,
            reason: text(&page["reason"])?,
            at_ms: page["at_ms"].as_u64()?,
            fate: FATES.into_iter().find(|fate| Some(word(*fate)) == page["fate"].as_str())?,
            note: text(&page["note"]),
        })
    };
    Some(Book {
        last: value["last"].as_u64()?,
        good: value["good"].as_u64(),
        stands_for: value["stands_for"].as_u64(),
        pending,
        pages: value["pages"].as_array()?.iter().map(page).collect::<Option<_>>()?,
    })
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

const FATES: [Fate; 4] = [Fate::Staged, Fate::UnderWay, Fate::Good, Fate::Undone];

fn word(fate: Fate) -> &'static str {
    match fate {
        Fate::Staged => "staged",
        Fate::UnderWay => "under-way",
        Fate::Good => "good",
        Fate::Undone => "undone",
    }
}

/// As keel-control tells it.
pub(crate) fn told(page: &Page) -> Generation {
    Generation {
        number: page.number,
        digest: page.digest.clone(),
        text_sha256: page.text_sha256.clone(),
        author: page.author.clone(),
        reason: page.reason.clone(),
        at_ms: page.at_ms,
        result: match page.fate {
            Fate::Staged => GenerationResult::Staged,
            Fate::UnderWay => GenerationResult::UnderWay,
            Fate::Good => GenerationResult::Good,
            Fate::Undone => GenerationResult::RolledBack,
        },
        note: page.note.clone(),
    }
}
