//! Drawing the graph, deterministically: equal inputs give equal bytes.

mod dot;
mod json;
mod text;

pub use dot::dot;
pub use json::json;
pub use text::text;
