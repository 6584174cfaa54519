//! Which path leads where.

use std::sync::Arc;

use axum::{
    Router,
    extract::State,
    http::StatusCode,
    response::Response,
    routing::{MethodFilter, MethodRouter, on},
};
use uuid::Uuid;

use super::{
    answer::{Answer, Refusal},
    auth::Side,
    control, exchange,
    incoming::{Incoming, with_request_id},
    platform::Call,
    state::{SandboxState, Shared},
};
use crate::domain::job::JobType;

type Routes = MethodRouter<Arc<Shared>>;

/// What goes before every route of OES.
const PREFIX: &str = "/api/network/v1/enterprises/{enterpriseId}";

const ROUTES: [(&str, MethodFilter, Call); 13] = [
    ("/partners/allocations", MethodFilter::PUT, Call::Update(JobType::Allocation)),
    ("/partners/deallocations", MethodFilter::PUT, Call::Update(JobType::Deallocation)),
    ("/partners/allocations", MethodFilter::GET, Call::Records(Side::Partner)),
    ("/partners/allocations/{id}", MethodFilter::GET, Call::Record(Side::Partner)),
    ("/partners/connections", MethodFilter::GET, Call::Connections),
    ("/partners/connections/{id}", MethodFilter::GET, Call::Connection),
    ("/partners/balances", MethodFilter::GET, Call::PartnerBalances),
    ("/supportedCurrencies", MethodFilter::GET, Call::Currencies),
    ("/clients/connections/{id}/allocations", MethodFilter::POST, Call::Order(JobType::Allocation)),
    (
        "/clients/connections/{id}/deallocations",
        MethodFilter::POST,
        Call::Order(JobType::Deallocation),
    ),
    ("/clients/allocations", MethodFilter::GET, Call::Records(Side::Client)),
    ("/clients/allocations/{id}", MethodFilter::GET, Call::Record(Side::Client)),
    ("/clients/balances", MethodFilter::GET, Call::ClientBalances),
];

/// Everything that a sandbox serves. The routes of OES are not nested: that would cut their prefix
/// off the path, and an HMAC is over all of it.
pub(super) fn router(shared: Arc<Shared>) -> Router {
    let mut oes = Router::new();
    for (path, method, call) in ROUTES {
        oes = oes.route(&format!("{PREFIX}{path}"), answers(method, call));
    }
    oes.with_state(Arc::clone(&shared))
        .nest("/_sandbox", control::router(SandboxState(shared)))
        .fallback(|| async { no_such(StatusCode::NOT_FOUND, "there is no such route") })
        .method_not_allowed_fallback(|| async {
            let text = "the route does not have this method";
            no_such(StatusCode::METHOD_NOT_ALLOWED, text)
        })
}

fn answers(method: MethodFilter, call: Call) -> Routes {
    on(method, move |State(shared): State<Arc<Shared>>, incoming: Incoming| {
        exchange::handle(shared, call, incoming)
    })
}

fn no_such(status: StatusCode, text: &str) -> Response {
    let request_id = Uuid::new_v4().to_string();
    let refusal = Refusal::new(status.as_u16(), "NoSuchRoute", text.to_owned());
    with_request_id(Answer::refusal(&refusal, &request_id), &request_id).into_response()
}
