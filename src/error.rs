//! How an error is shown: once, with its sources, and not again for each retry.

use std::error::Error;

/// An error with its sources: `a: b: c`.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let sources = std::iter::successors(Some(error), |&error| error.source());
    sources.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// The last error of something that is retried: it is logged when it changes.
#[derive(Debug, Default)]
pub struct LastError(Option<String>);

impl LastError {
    /// The error with its sources, unless it repeats the last one.
    pub fn changed(&mut self, error: &(dyn Error + 'static)) -> Option<&str> {
        let error = chain(error);
        if self.0.as_ref() == Some(&error) {
            return None;
        }
        Some(self.0.insert(error))
    }

    /// It succeeded.
    pub fn clear(&mut self) {
        self.0 = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    enum Sample {
        #[error("outer")]
        Outer(#[source] Box<Sample>),
        #[error("inner {0}")]
        Inner(u8),
    }

    #[test]
    fn an_error_is_shown_with_its_sources_and_again_only_when_it_changes() {
        let error = |number| Sample::Outer(Box::new(Sample::Inner(number)));
        let mut last = LastError::default();
        assert_eq!(last.changed(&error(1)), Some("outer: inner 1"));
        assert_eq!(last.changed(&error(1)), None);
        assert_eq!(last.changed(&error(2)), Some("outer: inner 2"));
        last.clear();
        assert_eq!(last.changed(&error(2)), Some("outer: inner 2"));
    }
}
