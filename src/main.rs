//! The binary: parse, run, exit status.

use std::process::ExitCode;

/// Cheaper than the system's where small pieces are freed on another thread than they were made on.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    nbi_upgrade::cli::main()
}
