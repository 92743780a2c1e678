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
        "address-twice",
        "Two links have one address",
        "The kernel would answer for it on both. Remove one.",
    ),
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
        "A mount point, a link, a file or a kernel parameter belongs to one unit: which of two came last would be chance. Remove one of them. Only a module may be named by several, as long as they give it the same `parameters`.",
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
        "driver-missing",
        "The image has no driver for a device that the config selects",
        "The machine would not see it. Add the module to kernel.modules, and build the image again.",
    ),
    rule_of(
        "dynamic-init",
        "Init is not static",
        "Nothing has looked at loader and libraries yet when the kernel starts it. Take the static keel-init.",
    ),
    rule_of(
        "erases",
        "The first boot erases a disk",
        "The machine config says so. Be sure that nothing on it is needed.",
    ),
    rule_of(
        "hidden",
        "A mount hides what the image has there",
        "The files are there until the filesystem is mounted over them, and cannot be reached afterwards.",
    ),
    rule_of(
        "image-changed",
        "A file of the image is not the one that was built",
        "It was changed, or cut off, after the build, and the manifest's checksum says so. Build the image again.",
    ),
    rule_of(
        "image-too-large",
        "The image does not fit into the machine's memory",
        "A kernel unpacks an initramfs into half of the memory. Leave out what is not needed, or give the machine more.",
    ),
    rule_of(
        "interpreter-missing",
        "The interpreter of a script is not in the image",
        "No shell runs on a node unless it is put in with `--payload`.",
    ),
    rule_of(
        "library-missing",
        "A shared library is not in the image",
        "The program would end before it begins. Build the image again: `osctl image build` takes libraries along.",
    ),
    rule_of(
        "loader-missing",
        "The loader of a program is not in the image",
        "The kernel says of such a program that it does not exist. Build the image again.",
    ),
    rule_of(
        "manifest-wrong",
        "The manifest and the initramfs differ",
        "What is in the initramfs is what boots, and the manifest says something else. Build the image again.",
    ),
    rule_of(
        "many-disks",
        "A selector that fits several disks",
        "None of them would be written. Select one by its serial number or its by-id name.",
    ),
    rule_of(
        "misplaced-key",
        "A key that does not belong beside another",
        "Each key is fine alone, but the two exclude each other, or one needs the other. The finding says which.",
    ),
    rule_of(
        "misplaced-secret",
        "A secret where none may stand",
        "What stands there would be shown. A secret may be the `content` of a `[file]`, or a variable in the `environment` of a program.",
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
        "module-missing",
        "A kernel module is not in the image",
        "It is neither in a file for this kernel nor part of it. Build the image again with this config.",
    ),
    rule_of(
        "module-not-loaded",
        "Nothing loads the driver of a filesystem",
        "The image has the module, but no unit loads it, and the kernel asks for nothing. Add a `[module]` unit, or name it in kernel.modules.",
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
        "never-met",
        "A condition that never holds on this image",
        "The unit will be skipped on every boot, which may be meant.",
    ),
    rule_of(
        "no-carrier",
        "A link had no carrier when the inventory was taken",
        "DHCP would ask nobody. Look at the cable.",
    ),
    rule_of(
        "no-certificates",
        "A program that pulls images trusts nobody",
        "Build the image with `--ca-certificates FILE`, unless its images come another way.",
    ),
    rule_of(
        "no-deadline",
        "A unit without a deadline that the goal waits for",
        "It could keep the machine from ever coming up. Give its kind a `timeout`.",
    ),
    rule_of(
        "no-disk",
        "A selector that fits no disk of the machine",
        "The finding lists every disk with the keys that do not fit.",
    ),
    rule_of(
        "no-init",
        "The image has no init",
        "The kernel starts `/init`, a program. Build the image again with `--init`.",
    ),
    rule_of(
        "no-partition",
        "A partition that is nowhere, and no disk to make it on",
        "Select the disk that may be partitioned in storage.data.disk.",
    ),
    rule_of(
        "no-secret",
        "What stands for a secret, where the machine has none",
        "A config that is shown has `<secret>` in place of each secret, and where that stays the secret stays. A new secret has to be written.",
    ),
    rule_of(
        "no-such-device",
        "A device that the machine does not have",
        "No disk or partition of the inventory has this name, and no unit makes it.",
    ),
    rule_of(
        "no-such-link",
        "A link that the machine does not have",
        "The unit would wait for it until its timeout. The finding lists the links that there are.",
    ),
    rule_of(
        "not-a-file",
        "A path that is no regular file",
        "Unit files and machine configs are regular files: a FIFO or a device could hang whoever reads it.",
    ),
    rule_of(
        "not-a-program",
        "A file that the kernel cannot start",
        "It is neither an ELF program nor a script with an interpreter.",
    ),
    rule_of(
        "not-a-target",
        "`part-of` names a unit that has no parts",
        "Only a target has parts. Name a stage, or use `before` and the other unit's `wants`.",
    ),
    rule_of(
        "not-blank",
        "The selected disk is not blank",
        "It is left alone, for what is on it may be somebody's. Take a blank disk, or write `wipe = \"always\"`. On a disk that carries an image of Keel it is the space behind the image that has to be blank, and that alone is erased.",
    ),
    rule_of(
        "not-executable",
        "A program that nobody may execute",
        "Its mode has no x. Set it where the program comes from.",
    ),
    rule_of(
        "not-in-image",
        "A file or directory that the graph uses is not in the image",
        "Put it in with `--payload`, or let a unit make it before it is used.",
    ),
    rule_of(
        "not-looked-at",
        "Nobody knows what is on a disk",
        "The inventory does not say, or the node could not read it. If there is something, or the disk does not answer at boot, no disk is written.",
    ),
    rule_of("not-utf8", "The file is not UTF-8", "TOML is UTF-8. Save the file in that encoding."),
    rule_of(
        "nothing-to-unset",
        "A patch unsets what no file before it sets",
        "It would be passed over in silence, and the key may be set under another name. Remove it from `unset`, or mend its name.",
    ),
    rule_of(
        "nul",
        "The file holds a NUL character",
        "TOML has none, and neither the kernel nor a program takes one. Remove it.",
    ),
    rule_of(
        "other-arguments",
        "The image was built with other kernel arguments",
        "Its loader, and `osctl image run`, tell the kernel what the config said at the build. Build the image again.",
    ),
    rule_of(
        "other-files",
        "The image was built from other files, which make the same graph",
        "Nothing is wrong; a comment or the order of keys differs.",
    ),
    rule_of(
        "other-graph",
        "The image was built from another graph",
        "Its units and its machine config are not those that are asked for. Build the image again, or check the ones that are in it.",
    ),
    rule_of(
        "other-kernel",
        "The kernel and its modules are of two releases",
        "A kernel loads only modules that were built for it. Give `--kernel` and `--modules` of one package.",
    ),
    rule_of(
        "out-of-range",
        "A number or length beyond what is possible",
        "The finding says the least and the most.",
    ),
    rule_of(
        "partition-twice",
        "A partition is on more than one disk",
        "Which of them is meant nobody can know. Take one disk out, or rename its partition.",
    ),
    rule_of(
        "path-missing",
        "An argument is a path that nothing makes",
        "Unless the program makes it by itself, put it into the image or let a unit make it.",
    ),
    rule_of(
        "path-taken",
        "Something else has the place of a path",
        "A file stands where a directory is needed, or the other way round. Take another path.",
    ),
    rule_of(
        "program-missing",
        "A program is not in the image",
        "A unit runs it, or another program looks it up in PATH. Build the image with `--payload NAME=PATH`.",
    ),
    rule_of(
        "read-only",
        "The selected disk cannot be written",
        "Switch off its write protection, or select another.",
    ),
    rule_of(
        "reference-loop",
        "References in the machine config go in a circle",
        "None of them has a value. Write one of them out.",
    ),
    rule_of(
        "soft-dependency",
        "A module that another likes to have is not in the image",
        "It is loaded without. If it is slow or incomplete then, name the other in kernel.modules.",
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
        "too-small",
        "The selected disk is smaller than the partition",
        "Take a larger disk, or a smaller `size`.",
    ),
    rule_of(
        "two-kinds",
        "The file has two kinds",
        "A unit does one thing. Make it two unit files, or write the override for the kind that the unit has.",
    ),
    rule_of(
        "unfit-image",
        "The selected disk carries an image to which nothing can be added",
        "Its partition table is full, damaged, or not as an image has it. Write the image to the disk again.",
    ),
    rule_of(
        "unknown-kernel",
        "The kernel file does not say what it is",
        "Its header is of no known format, so that only the programs are compared with each other.",
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
        "wrong-machine",
        "Something is built for another processor",
        "Kernel, init, programs, loaders and the machine must be of one architecture.",
    ),
    rule_of(
        "wrong-type",
        "A value of another type",
        "TOML has strings, numbers, booleans, arrays and tables; the finding says which of them is expected.",
    ),
];
