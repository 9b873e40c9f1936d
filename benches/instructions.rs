//! Does one piece of the hot path so and so often, for a counter of instructions around it: `tests/checks/instructions`, which holds
//! them to `instructions.baseline`.
//!
//! `instructions list` names the pieces, `instructions NAME TIMES` does one. Counted twice with different times, the difference is free
//! of start and end.

#![expect(clippy::print_stdout, reason = "its output is its purpose")]

mod paths;

/// The binary's allocator: its instructions do not depend on the C library of the machine.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut pieces = paths::all();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [name, times] if !name.starts_with('-') => {
            let times: u32 = times.parse().expect("TIMES is a number");
            let piece = pieces.iter_mut().find(|piece| piece.name == name);
            let piece = piece.expect("NAME is one of `instructions list`");
            for _ in 0..times {
                (piece.work)();
            }
        }
        // Also what `cargo test` and `cargo bench` run: every piece once.
        _ => {
            for piece in &mut pieces {
                (piece.work)();
                println!("{}", piece.name);
            }
        }
    }
}
