//! A request as the sandbox looks at it.

use std::collections::HashMap;

use axum::{
    body::Bytes,
    extract::{FromRequest, Query, RawPathParams, Request},
    http::{HeaderMap, StatusCode, header::CONTENT_TYPE},
    response::Response,
};
use uuid::Uuid;

use super::{
    answer::{Answer, Refusal},
    rules::Rules,
    wire::Reset,
};
use crate::domain::ids::RecordId;

/// Largest body of a request, in bytes: the longest fields, escaped twice, with room to spare.
pub const BODY_BYTES_MAX: usize = 256 * 1_024;

/// Most values of one filter.
const FILTER_VALUES_MAX: usize = 1_000;

/// A request.
#[derive(Debug)]
pub(super) struct Incoming {
    pub(super) request_id: String,
    /// As the request line has it; an HMAC is over this text.
    pub(super) path_and_query: String,
    pub(super) enterprise_id: String,
    /// The last id in the path: a record's or a connection's.
    pub(super) id: String,
    query: Vec<(String, String)>,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    pub(super) reset: Reset,
}

impl<S: Send + Sync> FromRequest<S> for Incoming {
    type Rejection = Response;

    async fn from_request(request: Request, state: &S) -> Result<Self, Response> {
        let request_id = Uuid::new_v4().to_string();
        let refused = |status: StatusCode, name: &'static str, error: String| {
            let refusal = Refusal::new(status.as_u16(), name, error);
            with_request_id(Answer::refusal(&refusal, &request_id), &request_id).into_response()
        };
        let (mut parts, body) = request.into_parts();
        let query = Query::<Vec<(String, String)>>::try_from_uri(&parts.uri)
            .map_err(|error| refused(StatusCode::BAD_REQUEST, "InvalidQuery", error.to_string()))?
            .0;
        let path: HashMap<String, String> =
            <RawPathParams as axum::extract::FromRequestParts<S>>::from_request_parts(
                &mut parts, state,
            )
            .await
            .map_err(axum::response::IntoResponse::into_response)?
            .iter()
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let body = axum::body::to_bytes(body, BODY_BYTES_MAX).await.map_err(|error| {
            let text = format!("the body cannot be read, or is too large: {error}");
            refused(StatusCode::PAYLOAD_TOO_LARGE, "BodyTooLarge", text)
        })?;
        let part = |name: &str| path.get(name).cloned().unwrap_or_default();
        Ok(Self {
            path_and_query: parts
                .uri
                .path_and_query()
                .map_or_else(String::new, ToString::to_string),
            enterprise_id: part("enterpriseId"),
            id: part("id"),
            query,
            reset: parts.extensions.get().cloned().unwrap_or_default(),
            headers: parts.headers,
            body,
            request_id,
        })
    }
}

/// Every answer tells the request's id.
pub(super) fn with_request_id(mut answer: Answer, request_id: &str) -> Answer {
    answer.put("request-id", request_id);
    answer
}

fn bad_query(text: String) -> Refusal {
    Refusal::new(400, "InvalidQuery", text)
}

impl Incoming {
    pub(super) fn check_is_json(&self) -> Result<(), Refusal> {
        let content_type = self
            .headers
            .get(CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.split(';').next())
            .unwrap_or_default();
        if content_type.trim().eq_ignore_ascii_case("application/json") {
            Ok(())
        } else {
            Err(Refusal::new(
                400,
                "InvalidRequest",
                "the content type is not application/json".to_owned(),
            ))
        }
    }

    /// Record ids in a filter, those that are ones.
    pub(super) fn ids(&self, name: &str) -> Vec<RecordId> {
        let values = self.query.iter().filter(|(key, _)| key == name);
        values
            .flat_map(|(_, value)| value.split(','))
            .filter_map(|text| text.parse().ok())
            .collect()
    }

    /// The query, if it has no parameter but these, each once.
    pub(super) fn filters(&self, known: &[&str]) -> Result<Filters<'_>, Refusal> {
        let mut values = HashMap::new();
        for (name, value) in &self.query {
            if !known.contains(&name.as_str()) {
                return Err(bad_query(format!("{name} is not a parameter of this route")));
            }
            if values.insert(name.as_str(), value.as_str()).is_some() {
                return Err(bad_query(format!(
                    "{name} is there twice; its values are separated by commas"
                )));
            }
        }
        Ok(Filters(values))
    }
}

/// The parameters of a read.
#[derive(Debug)]
pub(super) struct Filters<'a>(HashMap<&'a str, &'a str>);

/// A part of a list.
#[derive(Clone, Copy, Debug)]
pub(super) struct Page {
    skip: usize,
    size: usize,
}

impl Page {
    pub(super) fn of<T>(self, items: impl IntoIterator<Item = T>) -> Vec<T> {
        items.into_iter().skip(self.skip).take(self.size).collect()
    }
}

impl<'a> Filters<'a> {
    pub(super) fn one(&self, name: &str) -> Option<&'a str> {
        self.0.get(name).copied()
    }

    /// The values of a filter; nothing if it is not there.
    pub(super) fn list(&self, name: &str) -> Result<Option<Vec<&'a str>>, Refusal> {
        let Some(text) = self.one(name) else {
            return Ok(None);
        };
        let values: Vec<&str> = text.split(',').collect();
        if values.len() > FILTER_VALUES_MAX {
            return Err(bad_query(format!(
                "{name} has {} values, and at most {FILTER_VALUES_MAX} are accepted",
                values.len()
            )));
        }
        if values.iter().any(|value| value.is_empty()) {
            return Err(bad_query(format!("{name} has an empty value")));
        }
        Ok(Some(values))
    }

    /// The same for UUIDs.
    pub(super) fn uuids(&self, name: &str) -> Result<Option<Vec<Uuid>>, Refusal> {
        let Some(values) = self.list(name)? else {
            return Ok(None);
        };
        let uuids = values.into_iter().map(|text| {
            Uuid::try_parse(text).map_err(|_| bad_query(format!("{name}: {text:?} is no UUID")))
        });
        uuids.collect::<Result<_, _>>().map(Some)
    }

    /// The same for words out of a list of known ones.
    pub(super) fn words(
        &self,
        name: &str,
        known: &[&str],
    ) -> Result<Option<Vec<&'a str>>, Refusal> {
        let values = self.list(name)?;
        for word in values.iter().flatten() {
            if !known.contains(word) {
                return Err(bad_query(format!("{name}: {word:?} is not one of {known:?}")));
            }
        }
        Ok(values)
    }

    /// Which part of the list is asked for.
    pub(super) fn page(&self, rules: &Rules) -> Result<Page, Refusal> {
        let number = |name: &str| match self.one(name) {
            None => Ok(None),
            Some(text) => text
                .parse::<usize>()
                .map(Some)
                .map_err(|_| bad_query(format!("{name}: {text:?} is not a whole number"))),
        };
        let size = number("pageSize")?.unwrap_or(rules.page_size_default);
        if size == 0 {
            return Err(bad_query("pageSize is 0".to_owned()));
        }
        let size = size.min(rules.page_size_max);
        let page = number("pageNumber")?.unwrap_or(0);
        Ok(Page { skip: page.saturating_mul(size), size })
    }
}
