//! Fake host and scenario runner for tests.
