//! What must never be shown: a wrapper whose `Debug` tells nothing and which has no `Display`, so
//! that no log line, error or dump can hold what is inside by accident.

use std::fmt;

use subtle::ConstantTimeEq;

/// Bytes or text that only [`expose`](Self::expose) lets out.
#[derive(Clone)]
pub struct Secret<T>(T);

impl<T: AsRef<[u8]>> Secret<T> {
    pub fn new(hidden: T) -> Self {
        Self(hidden)
    }

    /// What is inside, for the one place that needs it. Neither log it nor put it into an error.
    pub fn expose(&self) -> &T {
        &self.0
    }
}

impl<T> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Takes as long for a wrong guess as for a right one of the same length (constant time); the
/// length itself shows.
impl<T: AsRef<[u8]>> PartialEq for Secret<T> {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_ref().ct_eq(other.0.as_ref()).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_equal_to_itself_and_shows_nothing() {
        let secret = Secret::new("swordfish".to_owned());
        assert_eq!(format!("{secret:?} {secret:#?}"), "*** ***");
        assert!(secret == Secret::new("swordfish".to_owned()));
        assert!(secret != Secret::new("swordfisj".to_owned()));
        assert!(secret != Secret::new("swordfis".to_owned()));
        assert_eq!(secret.expose(), "swordfish");
    }
}
