//! Processes for real: this test process is the reaper of its children. Each test is a process of its own (nextest).

#![cfg(test)]

mod cgroups;
mod children;
mod programs;
mod support;
mod tools;
