//! The committed corpus of every fuzz target, played without a fuzzer: a change of a decoder meets each input that ever added a branch.

use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};

use crate::fuzz::{Play, TARGETS};

fn sorted(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    paths
}

/// The files of a target's corpus that break a promise, of so many.
fn broken(corpus: &Path, name: &str, play: Play) -> (Vec<PathBuf>, usize) {
    let inputs = sorted(&corpus.join(name));
    let count = inputs.len();
    let is_broken = |path: &PathBuf| {
        let bytes = std::fs::read(path).unwrap();
        std::panic::catch_unwind(AssertUnwindSafe(|| play(&bytes))).is_err()
    };
    (inputs.into_iter().filter(is_broken).collect(), count)
}

#[test]
fn no_input_of_the_corpus_breaks_a_promise() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus");
    let folders: BTreeSet<String> = sorted(&corpus)
        .iter()
        .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
        .collect();
    assert_eq!(folders, TARGETS.map(|(name, _)| name.to_owned()).into());
    std::thread::scope(|scope| {
        let played = TARGETS.map(|(name, play)| {
            let corpus = &corpus;
            (name, scope.spawn(move || broken(corpus, name, play)))
        });
        let mut all_broken = Vec::new();
        for (name, played) in played {
            let (broken, count) = played.join().unwrap();
            assert!(count > 100, "the corpus of {name} is gone: {count} inputs");
            all_broken.extend(broken);
        }
        assert!(all_broken.is_empty(), "{all_broken:#?}");
    });
}
