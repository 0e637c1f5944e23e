//! One token that says: stop now. SIGTERM and SIGINT trigger it, and so may anybody who holds it.

use std::io;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Whether to stop; clones are the same token.
#[derive(Debug, Clone)]
pub struct Shutdown {
    state: watch::Sender<bool>,
}

impl Shutdown {
    /// A token that no signal triggers.
    pub fn new() -> Self {
        Self { state: watch::Sender::new(false) }
    }

    /// A token that SIGTERM or SIGINT triggers. From here on neither signal ends the process by
    /// itself.
    ///
    /// # Errors
    /// When the system refuses a signal handler.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn on_signals() -> io::Result<Self> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let token = Self::new();
        let trigger = token.clone();
        tokio::spawn(async move {
            let name = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            };
            tracing::info!(signal = name, "shutting down");
            trigger.trigger();
        });
        Ok(token)
    }

    /// Triggers it; once is for ever.
    pub fn trigger(&self) {
        self.state.send_replace(true);
    }

    /// Whether it was triggered.
    pub fn is_triggered(&self) -> bool {
        *self.state.borrow()
    }

    /// Resolves once it was triggered, also when that was long ago. The future owns what it needs.
    pub fn triggered(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut seen = self.state.subscribe();
        let keep = self.state.clone();
        async move {
            // It can't fail: `keep` holds the sender.
            let _ = seen.wait_for(|stop| *stop).await;
            drop(keep);
        }
    }
}

impl Default for Shutdown {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;

    #[test]
    fn it_resolves_for_early_and_late_listeners() {
        let token = Shutdown::new();
        let early = token.clone().triggered();
        assert!(token.triggered().now_or_never().is_none());
        token.trigger();
        assert!(early.now_or_never().is_some());
        assert!(token.triggered().now_or_never().is_some());
        assert!(token.is_triggered());
    }
}
