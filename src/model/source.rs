//! For whom the node sends a request to the broker. Sources take turns in every queue towards it.

use crate::model::id::SessionId;

/// The source of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// The node itself: the repair of holes, comparisons, control logs, its report.
    Node,
    /// A client, or a subscription of the embedding program.
    Session(SessionId),
    /// A backend, or the embedding program.
    Caller(CallerId),
}

/// Identifies who sends commands without a session: all calls with one API key are one caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CallerId(u32);

impl CallerId {
    /// The program that embeds the node.
    pub const PROGRAM: Self = Self(0);
    /// A program of this machine that needs no key.
    pub const LOCAL: Self = Self(1);

    /// The owner of the API key with this index.
    pub fn of_key(index: usize) -> Self {
        Self(u32::try_from(index).unwrap_or(u32::MAX).saturating_add(2))
    }
}

/// The sources of one kind together. Each class has a share of its own, so that many sessions
/// cannot take that of a backend, nor a backend theirs, nor either that of the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SourceClass {
    Node,
    Sessions,
    Callers,
}

impl SourceClass {
    /// The number of classes.
    pub const COUNT: usize = 3;
}

impl Source {
    pub fn class(self) -> SourceClass {
        match self {
            Source::Node => SourceClass::Node,
            Source::Session(_) => SourceClass::Sessions,
            Source::Caller(_) => SourceClass::Callers,
        }
    }
}
