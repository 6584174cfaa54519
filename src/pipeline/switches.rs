//! What operators have switched off. The rows are the truth; the writer shows here what it has committed.

use std::sync::Arc;

use tokio::sync::watch;

use crate::domain::action::{Switch, Switches};

/// The switches as they are now, for everybody who minds them.
#[derive(Clone, Debug)]
pub struct SwitchBoard {
    shown: Arc<watch::Sender<Switches>>,
}

impl Default for SwitchBoard {
    fn default() -> Self {
        Self::new(Switches::default())
    }
}

impl SwitchBoard {
    /// A board that shows these.
    #[must_use]
    pub fn new(switches: Switches) -> Self {
        Self { shown: Arc::new(watch::Sender::new(switches)) }
    }

    /// All of them.
    #[must_use]
    pub fn now(&self) -> Switches {
        *self.shown.borrow()
    }

    /// Whether one is on.
    #[must_use]
    pub fn is_on(&self, switch: Switch) -> bool {
        self.now().is_on(switch)
    }

    /// Shows what was committed.
    pub(crate) fn set(&self, switches: Switches) {
        self.shown.send_if_modified(|shown| std::mem::replace(shown, switches) != switches);
    }

    /// Waits until one is on, or until it is off.
    pub async fn until(&self, switch: Switch, on: bool) {
        let mut seen = self.shown.subscribe();
        // The sender is this board, which is there as long as anybody waits.
        let _shown = seen.wait_for(|switches| switches.is_on(switch) == on).await;
    }
}
