//! Signals for async-std and smol: each signal is written into a pipe that their common reactor
//! watches.

use std::future::ready;
use std::io;

use async_signal::{Signal as RawSignal, Signals};
use futures::stream::{Stream, StreamExt};

use super::Signal;

impl Signal {
    fn to_raw(self) -> RawSignal {
        match self {
            Signal::Terminate => RawSignal::Term,
            Signal::Interrupt => RawSignal::Int,
            Signal::Quit => RawSignal::Quit,
            Signal::HangUp => RawSignal::Hup,
        }
    }

    fn from_raw(raw: RawSignal) -> Option<Signal> {
        match raw {
            RawSignal::Term => Some(Signal::Terminate),
            RawSignal::Int => Some(Signal::Interrupt),
            RawSignal::Quit => Some(Signal::Quit),
            RawSignal::Hup => Some(Signal::HangUp),
            _ => None,
        }
    }
}

pub(super) fn signals(
    wanted: &[Signal],
) -> io::Result<impl Stream<Item = Signal> + Send + Unpin + 'static> {
    let raw = Signals::new(wanted.iter().map(|signal| signal.to_raw()))?;
    let unbroken = raw.take_while(|item| ready(item.is_ok()));
    Ok(unbroken.filter_map(|item| ready(item.ok().and_then(Signal::from_raw))))
}
