//! Whether a program works: what `/healthz` and `/readyz` answer.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::http::StatusCode;

/// A loop without a pass for so long hangs. It makes one every minute at least, and a request to the Kubernetes API has
/// a time limit that is shorter.
const HANGS_AFTER: Duration = Duration::from_secs(5 * 60);

/// The health of a program, as its loop reports it.
#[derive(Clone, Debug)]
pub struct Health(Arc<State>);

#[derive(Debug)]
struct State {
    /// When the last pass ended; at first, when the loop began.
    passed: Mutex<Instant>,
    is_ready: AtomicBool,
}

pub(super) type Answer = (StatusCode, String);

impl Health {
    /// The loop begins now.
    pub fn begin() -> Self {
        Self(Arc::new(State { passed: Mutex::new(Instant::now()), is_ready: AtomicBool::new(false) }))
    }

    /// A pass ended, whether it failed or not.
    pub fn passed(&self) {
        *self.0.passed.lock().expect("nobody panics with this lock") = Instant::now();
    }

    /// The program does its work. It stays ready: status and metrics report later failures, and an API that is away
    /// must not make its own operator look broken.
    pub fn ready(&self) {
        self.0.is_ready.store(true, Ordering::Relaxed);
    }

    pub(super) fn healthz(&self, now: Instant) -> Answer {
        let passed = *self.0.passed.lock().expect("nobody panics with this lock");
        match now.saturating_duration_since(passed) {
            since if since <= HANGS_AFTER => (StatusCode::OK, "ok\n".into()),
            since => {
                let message = format!("the main loop has not run for {} s\n", since.as_secs());
                (StatusCode::SERVICE_UNAVAILABLE, message)
            }
        }
    }

    pub(super) fn readyz(&self) -> Answer {
        if self.0.is_ready.load(Ordering::Relaxed) {
            (StatusCode::OK, "ok\n".into())
        } else {
            (StatusCode::SERVICE_UNAVAILABLE, "the main loop has not completed a pass yet\n".into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_that_makes_no_pass_is_not_healthy() {
        let health = Health::begin();
        let now = Instant::now();
        assert_eq!(health.healthz(now).0, StatusCode::OK);
        let (status, text) = health.healthz(now + Duration::from_secs(301));
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(text.starts_with("the main loop has not run for 30"), "{text}");
        *health.0.passed.lock().unwrap() = now + Duration::from_secs(200);
        assert_eq!(health.healthz(now + Duration::from_secs(301)).0, StatusCode::OK);
    }
}
