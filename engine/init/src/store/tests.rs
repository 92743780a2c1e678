//! The store on a folder that forgets: what no call has made durable is lost with the power in any part, in any order.

use std::collections::BTreeMap;
use std::io;

use proptest::prelude::*;

use super::*;

/// A folder in memory. Files are numbered; names point at them.
#[derive(Debug, Clone, Default)]
struct Forgetful {
    /// What is in each file, and whether that is durable.
    files: Vec<(Vec<u8>, bool)>,
    /// The names as they are seen.
    names: BTreeMap<String, usize>,
    /// The names as they are on the disk.
    durable: BTreeMap<String, usize>,
    /// What was done to names since.
    since: Vec<(String, Option<usize>)>,
    /// How many more calls there are before the power goes.
    left: Option<usize>,
}

impl Forgetful {
    fn works(&mut self) -> io::Result<()> {
        match &mut self.left {
            Some(0) => Err(io::Error::other("no power")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn name(&mut self, name: &str, file: Option<usize>) {
        match file {
            Some(file) => drop(self.names.insert(name.to_owned(), file)),
            None => drop(self.names.remove(name)),
        }
        self.since.push((name.to_owned(), file));
    }

    /// What is there when the power comes back. `luck` says of each thing that was not durable whether it is there.
    fn after_a_cut(&self, mut luck: impl FnMut() -> u8) -> Self {
        let mut names = self.durable.clone();
        for (name, file) in &self.since {
            if luck().is_multiple_of(2) {
                match file {
                    Some(file) => drop(names.insert(name.clone(), *file)),
                    None => drop(names.remove(name)),
                }
            }
        }
        let files = self.files.iter().map(|(content, durable)| {
            let mut content = content.clone();
            if !durable {
                match luck() % 4 {
                    0 => content.clear(),
                    1 => content.truncate(content.len() * usize::from(luck()) / 256),
                    2 => content.iter_mut().for_each(|byte| *byte = 0),
                    _ => {}
                }
            }
            (content, true)
        });
        Self {
            files: files.collect(),
            durable: names.clone(),
            names,
            since: Vec::new(),
            left: None,
        }
    }
}

impl Disk for Forgetful {
    fn names(&self) -> io::Result<Vec<String>> {
        Ok(self.names.keys().cloned().collect())
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        let file = self.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(self.files[*file].0.clone())
    }

    fn create(&mut self, name: &str, content: &[u8]) -> io::Result<()> {
        self.works()?;
        if self.names.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.files.push((content.to_vec(), false));
        self.name(name, Some(self.files.len() - 1));
        Ok(())
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        self.works()?;
        self.files[self.names[name]].1 = true;
        Ok(())
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        self.works()?;
        let file = *self.names.get(from).ok_or(io::ErrorKind::NotFound)?;
        self.name(to, Some(file));
        self.name(from, None);
        Ok(())
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.works()?;
        if !self.names.contains_key(name) {
            return Err(io::ErrorKind::NotFound.into());
        }
        self.name(name, None);
        Ok(())
    }

    fn sync_folder(&mut self) -> io::Result<()> {
        self.works()?;
        self.durable = self.names.clone();
        self.since.clear();
        Ok(())
    }
}

pub(super) fn page(number: u64, text: &str) -> Page {
    Page {
        number,
        digest: format!("sha256:{number}"),
        text_sha256: sha256(text.as_bytes()),
        becomes: None,
        author: "ada".to_owned(),
        reason: String::new(),
        at_ms: number,
        fate: Fate::Staged,
        note: None,
    }
}

pub(super) fn pending(number: u64) -> Pending {
    Pending { number, wants: Wants::Goal, tried: false, down_before: Vec::new() }
}

/// One thing that befalls a store.
#[derive(Debug, Clone, Copy)]
enum Turn {
    /// Another config comes.
    Comes,
    Tried,
    Settled,
    Undone,
}

fn text(number: u64) -> String {
    format!("schema = 1 # {number}\n")
}

/// What the book says next.
fn turned(book: &Book, turn: Turn) -> Book {
    match turn {
        Turn::Comes => {
            let number = book.last + 1;
            book.with(page(number, &text(number)), pending(number))
        }
        Turn::Tried => book.tried(),
        Turn::Settled => book.settled(),
        Turn::Undone => book.undone("it was not well"),
    }
}

fn take<D: Disk>(store: &mut Store<D>, turn: Turn) -> io::Result<()> {
    if let Turn::Comes = turn {
        let number = store.book().last + 1;
        store.keep(number, &text(number))?;
    }
    let book = turned(store.book(), turn);
    store.commit(book)
}

fn turns() -> impl Strategy<Value = Vec<Turn>> {
    let turn =
        prop_oneof![Just(Turn::Comes), Just(Turn::Tried), Just(Turn::Settled), Just(Turn::Undone)];
    proptest::collection::vec(turn, 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2048))]

    /// Wherever the power goes, and whatever is lost with it: the book is the one before or the one after, and every text that it
    /// counts on is whole.
    #[test]
    fn old_or_new_and_never_a_mix(turns in turns(), cut in 0_usize..400, luck in proptest::collection::vec(any::<u8>(), 64)) {
        let mut store = Store::open(Forgetful { left: Some(cut), ..Forgetful::default() }).unwrap();
        let (mut before, mut after) = (Book::default(), Book::default());
        for turn in turns {
            before = after;
            after = turned(&before, turn);
            if take(&mut store, turn).is_err() {
                break;
            }
            prop_assert_eq!(store.book(), &after);
            before = after.clone();
        }
        let mut luck = luck.into_iter().cycle();
        let disk = store.disk.after_a_cut(|| luck.next().unwrap());
        let found = Store::open(disk).unwrap();
        prop_assert!(found.book() == &before || found.book() == &after, "{:?} is neither {before:?} nor {after:?}", found.book());
        prop_assert!(found.damage().is_empty(), "{:?}", found.damage());
        for page in &found.book().pages {
            prop_assert_eq!(found.text(page.number).unwrap(), text(page.number));
        }
        // And it goes on from there, also over what the cut left lying about.
        let mut found = found;
        let expect = turned(found.book(), Turn::Comes);
        take(&mut found, Turn::Comes).unwrap();
        prop_assert_eq!(found.book(), &expect);
    }

    /// Whatever befalls it: few configs are remembered, no number is given twice, and the one that holds is among them.
    #[test]
    fn a_book_stays_small_and_keeps_what_counts(turns in proptest::collection::vec(turns(), 1..4)) {
        let mut book = Book::default();
        for turn in turns.concat() {
            let last = book.last;
            book = turned(&book, turn);
            prop_assert!(book.last >= last);
            prop_assert!(book.pages.len() <= 16);
            prop_assert!(book.pages.is_sorted_by(|a, b| a.number < b.number));
            for counts in [book.good, book.pending.as_ref().map(|it| it.number)].into_iter().flatten() {
                prop_assert!(book.page(counts).is_some());
            }
        }
    }
}

#[test]
fn a_torn_edition_is_told_of_and_the_one_before_counts() {
    let mut store = Store::open(Forgetful::default()).unwrap();
    take(&mut store, Turn::Comes).unwrap();
    take(&mut store, Turn::Settled).unwrap();
    let before = turned(&Book::default(), Turn::Comes);
    let mut disk = store.disk;
    let file = disk.names["book.2"];
    disk.files[file].0.truncate(100);
    let mut store = Store::open(disk).unwrap();
    assert_eq!(store.damage(), ["book.2: it is not whole"]);
    assert_eq!(store.book(), &before);
    // What is broken is not written over, but left behind.
    take(&mut store, Turn::Undone).unwrap();
    assert_eq!(store.book().good, None);
    assert!(store.disk.names.contains_key("book.3"));
}

#[test]
fn a_text_that_is_not_the_one_that_was_kept_is_none() {
    let mut store = Store::open(Forgetful::default()).unwrap();
    take(&mut store, Turn::Comes).unwrap();
    let file = store.disk.names["text.1"];
    store.disk.files[file].0.push(b' ');
    assert_eq!(store.text(1).unwrap_err().to_string(), "it is not whole");
    store.put("text.1", &"schema = 1".into()).unwrap();
    let error = store.text(1).unwrap_err();
    assert_eq!(error.to_string(), "it is not the text that belongs to this number");
}

#[test]
fn a_folder_is_for_root_alone_and_no_link_is_followed() {
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    let place = tempfile::tempdir().unwrap();
    let mut store = Store::open(Folder::at(&place.path().join("configs")).unwrap()).unwrap();
    take(&mut store, Turn::Comes).unwrap();
    take(&mut store, Turn::Settled).unwrap();
    let mode = |name: &str| {
        std::fs::metadata(place.path().join(name)).unwrap().permissions().mode() & 0o777
    };
    assert_eq!(
        (mode("configs"), mode("configs/text.1"), mode("configs/book.2")),
        (0o700, 0o600, 0o600)
    );
    let again = Store::open(Folder::at(&place.path().join("configs")).unwrap()).unwrap();
    assert_eq!((again.book(), again.text(1).unwrap()), (store.book(), text(1)));

    std::fs::write(place.path().join("elsewhere"), b"keel-config 1 x\n").unwrap();
    std::fs::remove_file(place.path().join("configs/text.1")).unwrap();
    symlink(place.path().join("elsewhere"), place.path().join("configs/text.1")).unwrap();
    assert!(again.text(1).is_err());
    symlink(place.path().join("configs"), place.path().join("link")).unwrap();
    assert!(Folder::at(&place.path().join("link")).is_err());
}
