//! The `tickgate` program: reads its arguments and its configuration, and runs one role.

mod cli;

fn main() -> std::process::ExitCode {
    cli::main()
}
