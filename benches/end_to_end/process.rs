//! A process that is measured: its processor time and its memory, as the kernel tells them.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Clock ticks per second of /proc: 100 on every Linux that matters.
const TICKS: f64 = 100.0;

/// The binary under test.
pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_nbi-upgrade");

/// A child; killed when dropped, and when this process ends in any other way.
pub(crate) struct Process {
    child: Child,
    /// The first line that it printed, where it was waited for.
    pub(crate) first_line: String,
}

impl Process {
    /// Starts this program in a role; ready when it has printed a line.
    pub(crate) fn role(directory: &Path, words: &[&str]) -> Self {
        let program = std::env::current_exe().expect("we run from a file");
        let mut process = Self::start(
            directory,
            program.to_str().expect("a plain path"),
            words,
            &[],
            Stdio::piped(),
        );
        let stdout = process.child.stdout.take().expect("it is piped");
        let read = BufReader::new(stdout).read_line(&mut process.first_line);
        assert!(
            read.is_ok_and(|length| length > 0),
            "{words:?} ended before it was ready"
        );
        process
    }

    /// Starts the binary under test.
    pub(crate) fn binary(
        directory: &Path,
        words: &[&str],
        environment: &[(String, String)],
    ) -> Self {
        Self::start(directory, BINARY, words, environment, Stdio::null())
    }

    fn start(
        directory: &Path,
        program: &str,
        words: &[&str],
        environment: &[(String, String)],
        stdout: Stdio,
    ) -> Self {
        let log = directory.join(format!("{}.log", words.join("-").replace(['/', ':'], "_")));
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", program])
            .args(words)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .envs(environment.iter().map(|(key, value)| (key, value)))
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(File::create(log).expect("the directory is ours"))
            .spawn();
        Self {
            child: child.expect("setpriv (util-linux) starts the program"),
            first_line: String::new(),
        }
    }

    /// Waits for its end, which must be a success.
    pub(crate) fn finish(&mut self) {
        let status = self.child.wait().expect("it is ours");
        assert!(status.success(), "{status}");
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Holds it, so that work can be laid ready in front of it.
    pub(crate) fn hold(&self) {
        self.signal("STOP");
    }

    /// Lets it go on.
    pub(crate) fn release(&self) {
        self.signal("CONT");
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill")
            .args([&format!("-{name}"), &self.id().to_string()])
            .status();
        assert!(
            sent.is_ok_and(|status| status.success()),
            "the process is gone"
        );
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Processor seconds that a process has used, in user and kernel mode.
pub(crate) fn cpu(id: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).expect("it runs");
    // Behind the name, which may hold anything: state is field 3, utime 14, stime 15.
    let fields = stat.rsplit(") ").next().expect("a name in parentheses");
    let ticks = fields
        .split(' ')
        .skip(11)
        .take(2)
        .map(|field| field.parse::<f64>().expect("a number"));
    ticks.sum::<f64>() / TICKS
}

/// A line of /proc/ID/status in MiB: `VmRSS`, `VmHWM`.
pub(crate) fn memory(id: u32, name: &str) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).expect("it runs");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<f64>().ok());
    kilobytes.expect("Linux says it") / 1024.0
}
