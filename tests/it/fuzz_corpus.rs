//! The committed corpus of every fuzz target, played without a fuzzer: a change of a decoder meets each input that ever added a branch.

use std::collections::{BTreeMap, BTreeSet};
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

/// Inputs that must get in, by target and way in: a corpus of refusals would test refusals alone. Each is some below what there is.
const ACCEPTED: [(&str, &str, usize); 34] = [
    ("campaign", "asked_since", 1),
    ("campaign", "definition", 3),
    ("campaign", "device", 1),
    ("campaign", "marker", 1),
    ("campaign", "permissive", 30),
    ("campaign", "record", 4),
    ("campaign", "release", 2),
    ("campaign", "strict", 27),
    ("control", "cancel", 13),
    ("control", "pause", 13),
    ("control", "resume", 9),
    ("event", "cancelled", 12),
    ("event", "completed", 111),
    ("event", "failed", 15),
    ("event", "rejected", 31),
    ("headers", "request", 9),
    ("headers", "retry_after", 16),
    ("headers", "traceparent", 1),
    ("nbi_answer", "done", 12),
    ("nbi_answer", "exists", 2),
    ("nbi_answer", "list", 1),
    ("nbi_answer", "no rule", 1),
    ("nbi_answer", "results", 4),
    ("nbi_answer", "rules", 3),
    ("nbi_answer", "unreadable", 4),
    ("nbi_answer", "version", 3),
    ("request", "permissive", 25),
    ("request", "permissive CloudEvent", 1),
    ("request", "strict", 17),
    ("request", "strict CloudEvent", 1),
    ("step", "calm", 2),
    ("step", "newer name", 13),
    ("step", "newer version", 3),
    ("step", "wild", 135),
];

/// What came of a target's corpus.
#[derive(Default)]
struct Played {
    inputs: usize,
    /// Files that break a promise.
    broken: Vec<PathBuf>,
    /// How many inputs got in, by the way in.
    accepted: BTreeMap<&'static str, usize>,
}

fn played(folder: &Path, play: Play) -> Played {
    let mut played = Played::default();
    for path in sorted(folder) {
        let bytes = std::fs::read(&path).unwrap();
        played.inputs += 1;
        match std::panic::catch_unwind(AssertUnwindSafe(|| play(&bytes))) {
            Err(_) => played.broken.push(path),
            Ok(accepted) => {
                for way in BTreeSet::from_iter(accepted) {
                    *played.accepted.entry(way).or_default() += 1;
                }
            }
        }
    }
    played
}

/// What is wrong with the numbers of inputs that got in.
fn complaints(accepted: &BTreeMap<(&str, &str), usize>) -> Vec<String> {
    let least: BTreeMap<_, _> = ACCEPTED
        .map(|(name, way, least)| ((name, way), least))
        .into();
    let ways: BTreeSet<_> = least.keys().chain(accepted.keys()).collect();
    let complaint = |way: &&(&str, &str)| {
        let count = accepted.get(*way).copied().unwrap_or_default();
        match least.get(*way) {
            Some(least) if count >= *least => None,
            least => Some(format!(
                "{way:?}: {count} inputs get in, expected are {least:?}"
            )),
        }
    };
    ways.iter().filter_map(complaint).collect()
}

#[test]
fn no_input_of_the_corpus_breaks_a_promise() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus");
    let folders: BTreeSet<String> = sorted(&corpus)
        .iter()
        .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
        .collect();
    assert_eq!(folders, TARGETS.map(|(name, _)| name.to_owned()).into());
    let all = std::thread::scope(|scope| {
        TARGETS
            .map(|(name, play)| {
                let folder = corpus.join(name);
                (name, scope.spawn(move || played(&folder, play)))
            })
            .map(|(name, played)| (name, played.join().unwrap()))
    });
    let (mut broken, mut accepted) = (Vec::new(), BTreeMap::new());
    for (name, played) in all {
        assert!(
            played.inputs > 100,
            "the corpus of {name} is gone: {} inputs",
            played.inputs
        );
        broken.extend(played.broken);
        accepted.extend(
            played
                .accepted
                .into_iter()
                .map(|(way, count)| ((name, way), count)),
        );
    }
    assert!(broken.is_empty(), "{broken:#?}");
    let complaints = complaints(&accepted);
    assert!(complaints.is_empty(), "{complaints:#?}");
}

#[test]
fn a_corpus_that_gets_in_no_longer_is_found_out() {
    let full: BTreeMap<_, _> = ACCEPTED
        .map(|(name, way, least)| ((name, way), least))
        .into();
    assert_eq!(complaints(&full), [""; 0]);
    for way in full.keys() {
        let mut few = full.clone();
        *few.get_mut(way).unwrap() -= 1;
        assert_eq!(complaints(&few).len(), 1, "{way:?}");
        few.remove(way);
        assert_eq!(complaints(&few).len(), 1, "{way:?}");
    }
    let mut new = full;
    new.insert(("step", "a way that nobody counts"), 1);
    assert_eq!(complaints(&new).len(), 1);
}
