//! Drawing the graph, deterministically: equal inputs give equal bytes.

mod dot;
mod json;
mod mermaid;
mod scene;
mod svg;
mod text;

pub use dot::dot;
pub use json::json;
pub use mermaid::mermaid;
pub(crate) use scene::edge_kind;
pub use svg::svg;
pub use text::text;
