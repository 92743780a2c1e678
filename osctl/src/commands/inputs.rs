//! Where units and machine config are, and the graph that they make: what every offline command begins with.

use std::mem::ManuallyDrop;
use std::path::{Path, PathBuf};

use clap::Args;
use keel_plan::export::Export;
use keel_plan::{BOOT, BootGraph, PlanError, Transaction, compile};
use keel_proto::v1::ExportGraphRequest;
use keel_unit::keys::Text;
use keel_unit::load::{Files, load_all};
use keel_unit::{Input, Report, UnitName};

use crate::cli::NodeArgs;
use crate::error::Failure;
use crate::node;
use crate::output::Output;

/// Where units and machine config are.
#[derive(Debug, Clone, Args)]
pub(crate) struct Inputs {
    /// Machine config; say it again for each further file that patches those before. Without one everything has its default
    #[arg(long, short, value_name = "FILE")]
    pub(crate) config: Vec<PathBuf>,

    /// File with the config's secrets, `NAME = "…"` each; for its owner alone (mode 0600)
    #[arg(long, value_name = "FILE")]
    pub(crate) secrets: Option<PathBuf>,

    /// Folder of unit files
    #[arg(long, short, value_name = "DIR", default_value = "units")]
    pub(crate) units: PathBuf,
}

/// The graph that a node runs, in place of one that files make.
#[derive(Debug, Clone, Args)]
pub(crate) struct Running {
    /// The graph that the node of --endpoint runs, with the states of its units, in place of one from files
    #[arg(long, conflicts_with_all = ["config", "secrets", "units"])]
    pub(crate) node: bool,
}

/// The largest graph that is taken from a node, in bytes: some ten thousand units.
const LARGEST: usize = 64 << 20;

impl Running {
    /// The node's graph, if that is what was asked for.
    pub(crate) fn export(
        &self,
        args: &NodeArgs,
        out: &mut Output,
    ) -> Result<Option<Export>, Failure> {
        self.node.then(|| running(args, out)).transpose()
    }
}

/// The graph that a node runs.
pub(crate) fn running(args: &NodeArgs, out: &mut Output) -> Result<Export, Failure> {
    let bytes = node::ask(async {
        let connection = node::reach(args, out).await?;
        let refused = |status| node::refused("hand its graph out", &status);
        let stream = connection.node().export_graph(ExportGraphRequest {}).await;
        let mut stream = stream.map_err(refused)?.into_inner();
        let mut bytes = Vec::new();
        while let Some(piece) = stream.message().await.map_err(refused)? {
            if bytes.len() + piece.piece.len() > LARGEST {
                let failure = Failure::new("the node's graph is larger than 64 MiB");
                return Err(failure.next("is that a Keel node?"));
            }
            bytes.extend(piece.piece);
        }
        Ok(bytes)
    })?;
    let older = "compare the versions of the node and of this osctl";
    let export: Export = serde_json::from_slice(&bytes).map_err(|error| {
        Failure::new("the node's graph cannot be read").because(error).next(older)
    })?;
    // Names go into pictures and onto terminals as they are.
    let odd = export.units.iter().find(|unit| <UnitName as Text>::parse(&unit.name).is_err());
    match odd {
        Some(unit) => {
            let name = unit.name.escape_debug();
            Err(Failure::new(format!("the node's graph holds a unit named `{name}`")).next(older))
        }
        None => Ok(export),
    }
}

/// Why a machine's graph could not be had.
pub(crate) enum Fault {
    /// The inputs have faults of their own.
    Findings(Report),
    /// Anything else.
    Other(Failure),
}

impl From<Failure> for Fault {
    fn from(failure: Failure) -> Self {
        Fault::Other(failure)
    }
}

impl Inputs {
    /// Reads all files. What cannot be read is a finding of theirs; a path that is not there is a slip on the command line.
    pub(crate) fn load(&self) -> Result<Input, Failure> {
        present(&self.units, "--units")?;
        if self.units.is_file() {
            let failure = Failure::usage(format!("{} is a file", self.units.display()));
            return Err(failure.next("name the folder that it lies in with --units"));
        }
        self.load_config()
    }

    /// Reads all files, with the units only where there are some.
    pub(crate) fn load_config(&self) -> Result<Input, Failure> {
        for config in &self.config {
            present(config, "--config")?;
        }
        if let Some(secrets) = &self.secrets {
            present(secrets, "--secrets")?;
            private(secrets)?;
        }
        let mut input = load_all(Files {
            units: Some(&*self.units).filter(|units| units.is_dir()),
            configs: &self.config,
            secrets: self.secrets.as_deref(),
        });
        // A config without its secrets can be checked and drawn; only an image needs them.
        input.secrets_elsewhere = self.secrets.is_none();
        Ok(input)
    }

    /// As [`planned`](Self::planned), for a command that ends with what it says of them: to give thousands of units back piece by piece
    /// would take a tenth of its time.
    pub(crate) fn planned_for_good(
        &self,
        goal: &str,
    ) -> Result<(ManuallyDrop<BootGraph>, ManuallyDrop<Transaction>), Fault> {
        let (graph, transaction) = self.planned(goal)?;
        Ok((ManuallyDrop::new(graph), ManuallyDrop::new(transaction)))
    }

    /// Reads, resolves and plans; everything that is wrong is one `Fault`.
    pub(crate) fn planned(&self, goal: &str) -> Result<(BootGraph, Transaction), Fault> {
        self.plan(self.load()?, goal)
    }

    /// Resolves and plans what was read.
    pub(crate) fn plan(&self, input: Input, goal: &str) -> Result<(BootGraph, Transaction), Fault> {
        compile(input, goal).map_err(|error| match error {
            PlanError::Invalid(report) => Fault::Findings(report),
            // Units that lack the goal of every boot are not whole; another goal was typed.
            PlanError::UnknownGoal { .. } if goal == BOOT => {
                let failure = Failure::new(error.to_string());
                let units = self.units.display();
                Fault::Other(failure.next(format!("give {units} a boot.toml with [target]")))
            }
            PlanError::UnknownGoal { .. } => {
                let failure = Failure::usage(error.to_string());
                Fault::Other(failure.next("`osctl graph list` names all units"))
            }
            other => {
                let failure = Failure::new("cannot plan the boot").because(other);
                Fault::Other(failure.next("this is a defect of osctl; please report it"))
            }
        })
    }
}

/// A path that is not there is a slip on the command line, not a finding in a file. A link that leads nowhere is there.
fn present(path: &Path, option: &str) -> Result<(), Failure> {
    match path.symlink_metadata() {
        Ok(_) => Ok(()),
        Err(error) => {
            let failure = Failure::usage(format!("cannot read {}", path.display())).because(error);
            Err(failure.next(format!("say where it is with {option}")))
        }
    }
}

/// Others must not be able to read a file of secrets.
#[cfg(unix)]
pub(crate) fn private(path: &Path) -> Result<(), Failure> {
    use std::os::unix::fs::PermissionsExt as _;

    let Ok(about) = path.metadata() else { return Ok(()) };
    let mode = about.permissions().mode() & 0o7777;
    if !about.is_file() || mode & 0o077 == 0 {
        return Ok(());
    }
    let shown = path.display();
    let failure =
        Failure::usage(format!("others may use the secrets in {shown} (mode {mode:04o})"));
    Err(failure.next(format!("chmod 600 {shown}")))
}

#[cfg(not(unix))]
pub(crate) fn private(_: &Path) -> Result<(), Failure> {
    Ok(())
}
