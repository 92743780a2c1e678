//! Whether every program that the graph runs is in the image, and whether it can run there.

use std::collections::{BTreeSet, VecDeque};

use keel_unit::diagnostic::nearest;
use keel_unit::kinds::SEARCH_PATH;
use keel_unit::source::Span;
use keel_unit::value::AbsPath;
use keel_unit::{Diagnostic, Kind, Unit, keys::Text};

use super::archive::{File, Files, Kind as Entry};
use super::content::Content;
use super::{Context, Findings, span_of, span_of_exec};
use crate::elf::{Elf, Machine};

/// Programs that others look up in PATH, as far as they cannot do without: their own documentation says so, no file does.
const COMPANIONS: [(&str, &[&str]); 3] = [
    ("containerd", &["containerd-shim-runc-v2", "runc"]),
    ("crio", &["conmon", "runc"]),
    ("kubelet", &["mount", "umount"]),
];

/// Programs that pull container images, and trust no registry without certificates.
const PULLERS: [&str; 2] = ["containerd", "crio"];
const CERTIFICATES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// How many scripts may interpret each other; the kernel allows as many.
const MOST_INTERPRETERS: usize = 4;

/// What keeps a program from running.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Trouble {
    code: &'static str,
    message: String,
    help: Option<String>,
}

impl Trouble {
    fn new(code: &'static str, message: String) -> Self {
        Self { code, message, help: None }
    }

    fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    fn at(self, span: Span, label: String) -> Diagnostic {
        let finding = Diagnostic::new(self.code, span, self.message).label(label);
        match self.help {
            Some(help) => finding.help(help),
            None => finding,
        }
    }
}

/// The program of a oneshot or a service, and what it needs around it.
pub(super) fn check(context: &Context<'_>, unit: &Unit, found: &mut Findings) {
    let (exec, directory) = match &unit.kind {
        Kind::Oneshot(oneshot) => (&oneshot.exec, &oneshot.working_directory),
        Kind::Service(service) => (&service.exec, &service.working_directory),
        _ => return,
    };
    let at = span_of_exec(unit, 0);
    if !context.comes_later(&exec.program) {
        let label = format!("{} runs it", unit.name);
        let files = &context.image.files;
        let troubles = Programs { files, machine: context.machine }.run(exec.program.as_str());
        found.findings.extend(troubles.into_iter().map(|trouble| trouble.at(at, label.clone())));
        companions(context, unit, &exec.program, found);
    }
    let in_image = context.image.files.resolve(directory.as_str());
    match in_image.map(|(_, file)| &file.kind) {
        _ if directory.as_str() == "/" || context.comes_later(directory) => {}
        Some(Entry::Directory) => {}
        _ => {
            let message = format!("the image has no directory {directory}");
            let finding =
                Diagnostic::new("not-in-image", span_of(unit, "working-directory"), message);
            found.push(
                finding.help("make it with a unit `[file] directory = true` before this one"),
            );
        }
    }
    arguments(context, unit, &exec.arguments, found);
}

/// Arguments that are paths; a program may make them itself.
fn arguments(context: &Context<'_>, unit: &Unit, arguments: &[String], found: &mut Findings) {
    for (n, argument) in arguments.iter().enumerate() {
        let path = match argument.split_once('=') {
            Some((option, path)) if option.starts_with('-') => path,
            _ => argument,
        };
        let Ok(path) = AbsPath::parse(path) else { continue };
        if path.as_str() == "/"
            || context.comes_later(&path)
            || context.image.files.resolve(path.as_str()).is_some()
        {
            continue;
        }
        let message = format!("the image has no {path}, and no unit makes it");
        let note = Diagnostic::new("path-missing", span_of_exec(unit, n + 1), message);
        found.note(note.label(format!("unless {} makes it itself", unit.name)));
    }
}

