//! The one integration binary: a table of contents.

mod support;

mod stories; // worker, local driver and simulator in virtual time

mod sweep; // a crash at every point, once and twice, and storms, in virtual time
