//! What is said of all configs of this machine, and how it changes. Pure.
//!
//! One config holds: the last that was known to be good, or the image's own. At most one other waits for its turn. It gets one: whoever
//! boots notes that before trying it, and finds the note if the machine comes up again without having said that it went well.

/// How many configs are remembered.
const MOST: usize = 16;

/// All configs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Book {
    /// The highest number that was given to a config.
    pub(crate) last: u64,
    /// The last config that was good; none while that is the image's own.
    pub(crate) good: Option<u64>,
    /// The config that held last, while the image's own stands in for it: whom that one lets in still holds.
    pub(crate) stands_for: Option<u64>,
    /// The config that waits for its turn, or has it.
    pub(crate) pending: Option<Pending>,
    /// The oldest first.
    pub(crate) pages: Vec<Page>,
}

/// A config that waits for its turn, or has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pending {
    /// Its number.
    pub(crate) number: u64,
    /// What it takes to be good.
    pub(crate) wants: Wants,
    /// It has, or has had, its turn.
    pub(crate) tried: bool,
    /// Units that were not up before it; it is not to blame for them.
    pub(crate) down_before: Vec<String>,
}

/// What a note may be: a report of everything that is wrong can be longer than all books.
fn one_line(note: &str) -> String {
    const LONGEST: usize = 512;
    note.lines()
        .find(|line| !line.trim().is_empty())
        .unwrap_or_default()
        .chars()
        .take(LONGEST)
        .collect()
}

/// What it takes for a config to be good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wants {
    /// The goal is reached.
    Goal,
    /// Somebody says so, in time.
    Word {
        /// From the goal on.
        within_ms: u64,
    },
}

/// One config.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Page {
    /// Its number.
    pub(crate) number: u64,
    /// The digest of its graph.
    pub(crate) digest: String,
    /// SHA-256 of its text.
    pub(crate) text_sha256: String,
    /// Who wanted it.
    pub(crate) author: String,
    /// Why.
    pub(crate) reason: String,
    /// When it came: milliseconds since 1970.
    pub(crate) at_ms: u64,
    /// What became of it.
    pub(crate) fate: Fate,
    /// More about that.
    pub(crate) note: Option<String>,
}

/// What became of a config.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It waits for the next boot.
    Staged,
    /// It has its turn.
    UnderWay,
    /// It was good.
    Good,
    /// It was undone, or its turn never came.
    Undone,
}

impl Book {
    /// What is said of one config.
    pub(crate) fn page(&self, number: u64) -> Option<&Page> {
        self.pages.iter().find(|page| page.number == number)
    }

    /// The same with another config, which gets its turn. One that waits for its own loses it.
    #[must_use]
    pub(crate) fn with(&self, page: Page, pending: Pending) -> Self {
        let mut book = self.undone("another config took its place");
        book.last = book.last.max(page.number);
        book.pages.push(page);
        book.pending = Some(pending);
        book.bounded()
    }

    /// The pending config gets its turn: whoever finds this after a boot knows that it had it.
    #[must_use]
    pub(crate) fn tried(&self) -> Self {
        let mut book = self.clone();
        if let Some(pending) = &mut book.pending {
            pending.tried = true;
            let number = pending.number;
            book.mark(number, Fate::UnderWay, None);
        }
        book
    }

    /// The pending config is good, and holds from now on.
    #[must_use]
    pub(crate) fn settled(&self) -> Self {
        let mut book = self.clone();
        if let Some(Pending { number, .. }) = book.pending.take() {
            book.mark(number, Fate::Good, None);
            book.good = Some(number);
            book.stands_for = None;
        }
        book
    }

    /// The pending config has not had its turn after all.
    #[must_use]
    pub(crate) fn passed_over(&self) -> Self {
        let mut book = self.clone();
        if let Some(pending) = &mut book.pending {
            pending.tried = false;
            let number = pending.number;
            book.mark(number, Fate::Staged, None);
        }
        book
    }

    /// The pending config does not hold, for that reason.
    #[must_use]
    pub(crate) fn undone(&self, why: &str) -> Self {
        let mut book = self.clone();
        if let Some(Pending { number, .. }) = book.pending.take() {
            book.mark(number, Fate::Undone, Some(why.to_owned()));
        }
        book
    }

    /// The config that held does not make a machine any more; the one before it does, or the image's own.
    #[must_use]
    pub(crate) fn fallen_back(&self, to: Option<u64>, why: &str) -> Self {
        let mut book = self.clone();
        if let Some(number) = book.good {
            book.mark(number, Fate::Undone, Some(why.to_owned()));
        }
        if to.is_none() {
            book.stands_for = book.good.or(book.stands_for);
        }
        book.good = to;
        book
    }

    /// The configs that say whom the machine lets in, the best first: the last that held, and those that were good before it.
    pub(crate) fn trusted(&self) -> impl Iterator<Item = u64> {
        let last = self.good.or(self.stands_for);
        let earlier = move |page: &&Page| {
            last.is_some_and(|last| page.number < last) && page.fate == Fate::Good
        };
        let earlier = self.pages.iter().rev().filter(earlier).map(|page| page.number);
        last.into_iter().chain(earlier)
    }

    /// The configs that were good before the one that holds, the newest first.
    pub(crate) fn good_before(&self) -> impl Iterator<Item = &Page> {
        let good = self.good;
        let earlier = move |page: &&Page| good.is_some_and(|good| page.number < good);
        self.pages.iter().rev().filter(earlier).filter(|page| page.fate == Fate::Good)
    }

    fn mark(&mut self, number: u64, fate: Fate, note: Option<String>) {
        if let Some(page) = self.pages.iter_mut().find(|page| page.number == number) {
            page.fate = fate;
            page.note = note.map(|note| one_line(&note));
        }
    }

    /// Without the oldest, where there are too many; but never without one that counts.
    fn bounded(mut self) -> Self {
        let pending = self.pending.as_ref().map(|pending| pending.number);
        let counts = [self.good, self.stands_for, pending];
        while self.pages.len() > MOST {
            let Some(at) = self.pages.iter().position(|page| !counts.contains(&Some(page.number)))
            else {
                break;
            };
            self.pages.remove(at);
        }
        self
    }
}
