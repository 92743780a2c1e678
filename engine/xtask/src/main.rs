//! Demo, test, bench, codegen and tidy.

mod codegen;
mod reference;

use std::error::Error;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;

#[derive(Parser)]
#[command(name = "cargo xtask")]
enum Cli {
    /// Write the generated files, or check that they are current
    Codegen(codegen::Args),
}

fn main() -> ExitCode {
    // The alias runs this from anywhere in the tree; the workspace is where this package was built from.
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let result = match Cli::parse() {
        Cli::Codegen(args) => codegen::run(&root, args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report(&error);
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stderr, reason = "this is where xtask ends")]
fn report(error: &dyn Error) {
    eprintln!("error: {error}");
    let mut source = error.source();
    while let Some(cause) = source {
        eprintln!("cause: {cause}");
        source = cause.source();
    }
}
