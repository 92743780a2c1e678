//! The `file` kind.

use super::kernel::exactly_one;
use crate::diagnostic::Diagnostic;
use crate::keys::{Fields, keys};
use crate::value::{AbsPath, Content, FileMode, Timespan};

keys! {
    /// Writes a file in one step (a reader sees the old one or the new one), makes a directory, or links. What is there
    /// already with the same content is left alone.
    pub struct File {
        /// The path.
        path "path": AbsPath,
        /// The content.
        content "content": Option<Content>,
        /// Copy this file.
        copy "copy": Option<AbsPath>,
        /// Make a symbolic link to this path.
        symlink "symlink": Option<AbsPath>,
        /// Make a directory.
        directory "directory": bool = "false",
        /// Permissions; 0644 for files and 0755 for directories when not written.
        mode "mode": Option<FileMode>,
        /// The content is a secret: mode 0600, and only its hash is ever shown.
        secret "secret": bool = "false",
        /// How long it may take.
        timeout "timeout": Option<Timespan>,
    }
    check = coherent;
}

fn coherent(file: &File, fields: &mut Fields<'_>) {
    exactly_one(
        fields,
        &[
            ("content", file.content.is_some()),
            ("copy", file.copy.is_some()),
            ("symlink", file.symlink.is_some()),
            ("directory", file.directory),
        ],
    );
    if let Some(target) = &file.symlink {
        if *target == file.path {
            let found =
                Diagnostic::new("bad-value", fields.span_of("symlink"), "the link leads to itself");
            let found = found.label("also its own path").also(fields.span_of("path"), "the link");
            fields.report(found.help("write the path of what it should lead to"));
        }
        for (key, set) in [("secret", file.secret), ("mode", file.mode.is_some())] {
            if set {
                let message = format!("`{key}` says nothing of a symbolic link");
                let found = Diagnostic::new("misplaced-key", fields.span_of(key), message);
                let help = "put it into the unit of the file that the link leads to";
                fields.report(found.label("a link has only its target").help(help));
            }
        }
        return;
    }
    if file.secret && file.mode.is_some_and(|m| m.0 & 0o077 != 0) {
        let found =
            Diagnostic::new("bad-value", fields.span_of("mode"), "others could read the secret");
        fields.report(found.label("expected a mode such as \"0600\""));
    }
}
