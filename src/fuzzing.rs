//! Where outside bytes come in, for fuzzing: one function for each kind, which panics if a promise about it is broken.
//!
//! `fuzz/` drives them by coverage, `scripts/fuzz` runs that, and the test below replays what was found before. Nothing else may use
//! this, and no promise of stability is made about it: it is there under the feature `fuzzing` alone.

pub use crate::{
    config::fuzzing::config,
    control::codec::fuzzing::control,
    token::fuzzing::{claims, tokens},
    wire::fuzzing::wire_frames,
};

/// A target, by the name that its program in `fuzz/` and its directory of inputs have.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: &[Target] = &[
    ("claims", claims),
    ("config", config),
    ("control", control),
    ("tokens", tokens),
    ("wire_frames", wire_frames),
];

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    /// Each in `fuzz/corpus/NAME/` and, if it once broke something, in `fuzz/regressions/NAME/`.
    #[test]
    fn what_fuzzing_found_is_taken_well() {
        let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
        for (name, target) in TARGETS {
            let mut inputs = 0;
            for directory in ["corpus", "regressions"] {
                let Ok(files) = fs::read_dir(fuzz.join(directory).join(name)) else {
                    continue;
                };
                for file in files {
                    let path = file.unwrap().path();
                    let bytes = fs::read(&path).unwrap();
                    let result = std::panic::catch_unwind(|| target(&bytes));
                    assert!(result.is_ok(), "{}", path.display());
                    inputs += 1;
                }
            }
            assert!(inputs > 10, "{name} has {inputs} inputs");
            target(&[]);
        }
    }

    #[test]
    fn every_target_has_its_program() {
        let programs = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/fuzz_targets");
        let mut found: Vec<String> = fs::read_dir(programs)
            .unwrap()
            .map(|file| file.unwrap().path())
            .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
            .collect();
        found.sort();
        let named: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
        assert_eq!(found, named);
    }
}
