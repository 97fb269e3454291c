//! The `tickgate` program: reads its arguments and its configuration, and runs one role.

mod cli;

/// A gateway allocates and frees for every packet, on few threads: that is where it gains over the system's (docs/PERFORMANCE.md).
#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    cli::main()
}
