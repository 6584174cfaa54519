//! What every page has around it.

use super::{Page, assets, guard::Visitor, session::Said};
use crate::{domain::time::TimestampMs, web::auth::Role};

/// The pages by their addresses, as they are linked from each.
pub(super) const PAGES: [(&str, &str); 8] = [
    ("/page", "Overview"),
    ("/page/jobs", "Jobs"),
    ("/page/quarantine", "Quarantine"),
    ("/page/book", "Book"),
    ("/page/switches", "Switches"),
    ("/page/reconcile", "Reconcile"),
    ("/page/actions", "Actions"),
    ("/page/runbook", "Runbook"),
];

/// What every page has around it.
pub(super) struct Layout {
    /// What the page is about.
    pub(super) title: String,
    /// Which of [`PAGES`] it belongs to.
    pub(super) here: &'static str,
    /// Who looks.
    pub(super) name: String,
    /// In what role.
    pub(super) role: Role,
    /// Whether they may act.
    pub(super) acts: bool,
    /// What forms carry.
    pub(super) csrf: String,
    /// What became of what was done last.
    pub(super) said: Option<Said>,
    /// When the page was written.
    pub(super) now: TimestampMs,
    /// Which style and script belong to it.
    pub(super) version: &'static str,
    /// Which version of the daemon this is.
    pub(super) daemon: &'static str,
    /// What has been typed into the search.
    pub(super) searched: String,
}

impl Layout {
    pub(super) fn new(
        page: &Page,
        visitor: &Visitor,
        here: &'static str,
        title: impl Into<String>,
    ) -> Self {
        let Visitor { open, principal, is_live } = visitor;
        Self {
            title: title.into(),
            here,
            name: principal.name.clone(),
            role: principal.role,
            acts: principal.role == Role::Operator,
            csrf: open.csrf.clone(),
            said: if *is_live { None } else { page.sessions.hear(open) },
            now: page.api.clock.now(),
            version: assets::version(),
            daemon: env!("CARGO_PKG_VERSION"),
            searched: String::new(),
        }
    }
}
