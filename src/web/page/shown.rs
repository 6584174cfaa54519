//! How values are shown: times in UTC with how long ago, amounts, states, long ids.

use std::{fmt, time::Duration};

use askama::filters::HtmlSafe;

use crate::domain::{amount::Amount, ids::CurrencyCode, job::JobTerms, time::TimestampMs};

/// A length of time in its two largest units, e.g. `2 h 5 min`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Age(pub(super) Duration);

impl fmt::Display for Age {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let (minutes, hours, days) =
            (seconds.div_euclid(60), seconds.div_euclid(3_600), seconds.div_euclid(86_400));
        match seconds {
            0 => write!(f, "{} ms", self.0.subsec_millis()),
            1..60 => write!(f, "{seconds} s"),
            60..3_600 => write!(f, "{minutes} min {} s", seconds.rem_euclid(60)),
            3_600..86_400 => write!(f, "{hours} h {} min", minutes.rem_euclid(60)),
            _ => write!(f, "{days} d {} h", hours.rem_euclid(24)),
        }
    }
}

impl HtmlSafe for Age {}

/// A time in UTC.
#[derive(Clone, Copy, Debug)]
pub(super) struct At(pub(super) TimestampMs);

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = self.0.to_string();
        let short = whole.get(..19).unwrap_or(&whole).replace('T', " ");
        write!(f, "<time datetime=\"{whole}\" title=\"{whole}\">{short}</time>")
    }
}

// A time has digits, letters and signs that mean nothing in HTML.
impl HtmlSafe for At {}

/// A time in UTC, and how long ago it was.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ago {
    pub(super) at: TimestampMs,
    pub(super) now: TimestampMs,
}

impl fmt::Display for Ago {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} <span class=\"ago\">", At(self.at))?;
        if self.at > self.now {
            write!(f, "in {}</span>", Age(self.at.since(self.now)))
        } else {
            write!(f, "{} ago</span>", Age(self.now.since(self.at)))
        }
    }
}

impl HtmlSafe for Ago {}

/// Whole base units with a gap between every three digits; what is copied has none.
#[derive(Clone, Debug)]
pub(super) struct Units(String);

impl Units {
    pub(super) fn of(number: impl fmt::Display) -> Self {
        Self(number.to_string())
    }
}

impl fmt::Display for Units {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sign, digits) = match self.0.strip_prefix('-') {
            Some(digits) => ("\u{2212}", digits),
            None => ("", self.0.as_str()),
        };
        if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return write!(f, "<span class=\"num\">?</span>");
        }
        write!(f, "<span class=\"num\">{sign}")?;
        let groups = digits.as_bytes().rchunks(3).rev();
        for group in groups {
            write!(f, "<span class=\"three\">{}</span>", String::from_utf8_lossy(group))?;
        }
        write!(f, "</span>")
    }
}

impl HtmlSafe for Units {}

/// An amount: how many base units of what.
#[derive(Clone, Debug)]
pub(super) struct Sum {
    pub(super) units: Units,
    pub(super) currency: CurrencyCode,
}

impl From<&Amount> for Sum {
    fn from(amount: &Amount) -> Self {
        Self { units: Units::of(amount.quantity()), currency: amount.currency().clone() }
    }
}

/// A state by name, with its reason.
#[derive(Clone, Debug)]
pub(super) struct Standing {
    pub(super) state: String,
    pub(super) reason: String,
}

impl Standing {
    /// From the form `parked(refused_by_oes)`.
    pub(super) fn of(text: &str) -> Self {
        let (state, reason) = text.split_once('(').unwrap_or((text, ""));
        Self { state: state.to_owned(), reason: reason.trim_end_matches(')').to_owned() }
    }
}

/// What a job is about, a line for each thing.
pub(super) fn terms(terms: &JobTerms) -> Vec<(&'static str, String)> {
    vec![
        ("record", terms.record_id.to_string()),
        ("client", terms.client_id.to_string()),
        ("client at the exchange", terms.partners_client_id.to_string()),
        ("connection", terms.connection_id.to_string()),
        ("connection at the exchange", terms.partners_connection_id.to_string()),
        ("record at the exchange", terms.partners_record_id.to_string()),
    ]
}

/// JSON over several lines, where it is JSON.
pub(super) fn pretty(text: &str) -> String {
    let parsed: Result<serde_json::Value, _> = serde_json::from_str(text);
    parsed
        .and_then(|value| serde_json::to_string_pretty(&value))
        .unwrap_or_else(|_| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_in_utc_and_say_how_long_ago() {
        let at: TimestampMs = "2026-11-22T08:15:30.250Z".parse().unwrap();
        let now = at.after(Duration::from_secs(3_725));
        let text = Ago { at, now }.to_string();
        assert!(text.contains(">2026-11-22 08:15:30<") && text.contains("1 h 2 min ago"), "{text}");
        let text = Ago { at: now, now: at }.to_string();
        assert!(text.contains("in 1 h 2 min"), "{text}");
        // Times that no calendar has.
        for millis in [i64::MIN, i64::MAX] {
            let at = TimestampMs::from_millis(millis);
            assert!(!Ago { at, now }.to_string().is_empty());
        }
    }

    #[test]
    fn digits_stand_in_threes_and_nothing_else_gets_through() {
        let text = Units::of("-1234567").to_string();
        assert!(text.contains("\u{2212}<span class=\"three\">1</span>"), "{text}");
        assert_eq!(text.matches("three").count(), 3);
        assert!(!Units::of("<b>").to_string().contains("<b>"));
    }

    #[test]
    fn a_state_has_its_reason_beside_it() {
        let of = |text| {
            let Standing { state, reason } = Standing::of(text);
            (state, reason)
        };
        assert_eq!(of("parked(too_old)"), ("parked".to_owned(), "too_old".to_owned()));
        assert_eq!(of("confirmed"), ("confirmed".to_owned(), String::new()));
    }
}
