//! The configs of this machine through time, on its data partition: which one holds, which one is to be tried, and all that were.
//!
//! A config's text is a file that is written once. What is said of all of them is a [`Book`], written anew as a whole with each change,
//! and each edition is a file too: written beside, written out, put in place, and the folder written out. Putting an edition in place is
//! the one moment at which a change happens: before it the disk says what it said before, after it the new, and never something between.
//! A file that does not match its own checksum is as good as none, and that is told.

mod book;
mod folder;
mod form;
#[cfg(test)]
mod power;
#[cfg(test)]
mod tests;

use std::io;

use serde_json::Value;
use sha2::{Digest as _, Sha256};

pub(crate) use self::book::{Book, Fate, Page, Pending, Wants};
pub(crate) use self::folder::Folder;
pub(crate) use self::form::told;

/// What is being written.
const UNFINISHED: &str = "new";

/// The first word of every file; behind it stand the format's version and the checksum of the rest.
const MAGIC: &str = "keel-config 1 ";

/// The most that is read of one file: a text, escaped as JSON escapes it, fits.
const LARGEST: u64 = 4 << 20;

/// A folder of files as far as a store needs one. What none of the calls has made durable may be lost with the power, in any part.
pub(crate) trait Disk {
    /// The names of all files.
    fn names(&self) -> io::Result<Vec<String>>;
    /// All of a file.
    fn read(&self, name: &str) -> io::Result<Vec<u8>>;
    /// Writes a file that is not there.
    fn create(&mut self, name: &str, content: &[u8]) -> io::Result<()>;
    /// Makes the content of a file durable.
    fn sync(&mut self, name: &str) -> io::Result<()>;
    /// Gives a file another name; one of that name is replaced.
    fn rename(&mut self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file.
    fn remove(&mut self, name: &str) -> io::Result<()>;
    /// Makes the names durable.
    fn sync_folder(&mut self) -> io::Result<()>;
}

/// The configs.
#[derive(Debug)]
pub(crate) struct Store<D> {
    disk: D,
    book: Book,
    /// The highest edition that anybody has tried to write.
    edition: u64,
    /// What was found broken.
    damage: Vec<String>,
}

impl<D: Disk> Store<D> {
    /// Reads what there is. A folder without a book has no configs.
    pub(crate) fn open(disk: D) -> io::Result<Self> {
        let mut editions: Vec<u64> =
            disk.names()?.iter().filter_map(|name| number(name, "book.")).collect();
        editions.sort_unstable();
        let mut damage = Vec::new();
        let mut book = Book::default();
        for edition in editions.iter().rev() {
            match read_book(&disk, *edition) {
                Ok(read) => {
                    book = read;
                    break;
                }
                Err(error) => damage.push(format!("{}: {error}", book_name(*edition))),
            }
        }
        Ok(Self { disk, book, edition: editions.last().copied().unwrap_or(0), damage })
    }

    /// What is said of the configs.
    pub(crate) fn book(&self) -> &Book {
        &self.book
    }

    /// What was found broken, and left out.
    pub(crate) fn damage(&self) -> &[String] {
        &self.damage
    }

    /// The text of a config.
    pub(crate) fn text(&self, number: u64) -> io::Result<String> {
        let Value::String(text) = read(&self.disk, &text_name(number))? else {
            return Err(torn());
        };
        let sum = sha256(text.as_bytes());
        match self.book.page(number) {
            Some(page) if page.text_sha256 == sum || page.becomes.as_ref() == Some(&sum) => {
                Ok(text)
            }
            _ => Err(io::Error::other("it is not the text that belongs to this number")),
        }
    }

    /// Keeps the text of a config that no book speaks of yet.
    pub(crate) fn keep(&mut self, number: u64, text: &str) -> io::Result<()> {
        self.put(&text_name(number), &text.into())
    }

