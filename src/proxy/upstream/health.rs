//! Who is let near an endpoint that fails: a circuit breaker, without a clock of its own.
//!
//! Closed: everybody. After as many failures in a row as allowed it is open: nobody, so that callers hear at once what they
//! would hear late, and the endpoint can recover. When it was open long enough, one exchange is let through, and one more
//! each time that it was open so long again: the first that succeeds closes it.

use std::time::{Duration, Instant};

/// How an endpoint's health is judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// Below the base; `None`: nobody asks, exchanges tell.
    pub path: Option<String>,
    /// Between two questions.
    pub interval: Duration,
    /// A question that takes longer has failed.
    pub timeout: Duration,
    /// So many failures in a row open the circuit.
    pub failures: u32,
    /// For so long, before one is let through.
    pub open: Duration,
}

/// The circuit of one endpoint.
#[derive(Debug)]
pub struct Circuit {
    allowed: u32,
    open_for: Duration,
    failures: u32,
    /// Since when it is open, or let the last one through.
    open: Option<Instant>,
}

impl Circuit {
    /// Closed.
    pub fn new(allowed: u32, open_for: Duration) -> Circuit {
        Circuit { allowed, open_for, failures: 0, open: None }
    }

    /// Lets one through, or says how long to wait.
    pub fn admit(&mut self, now: Instant) -> Result<(), Duration> {
        let Some(since) = self.open else { return Ok(()) };
        let waited = now.saturating_duration_since(since);
        if waited < self.open_for {
            return Err(self.open_for - waited);
        }
        self.open = Some(now); // the next one waits for this one's outcome, or as long again
        Ok(())
    }

    /// An exchange or question failed. Says whether the circuit is open now.
    pub fn failed(&mut self, now: Instant) -> bool {
        self.failures = self.failures.saturating_add(1);
        if self.open.is_some() || self.failures >= self.allowed {
            self.open = Some(now);
        }
        self.open.is_some()
    }

    /// An exchange or question succeeded.
    pub fn succeeded(&mut self) {
        (self.failures, self.open) = (0, None);
    }
}

/// Whole seconds to wait, at least one: for `Retry-After`.
pub fn seconds(wait: Duration) -> u32 {
    u32::try_from(wait.as_millis().div_ceil(1000)).unwrap_or(u32::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `f` fails, `s` succeeds, a digit lets that many seconds pass, `+` is let through, `-` is not.
    fn plays(script: &str) {
        let (mut circuit, mut now) = (Circuit::new(3, Duration::from_secs(5)), Instant::now());
        for (at, step) in script.chars().enumerate() {
            match step {
                'f' => _ = circuit.failed(now),
                's' => circuit.succeeded(),
                '+' => assert_eq!(circuit.admit(now), Ok(()), "{script} at {at}"),
                '-' => assert!(circuit.admit(now).is_err(), "{script} at {at}"),
                digit => now += Duration::from_secs(digit.to_digit(10).unwrap().into()),
            }
        }
    }

    #[test]
    fn a_circuit_opens_after_failures_in_a_row_and_one_success_closes_it() {
        plays("+ff+f-".trim());
        plays("ffsff+f-");
        plays("fff-4-1+-");
        plays("fff5+f-4-1+s+++");
        plays("fff5+5+-"); // whoever was let through went away: another is
        plays("fff-s+ff+f-");
        assert_eq!([seconds(Duration::ZERO), seconds(Duration::from_millis(4001))], [1, 5]);
    }
}
