//! The module tree at work: names in, loaded modules out, each loaded once.
//!
//! Any number of threads may ask at the same time. Each asked name becomes a list in load order and each entry of
//! the list is taken by the first thread that reaches it; the others wait for that same load. No thread holds one
//! entry while it waits for another, so two that need each other's dependencies cannot block each other.

use std::collections::HashMap;
use std::ffi::CString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::apply::{InsertError, Inserted, Kernel, RunningKernel};
use super::coldplug::Seen;
use super::name::ModuleName;
use super::options::{Options, parameter_pairs, same_value};
use super::plan::{Insert, Resolved, Unknown};
use super::tree::{Tree, TreeError};

/// The modules of one kernel, and what has become of them since this machine started.
pub struct Modules {
    pub(super) tree: Tree,
    dir: PathBuf,
    sys_module: PathBuf,
    release: String,
    pub(super) options: Options,
    kernel: Box<dyn Kernel>,
    flights: Mutex<HashMap<ModuleName, Flight>>,
    pub(super) seen: Mutex<Seen>,
}

/// One load: made by the first who asks, awaited by the others.
type Flight = Arc<OnceLock<Result<Inserted, Arc<InsertError>>>>;

/// What a load came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loaded {
    /// The module is in the kernel since this call.
    Now,
    /// It was there before.
    Already,
    /// It is part of the kernel.
    Builtin,
}

/// A module that cannot be used.
#[derive(Debug)]
pub struct ModuleError {
    /// What was asked for.
    pub name: String,
    /// Why not.
    pub kind: ModuleErrorKind,
}

impl fmt::Display for ModuleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "module {}: {}", self.name, self.kind)
    }
}

impl std::error::Error for ModuleError {
    /// The kind is said already; its own source is the next cause.
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.kind.source()
    }
}

/// Why a module cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ModuleErrorKind {
    /// Neither a module nor an alias.
    #[error("not in the module tree of kernel {release}{}", did_you_mean(suggestion.as_ref()))]
    Unknown {
        /// The kernel, as uname(2) calls it.
        release: String,
        /// A name that is close.
        suggestion: Option<ModuleName>,
    },
    /// The module, or one that it needs, was not taken.
    #[error("cannot load {module}")]
    Insert {
        /// The module that failed: the asked one, or one that it needs.
        module: ModuleName,
        /// Why.
        #[source]
        source: Arc<InsertError>,
    },
    /// It is in the kernel, with another value of a parameter than asked.
    #[error(
        "in use already with {parameter}={found}, not {wanted}; parameters are taken only when a module is loaded"
    )]
    Parameter {
        /// The parameter.
        parameter: String,
        /// Its value in the unit.
        wanted: String,
        /// Its value in the kernel.
        found: String,
    },
    /// Parameters are a C string, which ends at the first NUL.
    #[error("its parameters hold a NUL")]
    Nul,
}

fn did_you_mean(suggestion: Option<&ModuleName>) -> String {
    suggestion.map(|name| format!(" (did you mean {name}?)")).unwrap_or_default()
}

impl Modules {
    /// Reads the tree of kernel `release` under `root` (`/` on a node).
    pub fn open(root: &Path, release: &str) -> Result<Self, TreeError> {
        let sys_module = root.join("sys/module");
        let kernel = Box::new(RunningKernel::new(&sys_module));
        Self::open_with(root, release, kernel)
    }

    pub(super) fn open_with(
        root: &Path,
        release: &str,
        kernel: Box<dyn Kernel>,
    ) -> Result<Self, TreeError> {
        let dir = root.join("lib/modules").join(release);
        Ok(Self {
            tree: Tree::open(&dir)?,
            dir,
            sys_module: root.join("sys/module"),
            release: release.to_owned(),
            options: Options::default(),
            kernel,
            flights: Mutex::default(),
            seen: Mutex::default(),
        })
    }

    /// Sets what the operator says of modules; to be done before the first load.
    #[must_use]
    pub fn with_options(mut self, options: Options) -> Self {
        self.options = options;
        self
    }

    /// Loads the module `name` (or what has this alias) after all that it needs. Blocks until its init function
    /// has returned.
    ///
    /// `parameters` as modprobe takes them (`"max_loop=8 max_part=4"`); they stand above those of the [`Options`].
    pub fn load(&self, name: &str, parameters: &str) -> Result<Loaded, ModuleError> {
        self.load_named(name, parameters)
            .map_err(|kind| ModuleError { name: name.to_owned(), kind })
    }