    /// Has other texts take the place of these, each with the digest of its graph if that is another. A power cut leaves each text as it was
    /// or as it is to be, and the book knows both.
    pub(crate) fn replace(&mut self, texts: &[(u64, String, Option<String>)]) -> io::Result<()> {
        let each = |book: &mut Book, change: &dyn Fn(&mut Page, String, Option<&String>)| {
            for (number, text, digest) in texts {
                if let Some(page) = book.pages.iter_mut().find(|page| page.number == *number) {
                    change(page, sha256(text.as_bytes()), digest.as_ref());
                }
            }
        };
        let mut book = self.book.clone();
        each(&mut book, &|page, sum, _| page.becomes = Some(sum));
        self.commit(book.clone())?;
        for (number, text, _) in texts {
            self.put(&text_name(*number), &text.as_str().into())?;
        }
        each(&mut book, &|page, sum, digest| {
            (page.text_sha256, page.becomes) = (sum, None);
            page.digest = digest.unwrap_or(&page.digest).clone();
        });
        self.commit(book)
    }

    /// From here on the book says that. What no longer stands in it is forgotten.
    pub(crate) fn commit(&mut self, book: Book) -> io::Result<()> {
        self.edition += 1;
        let name = book_name(self.edition);
        if let Err(error) = self.put(&name, &form::written(&book)) {
            // Whether it will be there after a power cut nobody knows; nobody should find it.
            let _ = self.disk.remove(&name).and_then(|()| self.disk.sync_folder());
            return Err(error);
        }
        self.book = book;
        self.forget();
        Ok(())
    }

    /// Removes editions but the last two, and texts that no edition that is left speaks of. What cannot be removed stays.
    fn forget(&mut self) {
        let before: Option<Book> =
            self.edition.checked_sub(1).and_then(|n| read_book(&self.disk, n).ok());
        for name in self.disk.names().unwrap_or_default() {
            let old_book = number(&name, "book.").is_some_and(|n| n + 1 < self.edition);
            let old_text = number(&name, "text.").is_some_and(|n| {
                let spoken_of = |book: &Book| book.page(n).is_some();
                !spoken_of(&self.book) && !before.as_ref().is_some_and(spoken_of)
            });
            if old_book || old_text {
                let _ = self.disk.remove(&name);
            }
        }
    }

    fn put(&mut self, name: &str, content: &Value) -> io::Result<()> {
        let body = serde_json::to_vec(content)?;
        let mut file = format!("{MAGIC}{}\n", sha256(&body)).into_bytes();
        file.extend(body);
        // What an earlier attempt left when the power went.
        match self.disk.remove(UNFINISHED) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        self.disk.create(UNFINISHED, &file)?;
        self.disk.sync(UNFINISHED)?;
        self.disk.rename(UNFINISHED, name)?;
        self.disk.sync_folder()
    }
}

/// What a file says, if it is whole.
fn read(disk: &impl Disk, name: &str) -> io::Result<Value> {
    let file = disk.read(name)?;
    let head = file.iter().position(|byte| *byte == b'\n').ok_or_else(torn)?;
    let (head, body) = (&file[..head], &file[head + 1..]);
    let sum = head.strip_prefix(MAGIC.as_bytes()).ok_or_else(torn)?;
    if sum != sha256(body).as_bytes() {
        return Err(torn());
    }
    serde_json::from_slice(body).map_err(|_| torn())
}

fn read_book(disk: &impl Disk, edition: u64) -> io::Result<Book> {
    form::read(&read(disk, &book_name(edition))?).ok_or_else(torn)
}

fn torn() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "it is not whole")
}

fn book_name(edition: u64) -> String {
    format!("book.{edition}")
}

fn text_name(number: u64) -> String {
    format!("text.{number}")
}

/// The number in a name of ours.
fn number(name: &str, prefix: &str) -> Option<u64> {
    let digits = name.strip_prefix(prefix)?;
    let canonical = !digits.starts_with('0') && digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|_| canonical)
}

/// SHA-256, in hexadecimal digits.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