/// What a program looks up in PATH.
fn companions(context: &Context<'_>, unit: &Unit, program: &AbsPath, found: &mut Findings) {
    let name = program.as_str().rsplit('/').next().unwrap_or_default();
    let at = span_of_exec(unit, 0);
    for companion in COMPANIONS.iter().filter(|(of, _)| *of == name).flat_map(|(_, names)| *names) {
        looked_up(context, companion, at, &format!("{name} runs it"), found);
    }
    if PULLERS.contains(&name)
        && !context.comes_later_text(CERTIFICATES)
        && context.image.files.resolve(CERTIFICATES).is_none()
    {
        let message = format!("the image has no {CERTIFICATES}");
        let note = Diagnostic::new("no-certificates", at, message);
        let note = note.label(format!("{name} trusts no registry, and pulls nothing over TLS"));
        found.note(note.help(
            "build the image with `--ca-certificates FILE`, unless its images come another way",
        ));
    }
}

/// The tools of a filesystem unit.
pub(super) fn filesystem(context: &Context<'_>, unit: &Unit, found: &mut Findings) {
    let Kind::Filesystem(filesystem) = &unit.kind else { return };
    let at = span_of(unit, "type");
    for (tool, what) in
        [(filesystem.fstype.maker(), "makes"), (filesystem.fstype.checker(), "checks")]
    {
        let label = format!("{} {what} it with this", unit.name);
        looked_up(context, tool, at, &label, found);
    }
}

/// A program that is looked up in PATH.
fn looked_up(context: &Context<'_>, name: &str, at: Span, label: &str, found: &mut Findings) {
    let files = &context.image.files;
    let paths = SEARCH_PATH.split(':').map(|dir| format!("{dir}/{name}"));
    let path = paths.into_iter().find(|path| files.resolve(path).is_some());
    match path {
        Some(path) => {
            let troubles = Programs { files, machine: context.machine }.run(&path);
            found.findings.extend(troubles.into_iter().map(|t| t.at(at, label.to_owned())));
        }
        None => {
            let trouble = Trouble::new(
                "program-missing",
                format!("the image has no program {name} where programs are looked up"),
            );
            let help = format!("build the image with `--payload {name}=PATH`");
            found.push(trouble.help(help).at(at, label.to_owned()));
        }
    }
}

impl Context<'_> {
    fn comes_later_text(&self, path: &str) -> bool {
        AbsPath::parse(path).is_ok_and(|path| self.comes_later(&path))
    }
}

/// The programs of an image.
struct Programs<'a> {
    files: &'a Files,
    machine: Option<Machine>,
}

