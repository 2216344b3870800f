//! All integration tests are one program, so that they are linked once and run side by side. A file for each behaviour; what they
//! share is in `support`.

mod broker;
mod support;
