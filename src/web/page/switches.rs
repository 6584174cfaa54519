//! What operators can switch off: intake, signing, sending; by whom, and why.

use askama::Template;
use axum::{
    extract::{Path, State},
    response::{Redirect, Response},
};
use serde::Deserialize;

use super::{
    Page,
    failure::{Failure, html},
    guard::{Filled, Visitor},
    layout::Layout,
    session::Said,
    shown::Ago,
};
use crate::{domain::action::Switch, health::Part};

/// A switch, shown.
struct Line {
    switch: Switch,
    on: bool,
    while_off: &'static str,
    /// When it was set last, by whom, why.
    set: Option<(Ago, String, String)>,
}

#[derive(Template)]
#[template(path = "switches.html")]
struct SwitchesPage {
    layout: Layout,
    lines: Vec<Line>,
    parts: Vec<Part>,
}

/// The page.
pub(super) async fn show(State(page): State<Page>, visitor: Visitor) -> Result<Response, Failure> {
    let layout = Layout::new(&page, &visitor, "/page/switches", "Switches");
    let now = layout.now;
    let lines = page.api.checks.readers.switches().await?.into_iter().map(|line| Line {
        switch: line.switch,
        on: line.on,
        while_off: line.switch.while_off(),
        set: line.since_ms.map(|at| {
            (Ago { at, now }, line.who.unwrap_or_default(), line.reason.unwrap_or_default())
        }),
    });
    let lines = lines.collect();
    let parts = page.api.checks.readiness().await.parts;
    Ok(html(&SwitchesPage { layout, lines, parts }))
}

/// What it is set to, and why.
#[derive(Deserialize)]
pub(super) struct Setting {
    to: String,
    #[serde(default)]
    reason: String,
}

/// Sets a switch.
pub(super) async fn set(
    State(page): State<Page>,
    Path(switch): Path<String>,
    filled: Filled<Setting>,
) -> Result<Redirect, Failure> {
    let switch: Switch =
        switch.parse().map_err(|error| Failure::not_found(format!("{switch:?}: {error}")))?;
    let on = filled.form.to == "on";
    let said = match filled.because(&filled.form.reason) {
        Err(failure) => Said::failed(&failure),
        Ok(by) => match page.api.operations.set_switch(switch, on, &by).await {
            Err(error) => Said::failed(&error.into()),
            Ok(changed) => {
                let word = if on { "on" } else { "off" };
                let already = if changed { "is" } else { "was already" };
                Said { good: changed, lines: vec![format!("{switch} {already} {word}.")] }
            }
        },
    };
    page.sessions.say(&filled.open, said);
    Ok(Redirect::to("/page/switches"))
}