impl Programs<'_> {
    /// Everything that keeps a program from running.
    fn run(&self, program: &str) -> Vec<Trouble> {
        let mut path = program.to_owned();
        let mut chain = Vec::new();
        loop {
            let (place, file) = match self.executable(&path, &chain) {
                Ok(found) => found,
                Err(trouble) => return vec![*trouble],
            };
            let Entry::Regular { content, .. } = &file.kind else { return Vec::new() };
            let line = match content {
                Content::Elf(elf) => return self.elf(&path, &place, elf, &chain),
                Content::BrokenElf(why) => {
                    return vec![Trouble::new("not-a-program", format!("{path} is {why}"))];
                }
                Content::Script(line) => line,
                Content::Module(_) | Content::Text(_) | Content::Data => {
                    let message = format!("{path} is neither an ELF program nor a script");
                    return vec![Trouble::new("not-a-program", message)];
                }
            };
            let mut words = line.split_whitespace();
            let interpreter = words.next().unwrap_or_default();
            if !interpreter.starts_with('/') {
                let message = format!("{path} is a script without an interpreter");
                return vec![Trouble::new("not-a-program", message)];
            }
            chain.push(path);
            if chain.len() > MOST_INTERPRETERS {
                let message = format!("{program} is a script of scripts, too many for the kernel");
                return vec![Trouble::new("not-a-program", message)];
            }
            path = interpreter.to_owned();
            // `#!/usr/bin/env NAME` is NAME in PATH.
            if let (Some("env"), Some(name)) = (interpreter.rsplit('/').next(), words.next())
                && self.files.resolve(interpreter).is_some()
            {
                let found = SEARCH_PATH.split(':').map(|dir| format!("{dir}/{name}"));
                let found = found.into_iter().find(|path| self.files.resolve(path).is_some());
                path = found.unwrap_or_else(|| format!("/usr/bin/{name}"));
            }
        }
    }

    /// A file that may be executed. `chain` is the scripts that it interprets.
    fn executable(&self, path: &str, chain: &[String]) -> Result<(String, &File), Box<Trouble>> {
        let Some((place, file)) = self.files.resolve(path) else {
            let trouble = match chain.last() {
                None => Trouble::new("program-missing", format!("the image has no {path}"))
                    .help(self.suggestion(path)),
                Some(script) => {
                    let message =
                        format!("the image has no {path}, which {script} is a script for");
                    Trouble::new("interpreter-missing", message)
                        .help("no shell runs on a node unless it is put in with `--payload`")
                }
            };
            return Err(Box::new(trouble));
        };
        match &file.kind {
            Entry::Regular { .. } if file.mode & 0o111 != 0 => Ok((place, file)),
            Entry::Regular { .. } => Err(Box::new(Trouble::new(
                "not-executable",
                format!("{path} has mode {:04o}, and nobody may execute it", file.mode),
            ))),
            _ => Err(Box::new(Trouble::new("not-a-program", format!("{path} is no file")))),
        }
    }

    fn suggestion(&self, path: &str) -> String {
        let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
        let names = self.files.names_in(directory);
        match nearest(name, names.iter().copied()) {
            Some(near) => format!("did you mean `{directory}/{near}`?"),
            None if directory == "/usr/bin" => {
                format!("build the image with `--payload {name}=PATH`")
            }
            None => format!("build the image with `--payload {path}=PATH`"),
        }
    }

    /// A program with its loader and its libraries.
    fn elf(&self, path: &str, place: &str, elf: &Elf, chain: &[String]) -> Vec<Trouble> {
        let mut troubles = Vec::new();
        if let Some(machine) = self.machine.filter(|machine| *machine != elf.machine) {
            let message = format!("{path} is built for {}, and the node is {machine}", elf.machine);
            return vec![Trouble::new("wrong-machine", message)];
        }
        if let Some(loader) = &elf.interpreter {
            match self.executable(loader, chain) {
                Ok((_, file)) if !self.is_ours(file) => {
                    let message = format!("{loader}, the loader of {path}, is of another machine");
                    troubles.push(Trouble::new("wrong-machine", message));
                }
                Ok(_) => {}
                Err(_) => {
                    let message = format!("the image has no {loader}, the loader of {path}");
                    troubles.push(
                        Trouble::new("loader-missing", message).help("build the image again"),
                    );
                }
            }
        }
        let first =
            Object { by: path.to_owned(), place: place.to_owned(), elf, inherited: Vec::new() };
        let ahead = VecDeque::from([first]);
        let seen = BTreeSet::new();
        Libraries { programs: self, seen, ahead, troubles: &mut troubles }.walk();
        troubles
    }

    fn is_ours(&self, file: &File) -> bool {
        match (&file.kind, self.machine) {
            (Entry::Regular { content: Content::Elf(elf), .. }, Some(machine)) => {
                elf.machine == machine
            }
            (Entry::Regular { content: Content::Elf(_), .. }, None) => true,
            _ => false,
        }
    }
}

/// Follows `DT_NEEDED` through the image as its loader will: there is no ld.so.cache on it.
struct Libraries<'a> {
    programs: &'a Programs<'a>,
    seen: BTreeSet<String>,
    /// What was found and not looked at yet: in the loader's order, breadth first, and however long a chain is.
    ahead: VecDeque<Object<'a>>,
    troubles: &'a mut Vec<Trouble>,
}

