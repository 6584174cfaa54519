//! The runbook, as it is in the repository: what each alert means, and what to do.

use std::sync::OnceLock;

use askama::Template;
use axum::{extract::State, response::Response};
use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd, html::push_html};

use super::{
    Page,
    attention::section,
    failure::{Failure, html},
    guard::Visitor,
    layout::Layout,
};

const RUNBOOK: &str = include_str!("../../../docs/RUNBOOK.md");

#[derive(Template)]
#[template(path = "runbook.html")]
struct RunbookPage {
    layout: Layout,
    /// Sections by name, and as they are titled.
    sections: &'static [(String, String)],
    text: &'static str,
}

/// The runbook as HTML, with the names and titles of its sections.
struct Written {
    sections: Vec<(String, String)>,
    text: String,
}

fn written() -> &'static Written {
    static WRITTEN: OnceLock<Written> = OnceLock::new();
    WRITTEN.get_or_init(|| write(RUNBOOK))
}

/// Writes Markdown as HTML. Links to other files of the repository become plain text, because they lead
/// nowhere from here.
fn write(markdown: &str) -> Written {
    let (mut sections, mut events) = (Vec::new(), Vec::new());
    let mut leads_away = false;
    let mut parser = Parser::new_ext(markdown, Options::ENABLE_TABLES).peekable();
    while let Some(event) = parser.next() {
        if let Event::Start(Tag::Heading { level, classes, attrs, .. }) = event {
            let title = match parser.peek() {
                Some(Event::Text(title)) => title.to_string(),
                Some(_) | None => String::new(),
            };
            let name = section(&title);
            sections.push((name.clone(), title));
            let id = Some(name.into());
            events.push(Event::Start(Tag::Heading { level, id, classes, attrs }));
        } else if is_way_out(&event) {
            leads_away = true;
        } else if leads_away && event == Event::End(TagEnd::Link) {
            leads_away = false;
        } else {
            events.push(event);
        }
    }
    let mut text = String::new();
    push_html(&mut text, events.into_iter());
    Written { sections, text }
}

/// Whether a link to another file begins.
fn is_way_out(event: &Event<'_>) -> bool {
    matches!(event, Event::Start(Tag::Link { dest_url, .. }) if !dest_url.starts_with('#'))
}

/// The page.
pub(super) async fn show(State(page): State<Page>, visitor: Visitor) -> Result<Response, Failure> {
    let layout = Layout::new(&page, &visitor, "/page/runbook", "Runbook");
    let Written { sections, text } = written();
    Ok(html(&RunbookPage { layout, sections, text }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::alert::AlertKind;

    #[test]
    fn every_alert_has_its_section_and_no_link_leads_nowhere() {
        let Written { sections, text } = written();
        for kind in AlertKind::ALL {
            let name = section(kind.name());
            assert!(sections.iter().any(|(known, _)| *known == name), "{name}");
            assert!(text.contains(&format!("id=\"{name}\"")), "{name}");
        }
        for (_, rest) in text.match_indices("href=\"").map(|(at, _)| (at, &text[at + 6..])) {
            let link = rest.split('"').next().unwrap();
            let name = link.strip_prefix('#').unwrap_or_else(|| panic!("{link}"));
            assert!(sections.iter().any(|(known, _)| known == name), "{link}");
        }
        assert!(text.contains("<table>") && !text.contains("<script"));
    }
}
