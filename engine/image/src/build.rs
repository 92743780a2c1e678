//! Builds an image: gathers the tree, packs it, and puts kernel, initramfs and manifest in place.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use keel_unit::Report;
use keel_unit::load::load;
use thiserror::Error;

use crate::elf::{self, Elf, ElfError, Machine};
use crate::firmware::{self, Booted, FirmwareError, Format, Loader};
use crate::kubelet::{self, KUBELET};
use crate::libraries::{self, LibraryError};
use crate::manifest::{self, INITRAMFS, KERNEL, MANIFEST, Manifest};
use crate::modules::{KernelTree, ModuleError, WantedModule};
use crate::needs::{NeededProgram, Needs};
use crate::payload::Payload;
use crate::sbom::{self, Origins, SBOM};
use crate::tree::{self, Tree, TreeError};
use crate::watch::Watch;
use crate::{cpio, layout};

/// High enough to halve the image, low enough that a build is a matter of seconds; what unpacks it
/// on the node is as fast for every level.
const ZSTD_LEVEL: i32 = 9;

/// What goes into an image.
#[derive(Debug, Clone)]
pub struct ImageSpec {
    /// The static `keel-init` binary; its machine is the image's.
    pub init: PathBuf,
    /// The text of the machine config, which becomes `/etc/keel/config.toml`.
    pub config: String,
    /// The directory of unit files, copied to `/etc/keel/units`.
    pub units: PathBuf,
    /// The kernel.
    pub kernel: PathBuf,
    /// The kernel's module directory, or a root that holds one below `lib/modules`.
    pub modules: PathBuf,
    /// What the config and the units ask for.
    pub needs: Needs,
    /// Programs and files that are added.
    pub payload: Vec<Payload>,
    /// Certificates of the authorities to trust, copied to `/etc/ssl/certs/ca-certificates.crt`.
    pub ca_certificates: Option<PathBuf>,
    /// The time stamp of every file, in seconds since 1970 (`SOURCE_DATE_EPOCH`).
    pub mtime: u32,
    /// Images for firmware, beside kernel and initramfs.
    pub firmware: Option<Firmware>,
}

/// Images that firmware boots.
#[derive(Debug, Clone)]
pub struct Firmware {
    /// As what.
    pub formats: Vec<Format>,
    /// By what.
    pub loader: Loader,
}

