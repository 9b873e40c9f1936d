//! Stories: worker, local driver and simulator in virtual time. Each says what happens to one device, a few, or a small fleet.

mod deadlines; // what is said before a deadline passes
mod devices; // what devices do
mod duplicates; // jobs that meet themselves or each other
mod mixups; // two jobs of one device, and whose result it is
mod orders; // what operators order, and what comes after the end
mod switches; // every answer to the vendor's open questions
mod troubles; // the NBI's bad days
mod unseen; // rules that no read shows