/// A program or library that needs others.
struct Object<'a> {
    /// As it is called in a finding.
    by: String,
    place: String,
    elf: &'a Elf,
    /// Every RPATH on the way to it.
    inherited: Vec<String>,
}

impl<'a> Libraries<'a> {
    fn walk(mut self) {
        while let Some(object) = self.ahead.pop_front() {
            self.needs(&object);
        }
    }

    fn needs(&mut self, object: &Object<'a>) {
        let Object { by, place, elf, inherited } = object;
        // ld.so(8): an object's RUNPATH holds for itself and hides every RPATH; an RPATH holds for the objects below too.
        let own = |dirs: &[String]| -> Vec<String> {
            dirs.iter().filter_map(|dir| expand(dir, place)).collect()
        };
        let mut rpath = own(&elf.rpath);
        rpath.extend(
            inherited.iter().filter(|dir| !rpath.contains(dir)).cloned().collect::<Vec<_>>(),
        );
        let first = if elf.runpath.is_empty() { rpath.clone() } else { own(&elf.runpath) };
        for library in &elf.needed {
            let name = library.rsplit('/').next().unwrap_or(library);
            if !self.seen.insert(name.to_owned()) {
                continue;
            }
            match self.find(library, &first) {
                Ok((place, elf)) => {
                    let by = format!("/{}", place.trim_start_matches('/'));
                    self.ahead.push_back(Object { by, place, elf, inherited: rpath.clone() });
                }
                Err(passed_over) => {
                    let message = match passed_over {
                        Some(machine) => {
                            format!(
                                "{library}, which {by} needs, is in the image for {machine} only"
                            )
                        }
                        None => format!("the image has no {library}, which {by} needs"),
                    };
                    let help = "build the image again: `osctl image build` takes libraries along";
                    self.troubles.push(Trouble::new("library-missing", message).help(help));
                }
            }
        }
    }

    /// A library, or the machine of one that was passed over.
    fn find(&self, name: &str, first: &[String]) -> Result<(String, &'a Elf), Option<Machine>> {
        let files = self.programs.files;
        let places: Vec<String> = match name.contains('/') {
            true => vec![name.to_owned()],
            false => {
                let built_in = built_in_dirs(files);
                first.iter().chain(&built_in).map(|dir| format!("{dir}/{name}")).collect()
            }
        };
        let mut passed_over = None;
        for path in places {
            let Some((place, file)) = files.resolve(&path) else { continue };
            let Entry::Regular { content: Content::Elf(elf), .. } = &file.kind else { continue };
            match self.programs.machine {
                Some(machine) if machine != elf.machine => passed_over = Some(elf.machine),
                _ => return Ok((place, elf)),
            }
        }
        Err(passed_over)
    }
}

/// A RUNPATH entry as a directory of the image.
fn expand(dir: &str, place: &str) -> Option<String> {
    let origin = place.rsplit_once('/').map_or("", |(origin, _)| origin);
    for token in ["$ORIGIN", "${ORIGIN}"] {
        if let Some(rest) = dir.strip_prefix(token) {
            return Some(format!("{origin}{rest}"));
        }
    }
    (dir.starts_with('/') && !dir.contains('$')).then(|| dir.to_owned())
}

/// Where the loaders of the distributions look by themselves.
fn built_in_dirs(files: &Files) -> Vec<String> {
    let mut dirs = Vec::new();
    for dir in ["/lib", "/usr/lib"] {
        let names = files.names_in(dir);
        let multiarch = names.into_iter().filter(|name| name.ends_with("-linux-gnu"));
        dirs.extend(multiarch.map(|name| format!("{dir}/{name}")));
        dirs.push(dir.to_owned());
    }
    dirs.extend(["/lib64", "/usr/lib64", "/usr/local/lib"].map(str::to_owned));
    dirs
}
