//! How long the pieces of the hot path take: `cargo bench --bench hot_path`.
//!
//! Times depend on the machine and on who else works on it: compare within one run, or use `instructions.rs`.

mod paths;

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use nbi_upgrade::nbi::budget::{Budgets, CallClass};
use nbi_upgrade::nbi::limit::Limiter;

fn pieces(criterion: &mut Criterion) {
    for mut piece in paths::all() {
        criterion.bench_function(piece.name, |bencher| bencher.iter(|| (piece.work)()));
    }
}

/// A turn at the limiter with places free, without and with a rate that is never reached.
fn limiter(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build();
    let runtime = runtime.expect("a runtime");
    for (name, rate) in [
        ("limiter_turn", None),
        ("limiter_turn_with_rate", Some(1e9)),
    ] {
        let limiter = runtime.block_on(async { Limiter::new(64, rate, &Budgets::default(), true) });
        criterion.bench_function(name, |bencher| {
            bencher.iter(|| {
                runtime.block_on(async { drop(black_box(limiter.turn(CallClass::Read).await)) })
            });
        });
    }
}

criterion_group!(benches, pieces, limiter);
criterion_main!(benches);
