//! What goes back: answers, refusals, and records as OES shows them.

use axum::{
    body::{Body, Bytes},
    http::{
        HeaderMap, HeaderName, HeaderValue, StatusCode,
        header::{CONTENT_LENGTH, CONTENT_TYPE},
    },
    response::Response,
};
use futures_util::{StreamExt as _, stream};
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    record::{PolicyResult, Record, Standing},
    rules::{ReadAmounts, ReservedPartnerId},
};

/// What a reserved record says about why it is not cleared.
const WAITING_FOR_PARTNER: &str = "Waiting for the partner.";

/// The same while an approval is pending.
const WAITING_FOR_APPROVAL: &str = "Waiting for an approval.";

/// A request that is not carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: u16,
    /// The kind of fault in one word.
    pub(super) name: &'static str,
    /// What exactly is wrong, for a reader.
    pub(super) error: String,
    /// The value of `Retry-After`.
    pub(super) retry_after: Option<String>,
}

impl Refusal {
    pub(super) fn new(status: u16, name: &'static str, error: String) -> Self {
        Self { status, name, error, retry_after: None }
    }
}

/// An answer that was not written yet.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
}

impl Answer {
    pub(super) fn json(status: u16, value: &Value) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Self { status, headers, body: value.to_string().into_bytes() }
    }

    pub(super) fn refusal(refusal: &Refusal, request_id: &str) -> Self {
        let body = json!({
            "error": refusal.error,
            "name": refusal.name,
            "requestId": request_id,
        });
        let mut answer = Self::json(refusal.status, &body);
        if let Some(retry_after) = &refusal.retry_after {
            answer.put("retry-after", retry_after);
        }
        answer
    }

    /// A page as something between client and server answers with.
    pub(super) fn html(status: u16) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html"));
        let body =
            format!("<html><head><title>{status}</title></head><body>{status}</body></html>");
        Self { status, headers, body: body.into_bytes() }
    }

    /// Adds a header; one that cannot be written is left out.
    pub(super) fn put(&mut self, name: &'static str, text: &str) {
        if let Ok(value) = HeaderValue::try_from(text) {
            self.headers.insert(HeaderName::from_static(name), value);
        }
    }

    pub(super) fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.body));
        *response.status_mut() =
            StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        *response.headers_mut() = self.headers;
        response
    }

    /// The same with half of its body, though the headers promise all of it.
    pub(super) fn into_truncated_response(mut self) -> Response {
        self.headers.insert(CONTENT_LENGTH, HeaderValue::from(self.body.len()));
        let half = self.body.len().div_euclid(2);
        let body = std::mem::take(&mut self.body);
        let sent = Bytes::copy_from_slice(body.get(..half).unwrap_or_default());
        let begin = stream::iter([Ok::<_, std::io::Error>(sent)]);
        // The first half is only written out while the body has nothing to give, so the end waits.
        let end = stream::once(async {
            tokio::task::yield_now().await;
            Err(std::io::Error::other("cut off on purpose"))
        });
        let mut response = self.into_response();
        *response.body_mut() = Body::from_stream(begin.chain(end));
        response
    }
}

/// Who reads a record: currencies have another name for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reader {
    Client,
    Partner(ReadAmounts, u8, ReservedPartnerId),
}

#[derive(Serialize)]
struct AmountView {
    currency: String,
    quantity: String,
}

/// A record as reads show it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RecordView<'a> {
    id: String,
    amount: AmountView,
    connection_id: String,
    client_external_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    partner_external_id: Option<&'a str>,
    initiated_by: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    notes: Option<&'a str>,
    created_at: String,
    updated_at: String,
    retriable: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pending_approval_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    policy_result: Option<PolicyResult>,
    reason: Option<&'a str>,
    status: &'static str,
    #[serde(rename = "type")]
    record_type: &'static str,
}

/// A record as reads show it.
pub(super) fn record_view(record: &Record, reader: Reader) -> Value {
    let (currency, quantity) = match reader {
        Reader::Client => (&record.currency, record.quantity.to_string()),
        Reader::Partner(ReadAmounts::BaseUnits, ..) => {
            (&record.partner_currency, record.quantity.to_string())
        }
        Reader::Partner(ReadAmounts::Decimals, decimals, _) => {
            (&record.partner_currency, record.quantity.to_decimal(decimals))
        }
    };
    let reason = match &record.standing {
        Standing::Reserved => Some(record.reason.as_deref().unwrap_or(WAITING_FOR_PARTNER)),
        Standing::AwaitingApproval(_) => Some(WAITING_FOR_APPROVAL),
        Standing::Final(_) => record.reason.as_deref(),
    };
    let view = RecordView {
        id: record.id.to_string(),
        amount: AmountView { currency: currency.to_string(), quantity },
        connection_id: record.connection_id.to_string(),
        client_external_id: &record.client_external_id,
        partner_external_id: match reader {
            Reader::Partner(.., ReservedPartnerId::Shown) => {
                Some(record.partners_record_id.as_str())
            }
            Reader::Partner(.., ReservedPartnerId::Absent) | Reader::Client => {
                record.partner_external_id.as_deref()
            }
        },
        initiated_by: &record.initiated_by,
        notes: record.notes.as_deref(),
        created_at: record.created_at.to_string(),
        updated_at: record.updated_at.to_string(),
        retriable: false,
        pending_approval_id: record.pending_approval_id.as_deref(),
        policy_result: record.policy_result,
        reason,
        status: record.standing.status(),
        record_type: record.record_type.as_str(),
    };
    serde_json::to_value(view).unwrap_or_default()
}
