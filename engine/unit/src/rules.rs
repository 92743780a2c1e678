//! Every rule that a finding can name, with what it means: for reports that other programs show, and for the book.
//!
//! Rules of the graph stand here too, so that there is one list.

/// What one code of a [`Diagnostic`](crate::Diagnostic) stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// The code; it never changes its meaning.
    pub code: &'static str,
    /// What is wrong, in a few words.
    pub title: &'static str,
    /// Why it is an error and what to do about it.
    pub text: &'static str,
}

/// The rule with that code.
pub fn rule(code: &str) -> Option<&'static Rule> {
    RULES.binary_search_by(|rule| rule.code.cmp(code)).ok().map(|at| &RULES[at])
}

const fn rule_of(code: &'static str, title: &'static str, text: &'static str) -> Rule {
    Rule { code, title, text }
}

/// All rules, in the order of their codes.
pub const RULES: &[Rule] = &[
    rule_of(
        "bad-name",
        "A name that no unit can have",
        "A unit is named by its file, and an instance by its item as well. Names have letters, digits and `-_.:`, at most 128 of them; rename the file or the item.",
    ),
    rule_of(
        "bad-reference",
        "A reference that cannot be read",
        "What stands between `{{` and `}}` is a name of the machine config, such as `machine.hostname`, or an expression over such names.",
    ),
    rule_of(
        "bad-value",
        "A value that this key does not take",
        "The text has the right type but not the right form. The finding says which form is expected.",
    ),
    rule_of(
        "byte-order-mark",
        "The file begins with a byte order mark",
        "TOML is UTF-8 without one. Save the file as UTF-8 without BOM.",
    ),
    rule_of(
        "carriage-return",
        "The file has carriage returns",
        "Lines end with LF alone, so that a file is the same bytes on every machine. Save it with Unix line ends.",
    ),
    rule_of(
        "claimed-twice",
        "Two units claim one thing",
        "A mount point, a link, a file or a kernel parameter belongs to one unit: which of two came last would be chance. Remove one of them.",
    ),
    rule_of(
        "conflict",
        "The goal starts two units that conflict",
        "Both cannot be up. Take one out of what the goal pulls in, or remove the word `conflicts`.",
    ),
    rule_of(
        "cycle",
        "Units wait for each other in a circle",
        "None of them could ever start. The finding lists the smallest circle, each edge with the place that wrote or implied it; remove one. Nothing is dropped to break it.",
    ),
    rule_of(
        "misplaced-key",
        "A key that does not belong beside another",
        "Each key is fine alone, but the two exclude each other, or one needs the other. The finding says which.",
    ),
    rule_of(
        "missing-key",
        "A key that must be there is not",
        "This kind cannot work without it. The unit reference lists what each kind needs.",
    ),
    rule_of(
        "missing-kind",
        "The file says no kind",
        "One table names what the unit is: `[mount]`, `[service]`, `[target]` and so on.",
    ),
    rule_of(
        "named-twice",
        "Two things have one name",
        "Names are how others refer to a unit or an interface. Rename one.",
    ),
    rule_of(
        "names-itself",
        "A unit that waits for itself, or requires itself",
        "It could never start. Remove the word.",
    ),
    rule_of(
        "no-deadline",
        "A unit without a deadline that the goal waits for",
        "It could keep the machine from ever coming up. Give its kind a `timeout`.",
    ),
    rule_of(
        "not-a-file",
        "A path that is no regular file",
        "Unit files and machine configs are regular files: a FIFO or a device could hang whoever reads it.",
    ),
    rule_of(
        "not-a-target",
        "`part-of` names a unit that has no parts",
        "Only a target has parts. Name a stage, or use `before` and the other unit's `wants`.",
    ),
    rule_of("not-utf8", "The file is not UTF-8", "TOML is UTF-8. Save the file in that encoding."),
    rule_of(
        "nul",
        "The file holds a NUL character",
        "TOML has none, and neither the kernel nor a program takes one. Remove it.",
    ),
    rule_of(
        "out-of-range",
        "A number or length beyond what is possible",
        "The finding says the least and the most.",
    ),
    rule_of(
        "reference-loop",
        "References in the machine config go in a circle",
        "None of them has a value. Write one of them out.",
    ),
    rule_of(
        "syntax",
        "The file is not TOML",
        "It cannot be read further than this. The finding says what was expected.",
    ),
    rule_of(
        "too-large",
        "The file is larger than any that is read",
        "Files are bounded so that reading them is. A file of this size is seldom a unit or a machine config.",
    ),
    rule_of(
        "too-many",
        "More files, units, instances or edges than are taken",
        "The bounds are far above what a machine needs; something multiplies that should not, such as a `for-each` over the wrong list.",
    ),
    rule_of(
        "two-kinds",
        "The file has two kinds",
        "A unit does one thing. Make it two unit files, or write the override for the kind that the unit has.",
    ),
    rule_of(
        "unknown-key",
        "A key that does not exist here",
        "A key that is passed over in silence is a setting that somebody believes in. Mend its spelling, or remove it.",
    ),
    rule_of("unknown-kind", "A kind that does not exist", "The unit reference lists the kinds."),
    rule_of(
        "unknown-reference",
        "A reference to something that the machine config does not know",
        "References are strict: a name that does not exist is an error where it stands, not an empty text on the node.",
    ),
    rule_of(
        "unknown-unit",
        "A word that names no unit",
        "Every unit that another one names must exist. Mend its spelling, or write the unit.",
    ),
    rule_of(
        "unknown-value",
        "A value that is none of the possible ones",
        "The finding lists them.",
    ),
    rule_of(
        "unreadable",
        "A file or folder that cannot be read",
        "The finding has the system's own reason.",
    ),
    rule_of(
        "unset-reference",
        "A value is needed, and what it refers to is not set",
        "Set it in the machine config.",
    ),
    rule_of(
        "wrong-type",
        "A value of another type",
        "TOML has strings, numbers, booleans, arrays and tables; the finding says which of them is expected.",
    ),
];
