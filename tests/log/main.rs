//! The log at its boundary: what it promises to whoever appends, reads, or opens its file with other tools.

mod answering;
mod append;
mod checkpoints;
mod closing;
mod fixture;
mod foreign;
mod ids;
mod inspecting;
mod opening;
mod protection;
mod reading;
mod resuming;
mod rules;
mod stream_trims;
mod tokens;
mod trimming;
mod upgrading;