    fn load_named(&self, name: &str, parameters: &str) -> Result<Loaded, ModuleErrorKind> {
        let modules = match self.tree.resolve(name) {
            Ok(Resolved::Modules(modules)) => modules,
            Ok(Resolved::Builtin) => {
                self.verify_parameters(&ModuleName::new(name), parameters)?;
                return Ok(Loaded::Builtin);
            }
            Err(Unknown { suggestion }) => {
                return Err(ModuleErrorKind::Unknown { release: self.release.clone(), suggestion });
            }
        };
        // An alias may name several (crypto-aes: one per instruction set); it is served if one of them works.
        let mut results = modules.iter().map(|module| self.load_module(module, parameters));
        let mut first = results.next().unwrap_or(Ok(Loaded::Builtin));
        for result in results {
            if first.is_err() {
                first = result;
            }
        }
        first
    }

    /// Loads one module of the tree after all that it needs.
    pub(super) fn load_module(
        &self,
        wanted: &ModuleName,
        parameters: &str,
    ) -> Result<Loaded, ModuleErrorKind> {
        let mut loaded = Loaded::Already;
        for insert in self.tree.load_order(wanted) {
            let is_wanted = insert.name == *wanted;
            let asked = if is_wanted { parameters } else { "" };
            let parameters = self.options.with(&insert.name, asked);
            match self.insert_once(&insert, parameters) {
                Ok(Inserted::Now) if is_wanted => loaded = Loaded::Now,
                Ok(_) => {}
                Err(kind) if insert.required => return Err(kind),
                // A soft dependency: modprobe goes on without it too.
                Err(_) => {}
            }
        }
        if loaded == Loaded::Already {
            self.verify_parameters(wanted, parameters)?;
        }
        Ok(loaded)
    }

    /// Loads one file, or waits for whoever is loading it. A failure is forgotten when all who waited for it have
    /// it, so that a retry is one.
    fn insert_once(
        &self,
        insert: &Insert,
        parameters: String,
    ) -> Result<Inserted, ModuleErrorKind> {
        let parameters = CString::new(parameters).map_err(|_| ModuleErrorKind::Nul)?;
        let flight = self.flights().entry(insert.name.clone()).or_default().clone();
        let mut mine = false;
        let result = flight.get_or_init(|| {
            mine = true;
            if self.is_live(&insert.name) {
                return Ok(Inserted::Already);
            }
            self.kernel.insert(&self.dir.join(&insert.file), &parameters).map_err(Arc::new)
        });
        match result {
            Ok(_) if !mine => Ok(Inserted::Already),
            Ok(inserted) => Ok(*inserted),
            Err(source) => {
                let mut flights = self.flights();
                if flights.get(&insert.name).is_some_and(|current| Arc::ptr_eq(current, &flight)) {
                    flights.remove(&insert.name);
                }
                Err(ModuleErrorKind::Insert {
                    module: insert.name.clone(),
                    source: Arc::clone(source),
                })
            }
        }
    }

    /// The map is whole after every statement that changes it, so a panic elsewhere does not spoil it.
    fn flights(&self) -> std::sync::MutexGuard<'_, HashMap<ModuleName, Flight>> {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the kernel has it, ready: spares unpacking a file only to hear that. `coming` is not enough.
    fn is_live(&self, module: &ModuleName) -> bool {
        std::fs::read_to_string(self.sys_module.join(module.as_str()).join("initstate"))
            .is_ok_and(|state| state.trim_end() == "live")
    }

    /// Compares parameters with what a module that is in use shows of them in sysfs; what it does not show, no one
    /// can know.
    fn verify_parameters(
        &self,
        module: &ModuleName,
        parameters: &str,
    ) -> Result<(), ModuleErrorKind> {
        let dir = self.sys_module.join(module.as_str()).join("parameters");
        for (parameter, wanted) in parameter_pairs(parameters) {
            let Ok(found) = std::fs::read_to_string(dir.join(parameter)) else { continue };
            if !same_value(wanted, &found) {
                return Err(ModuleErrorKind::Parameter {
                    parameter: parameter.to_owned(),
                    wanted: wanted.to_owned(),
                    found: found.trim_end().to_owned(),
                });
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Modules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Modules").field("dir", &self.dir).finish_non_exhaustive()
    }
}
