//! Chooses loom's atomics and locks for the seat table, in this package alone.

fn main() {
    println!("cargo::rustc-cfg=tickgate_loom");
    println!("cargo::rerun-if-changed=build.rs");
}
