//! The one wait of the tests: for a condition, with a limit.

use std::time::{Duration, Instant};

/// Looks until there is a value, with a pause between two looks. `None`: there was none within the limit.
pub fn poll<T>(limit: Duration, pause: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let begin = Instant::now();
    loop {
        let value = look();
        if value.is_some() || begin.elapsed() > limit {
            return value;
        }
        std::thread::sleep(pause);
    }
}

/// [`poll`] for a value that must come; `what` describes it in the failure.
pub fn until<T>(what: impl FnOnce() -> String, limit: Duration, look: impl FnMut() -> Option<T>) -> T {
    poll(limit, Duration::from_millis(50), look)
        .unwrap_or_else(|| panic!("waited {} s in vain for {}", limit.as_secs(), what()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_ends_the_wait_and_the_limit_does_too() {
        let mut looks = 0;
        let third = poll(Duration::from_secs(60), Duration::ZERO, || {
            looks += 1;
            (looks == 3).then_some(looks)
        });
        assert_eq!(third, Some(3));
        assert_eq!(poll(Duration::ZERO, Duration::from_millis(1), || None::<()>), None);
    }
}