/// An image that could not be built. Nothing is left of it.
#[derive(Debug, Error)]
pub enum BuildError {
    /// An input cannot be read.
    #[error("cannot read {what} {}", path.display())]
    Read {
        /// Which input.
        what: &'static str,
        /// Its path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A unit file or a folder of them cannot be taken.
    #[error("cannot take the units")]
    Units(#[source] Report),
    /// Init is no program.
    #[error("cannot take init from {}", path.display())]
    Init {
        /// Its path.
        path: PathBuf,
        /// What it is.
        source: ElfError,
    },
    /// Init needs a loader that nothing has checked at boot.
    #[error("{} is a dynamic program, and init must be static", path.display())]
    DynamicInit {
        /// Its path.
        path: PathBuf,
    },
    /// A payload cannot be taken.
    #[error(transparent)]
    Library(#[from] LibraryError),
    /// A payload is another file than the one that was meant.
    #[error("payload {name}: the sha256 of {} is {found}, and {expected} was expected", path.display())]
    Sum {
        /// The payload.
        name: String,
        /// Its file.
        path: PathBuf,
        /// The file's SHA-256.
        found: String,
        /// That of the manifest.
        expected: String,
    },
    /// A module cannot be taken.
    #[error(transparent)]
    Module(#[from] ModuleError),
    /// Units run programs that are not there: the node could not come up whole.
    #[error("no payload brings {}", missing(.0))]
    MissingPrograms(Vec<NeededProgram>),
    /// The kubelet would not start with what the units tell it.
    #[error("the units do not fit kubelet {version}: {}", wrong.join("; "))]
    Kubelet {
        /// The kubelet's version.
        version: String,
        /// What does not fit, each with what to do.
        wrong: Vec<String>,
    },
    /// Two things claim one path.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// The archive could not be packed.
    #[error("cannot pack the initramfs")]
    Pack(#[source] io::Error),
    /// An image for firmware could not be made.
    #[error("cannot make an image that firmware boots")]
    Firmware(#[source] FirmwareError),
    /// It was told to stop.
    #[error("stopped before it was done")]
    Cancelled,
    /// The result could not be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// Where to.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

fn missing(programs: &[NeededProgram]) -> String {
    let each = programs.iter().map(|p| format!("{} (unit {})", p.path, p.unit));
    each.collect::<Vec<_>>().join(", ")
}

/// Builds the image and writes it into `out`: `vmlinuz`, `initramfs.zst`, the images for firmware, and `manifest.json`.
///
/// Runs as any user. The same inputs give the same bytes.
///
/// # Errors
/// See [`BuildError`]; an image that was in `out` before is then untouched, unless the disk failed
/// between the last renames, in which case [`manifest::ImageDir::open`] refuses the mix.
pub fn build(spec: &ImageSpec, out: &Path, watch: &dyn Watch) -> Result<Manifest, BuildError> {
    watch.begin("gathering the files", None);
    let kernel = read("kernel", &spec.kernel)?;
    let modules = KernelTree::open(&spec.modules)?;
    let (tree, origins) = gather(spec, &modules, watch)?;
    let staging = Staging::new(out)?;

    let mut archive = Vec::new();
    cpio::write(&tree, spec.mtime, &mut archive).map_err(BuildError::Pack)?;
    let initramfs = compress(&archive, watch)?;
    let unpacked = archive.len() as u64;
    drop(archive);

    staging.write(KERNEL, &kernel)?;
    staging.write(INITRAMFS, &initramfs)?;
    let mut firmware = Vec::new();
    if let Some(Firmware { formats, loader }) = &spec.firmware {
        let arguments = &spec.needs.arguments;
        let booted =
            Booted { kernel: &kernel, initramfs: &initramfs, arguments, mtime: spec.mtime };
        let written = firmware::write(formats, loader, &booted, staging.path(), watch);
        let written = written.map_err(|error| match error {
            FirmwareError::Cancelled => BuildError::Cancelled,
            other => BuildError::Firmware(other),
        })?;
        watch.begin("computing checksums", None);
        for name in written {
            let path = staging.path().join(name);
            keep_private(&path).map_err(cannot_write(&path))?;
            firmware.push(manifest::blob_at(&path, name).map_err(cannot_write(&path))?);
        }
    }
    let manifest = Manifest {
        schema: 1,
        kernel_release: modules.release().to_owned(),
        arguments: spec.needs.arguments.clone(),
        api_port: spec.needs.api_port,
        kernel: manifest::blob(KERNEL, &kernel),
        initramfs: manifest::blob(INITRAMFS, &initramfs),
        firmware,
        unpacked,
        files: manifest::list(&tree),
    };
    let mut text = serde_json::to_vec_pretty(&manifest).map_err(|e| BuildError::Pack(e.into()))?;
    text.push(b'\n');
    staging.write(MANIFEST, &text)?;
    watch.begin("writing the bill of materials", None);
    let bill = sbom::document(&manifest, &origins.0, spec.mtime);
    staging.write(SBOM, &bill.map_err(|e| BuildError::Pack(e.into()))?)?;
    go_on(watch)?;
    staging.place(&[KERNEL, INITRAMFS, SBOM], &Format::ALL.map(Format::file))?;
    Ok(manifest)
}

/// In chunks, so that it can be watched and stopped.
fn compress(archive: &[u8], watch: &dyn Watch) -> Result<Vec<u8>, BuildError> {
    const CHUNK: usize = 1 << 20;
    watch.begin("compressing the initramfs", Some(archive.len() as u64));
    let mut encoder = zstd::Encoder::new(Vec::new(), ZSTD_LEVEL).map_err(BuildError::Pack)?;
    let sized = encoder.set_pledged_src_size(Some(archive.len() as u64));
    sized.and_then(|()| encoder.include_checksum(true)).map_err(BuildError::Pack)?;
    for chunk in archive.chunks(CHUNK) {
        go_on(watch)?;
        encoder.write_all(chunk).map_err(BuildError::Pack)?;
        watch.advance(chunk.len() as u64);
    }
    encoder.finish().map_err(BuildError::Pack)
}

fn go_on(watch: &dyn Watch) -> Result<(), BuildError> {
    if watch.cancelled() { Err(BuildError::Cancelled) } else { Ok(()) }
}

fn gather(
    spec: &ImageSpec,
    modules: &KernelTree,
    watch: &dyn Watch,
) -> Result<(Tree, Origins), BuildError> {
    let (mut tree, mut origins) = (Tree::merged()?, Origins::default());
    layout::add(&mut tree)?;

    let init = read("init", &spec.init)?;
    let elf =
        elf::read(&init).map_err(|source| BuildError::Init { path: spec.init.clone(), source })?;
    if elf.interpreter.is_some() || !elf.needed.is_empty() {
        return Err(BuildError::DynamicInit { path: spec.init.clone() });
    }
    tree.file("/init", 0o755, init, "init")?;
    let keel = origins.add("/init", "keel-init", &spec.init);
    keel.version = Some(env!("CARGO_PKG_VERSION").to_owned());
    tree.file("/etc/keel/config.toml", 0o600, spec.config.clone().into_bytes(), "machine config")?;
    add_units(&mut tree, &spec.units)?;
    if let Some(path) = &spec.ca_certificates {
        let bytes = read("certificates", path)?;
        tree.file("/etc/ssl/certs/ca-certificates.crt", 0o644, bytes, "certificates")?;
    }
    for payload in &spec.payload {
        go_on(watch)?;
        add_payload(&mut tree, &mut origins, payload, &elf, &spec.needs)?;
    }
    add_modules(&mut tree, modules, &spec.needs.modules)?;
    let absent = spec.needs.programs.iter().filter(|program| !tree.holds(&program.path));
    let absent: Vec<_> = absent.cloned().collect();
    if absent.is_empty() { Ok((tree, origins)) } else { Err(BuildError::MissingPrograms(absent)) }
}

/// Unit files below a directory, at the same place below `/etc/keel/units`: those that `load` finds, as everywhere else.
fn add_units(tree: &mut Tree, units: &Path) -> Result<(), BuildError> {
    let input = load(units, None);
    if !input.findings.is_empty() {
        return Err(BuildError::Units(Report::new(input.sources.into(), input.findings)));
    }
    tree.directory("/etc/keel/units", 0o755, "layout")?;
    for (file, _) in input.units {
        let path = input.sources.name(file);
        let place =
            Path::new(&*path).strip_prefix(&*units.to_string_lossy()).unwrap_or(Path::new(&*path));
        let text = input.sources.text(file);
        // A unit may hold the content of a secret file.
        tree.file(
            &format!("/etc/keel/units/{}", place.display()),
            0o600,
            text.as_bytes().to_vec(),
            "unit",
        )?;
    }
    Ok(())
}

/// A program with its loader and libraries, or a plain file.
fn add_payload(
    tree: &mut Tree,
    origins: &mut Origins,
    payload: &Payload,
    init: &Elf,
    needs: &Needs,
) -> Result<(), BuildError> {
    let bytes = read("payload", &payload.source)?;
    if let Some(expected) = &payload.sha256 {
        let found = manifest::sha256(&bytes);
        if found != *expected {
            let (name, expected) = (payload.name.clone(), expected.clone());
            return Err(BuildError::Sum { name, path: payload.source.clone(), found, expected });
        }
    }
    if let (Some(told), true) = (&needs.kubelet, payload.target() == KUBELET)
        && let Some(version) = kubelet::release(&bytes)
    {
        let wrong = kubelet::misfits(&version, told);
        if !wrong.is_empty() {
            return Err(BuildError::Kubelet { version, wrong });
        }
    }
    let why = format!("payload {}", payload.name);
    let target = tree::real_path(&payload.target());
    let origin = origins.add(&target, &payload.name, &payload.source);
    (origin.version, origin.url) = (payload.version.clone(), payload.url.clone());
    if !payload.must_be_program() && elf::read(&bytes).is_err() {
        return Ok(tree.file(&payload.target(), 0o644, bytes, &why)?);
    }
    for library in closure(payload, &bytes, init.machine)? {
        let target = tree::real_path(&library.path);
        origins.add(&target, &format!("libraries of {}", payload.name), &library.source);
        tree.file(&library.path, 0o755, library.bytes, &format!("library of {}", payload.name))?;
    }
    Ok(tree.file(&payload.target(), 0o755, bytes, &why)?)
}

fn closure(
    payload: &Payload,
    bytes: &[u8],
    machine: Machine,
) -> Result<Vec<libraries::Library>, LibraryError> {
    let host = PathBuf::from("/");
    let mut roots = vec![host];
    // Links are followed only for reading: the package's own root is the one it was unpacked into.
    if let Some(root) = libraries::root_of(&payload.source).filter(|root| *root != roots[0]) {
        roots.insert(0, root);
    }
    libraries::closure(&payload.name, &payload.source, bytes, machine, &roots)
}

fn add_modules(
    tree: &mut Tree,
    kernel: &KernelTree,
    wanted: &[WantedModule],
) -> Result<(), BuildError> {
    let dir = format!("/usr/lib/modules/{}", kernel.release());
    let selection = kernel.select(wanted)?;
    for module in selection.modules {
        let bytes = kernel.module(&module.path)?;
        tree.file(
            &format!("{dir}/{}", module.path),
            0o644,
            bytes,
            &format!("module: {}", module.why),
        )?;
    }
    for (name, text) in selection.indexes {
        tree.file(&format!("{dir}/{name}"), 0o644, text.into_bytes(), "module index")?;
    }
    Ok(())
}

fn read(what: &'static str, path: &Path) -> Result<Vec<u8>, BuildError> {
    let cannot = |source| BuildError::Read { what, path: path.to_owned(), source };
    manifest::can_end(path).and_then(|()| fs::read(path)).map_err(cannot)
}

/// Where the files are written whole under their names before they are put into place: in the same directory, hence on the
/// same file system. It goes with its content if anything fails, and so does the directory if it was made for this.
#[derive(Debug)]
struct Staging<'a> {
    out: &'a Path,
    dir: Option<tempfile::TempDir>,
    made: bool,
}

impl<'a> Staging<'a> {
    fn new(out: &'a Path) -> Result<Self, BuildError> {
        let made = !out.exists();
        fs::create_dir_all(out).map_err(cannot_write(out))?;
        let mut staging = Self { out, dir: None, made };
        let dir = tempfile::Builder::new().prefix(".new-").tempdir_in(out);
        staging.dir = Some(dir.map_err(cannot_write(out))?);
        Ok(staging)
    }

    fn path(&self) -> &Path {
        self.dir.as_ref().map_or(self.out, tempfile::TempDir::path)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), BuildError> {
        let path = self.path().join(name);
        // The initramfs holds the machine config, and that may hold secrets; and the other images hold the initramfs.
        let private = ![KERNEL, MANIFEST, SBOM].contains(&name);
        let written = creating(private).open(&path).and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()
        });
        // The staging's own name says nothing to anybody.
        written.map_err(cannot_write(&self.out.join(name)))
    }

    /// The old manifest goes first and the new one comes last, so a file is never half-written under its name, and files
    /// of two builds never stand under one manifest. Of the `optional` ones those that were not built now go too.
    fn place(mut self, names: &[&str], optional: &[&str]) -> Result<(), BuildError> {
        remove(&self.out.join(MANIFEST))?;
        for name in names.iter().chain(optional).chain([&MANIFEST]) {
            let (from, to) = (self.path().join(name), self.out.join(name));
            if from.exists() {
                fs::rename(&from, &to).map_err(cannot_write(&to))?;
            } else {
                remove(&to)?;
            }
        }
        self.made = false;
        Ok(())
    }
}

impl Drop for Staging<'_> {
    fn drop(&mut self) {
        drop(self.dir.take());
        if self.made {
            // Not if somebody put something there meanwhile.
            let _ = fs::remove_dir(self.out);
        }
    }
}

fn remove(path: &Path) -> Result<(), BuildError> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(cannot_write(path)(e)),
        _ => Ok(()),
    }
}

fn cannot_write(path: &Path) -> impl FnOnce(io::Error) -> BuildError + use<> {
    let path = path.to_owned();
    move |source| BuildError::Write { path, source }
}

/// What a tool wrote, in a directory that is private: it holds the initramfs.
fn keep_private(path: &Path) -> io::Result<()> {
    #[cfg(unix)]
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    #[cfg(not(unix))]
    let _ = path;
    Ok(())
}

/// How a new file is made; one that is private is for its owner alone, from its first moment.
fn creating(private: bool) -> fs::OpenOptions {
    let mut options = fs::File::options();
    options.write(true).create_new(true);
    #[cfg(unix)]
    if private {
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    }
    options
}
