//! [`Lines`]: log lines on their way out, written some at a time.
//!
//! A write of its own for each line was a tenth of a worker's processor time at full speed. So lines are gathered, and a thread writes what
//! has come together: the first at once, what follows at most [`PAUSE`] later. A warning or an error is written before its call returns,
//! and all lines before it. What ends in order loses none: [`Lines::flush`] stands at the end of the program, before it exits for a second
//! signal, and in the hook of panics. A process that is killed loses the lines of its last [`PAUSE`], as a rule less.
//!
//! `log.rs` is the only user.

use std::io::{self, Write};
use std::mem;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

/// How long lines are gathered.
pub(super) const PAUSE: Duration = Duration::from_millis(20);

/// So many bytes are not waited with: whoever logs writes them, and is held up where nobody reads the log, as it would be without
/// gathering. Some hundred lines.
const ENOUGH: usize = 128 * 1024;

/// Where lines are gathered. Clones share it.
#[derive(Clone)]
pub(super) struct Lines(Arc<Shared>);

struct Shared {
    gathered: Mutex<Vec<u8>>,
    /// The first line came.
    begun: Condvar,
    /// Held from taking what is gathered until it is written: so lines keep their order.
    out: Mutex<Box<dyn Write + Send>>,
}

impl Lines {
    /// Writes to this, in a thread that ends with the process.
    ///
    /// # Errors
    ///
    /// The system has no more threads.
    pub(super) fn to(out: impl Write + Send + 'static) -> io::Result<Self> {
        let lines = Self(Arc::new(Shared {
            gathered: Mutex::default(),
            begun: Condvar::new(),
            out: Mutex::new(Box::new(out)),
        }));
        let own = lines.clone();
        std::thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || own.write_on())?;
        Ok(lines)
    }

    /// Writes what is gathered.
    pub(super) fn flush(&self) {
        let mut out = locked(&self.0.out);
        let lines = mem::take(&mut *locked(&self.0.gathered));
        // There is nobody to tell that standard error is closed.
        drop(out.write_all(&lines).and_then(|()| out.flush()));
    }

    fn write_on(&self) {
        loop {
            let gathered = locked(&self.0.gathered);
            let some = self.0.begun.wait_while(gathered, |lines| lines.is_empty());
            drop(some);
            self.flush();
            std::thread::sleep(PAUSE);
        }
    }

    fn add(&self, line: &[u8], is_urgent: bool) {
        let mut gathered = locked(&self.0.gathered);
        let is_first = gathered.is_empty();
        gathered.extend_from_slice(line);
        let is_enough = gathered.len() >= ENOUGH;
        drop(gathered);
        if is_urgent || is_enough {
            self.flush();
        } else if is_first {
            self.0.begun.notify_one();
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes one line; the formatter writes each as a whole.
pub(super) struct Line<'a> {
    lines: &'a Lines,
    is_urgent: bool,
}

impl Write for Line<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.lines.add(line, self.is_urgent);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Self::Writer {
        Line {
            lines: self,
            is_urgent: true,
        }
    }

    fn make_writer_for(&'a self, line: &Metadata<'_>) -> Self::Writer {
        Line {
            lines: self,
            is_urgent: *line.level() <= Level::WARN,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Instant;

    use super::*;

    /// Tells each write.
    struct Writes(mpsc::Sender<String>);

    impl Write for Writes {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if !bytes.is_empty() {
                let text = String::from_utf8(bytes.to_vec()).unwrap();
                self.0.send(text).unwrap();
            }
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn lines() -> (Lines, mpsc::Receiver<String>) {
        let (sender, writes) = mpsc::channel();
        (Lines::to(Writes(sender)).unwrap(), writes)
    }

    const PATIENCE: Duration = Duration::from_secs(20);

    #[test]
    fn lines_come_by_themselves_in_their_order_and_fewer_times_than_there_are() {
        let (lines, writes) = lines();
        let all: String = (0..1_000).map(|number| format!("{number}\n")).collect();
        for line in all.split_inclusive('\n') {
            lines.add(line.as_bytes(), false);
        }
        let (mut seen, mut times) = (String::new(), 0);
        while seen.len() < all.len() {
            seen.push_str(&writes.recv_timeout(PATIENCE).unwrap());
            times += 1;
        }
        assert_eq!(seen, all);
        assert!(times < 500, "{times} writes of 1000 lines");
    }

    #[test]
    fn an_urgent_line_is_written_before_its_call_returns_and_all_before_it() {
        let (lines, writes) = lines();
        let mut seen = String::new();
        let mut expected = String::new();
        for number in 0..50 {
            lines.add(format!("info {number}\n").as_bytes(), false);
            lines.add(format!("warn {number}\n").as_bytes(), true);
            expected.push_str(&format!("info {number}\nwarn {number}\n"));
            seen.extend(writes.try_iter());
            assert_eq!(seen, expected);
        }
    }

    #[test]
    fn what_is_flushed_or_enough_is_written_at_once() {
        let (lines, writes) = lines();
        lines.add(b"a\n", false);
        lines.flush();
        let seen: String = writes.try_iter().collect();
        assert_eq!(seen, "a\n");
        let long = "x".repeat(ENOUGH);
        lines.add(long.as_bytes(), false);
        assert_eq!(
            writes.try_iter().map(|text| text.len()).sum::<usize>(),
            ENOUGH
        );
    }

    #[test]
    fn many_threads_lose_no_line_and_tear_none() {
        let (lines, writes) = lines();
        let threads: Vec<_> = (0..4)
            .map(|thread| {
                let lines = lines.clone();
                std::thread::spawn(move || {
                    for number in 0..500 {
                        let line = format!("{thread} {number}\n");
                        lines.add(line.as_bytes(), number % 7 == 0);
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        lines.flush();
        let seen: String = writes.try_iter().collect();
        for thread in 0..4 {
            let own: Vec<&str> = seen
                .lines()
                .filter_map(|line| line.strip_prefix(&format!("{thread} ")))
                .collect();
            let expected: Vec<String> = (0..500).map(|number| number.to_string()).collect();
            assert_eq!(own, expected);
        }
    }

    #[test]
    fn a_line_after_a_silence_does_not_wait() {
        let (lines, writes) = lines();
        let mut waits = Vec::new();
        for _ in 0..5 {
            std::thread::sleep(PAUSE * 2);
            let begun = Instant::now();
            lines.add(b"line\n", false);
            writes.recv_timeout(PATIENCE).unwrap();
            waits.push(begun.elapsed());
        }
        // The quickest, as a busy machine may hold the thread up.
        let quickest = waits.into_iter().min().unwrap();
        assert!(quickest < PAUSE, "{quickest:?}");
    }
}
