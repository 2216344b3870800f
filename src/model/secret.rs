//! Secrets: a wrapper whose `Debug` hides the value and which has no `Display`, so that no log
//! line, error or dump can contain the value by accident.

use std::fmt;

use subtle::ConstantTimeEq;

/// Bytes or text that only [`expose`](Self::expose) lets out.
#[derive(Clone)]
pub struct Secret<T>(T);

impl<T: AsRef<[u8]>> Secret<T> {
    pub fn new(hidden: T) -> Self {
        Self(hidden)
    }

    /// The value, for the one place that needs it. Neither log it nor put it into an error.
    pub fn expose(&self) -> &T {
        &self.0
    }
}

impl<T> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Compares in constant time for values of equal length; the length itself is not hidden.
impl<T: AsRef<[u8]>> PartialEq for Secret<T> {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_ref().ct_eq(other.0.as_ref()).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secret_is_equal_to_itself_and_shows_nothing() {
        let secret = Secret::new("swordfish".to_owned());
        assert_eq!(format!("{secret:?} {secret:#?}"), "*** ***");
        assert!(secret == Secret::new("swordfish".to_owned()));
        assert!(secret != Secret::new("swordfisj".to_owned()));
        assert!(secret != Secret::new("swordfis".to_owned()));
        assert_eq!(secret.expose(), "swordfish");
    }
}
