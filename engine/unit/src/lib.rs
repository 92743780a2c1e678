//! Unit files and machine config: text in, validated types or a full report of errors out.
//!
//! [`load::load`] reads, [`lower::lower`] turns what was read into a [`lower::UnitSet`]. Nothing in this crate knows of graphs,
//! of time or of Linux.

pub mod config;
pub mod diagnostic;
pub mod explain;
pub mod json_schema;
pub mod keys;
pub mod kinds;
pub mod load;
pub mod lower;
pub mod name;
pub mod payload;
pub mod rules;
pub mod secret;
pub mod select;
pub mod shape;
pub mod source;
pub mod tree;
pub mod unit;
pub mod value;
pub mod words;

mod addressing;
mod patch;
mod reference;
mod side_by_side;

pub use diagnostic::{Diagnostic, Report};
pub use kinds::{Kind, KindName};
pub use lower::{Input, UnitSet, lower};
pub use name::UnitName;
pub use unit::Unit;
