//! The partner's update of a record: the two PUT routes.
//!
//! The checks stand in the order in which they are made; each has its own answer. What the
//! reference leaves open is a rule.

use serde_json::{Map, Value, json};

use super::{
    answer::Refusal,
    fault::Ruling,
    platform::{Done, NONCES_MAX, NonceUse, Platform, hash},
    record::{Asked, Record, Standing, other},
    rules::{FinalRefusal, NonceRefusal, Signatures, Stance},
    signed::{Body, Field, Kind, unknown_signer},
    world::WorldError,
};
use crate::domain::{decision::Outcome, ids::RecordId, job::JobType, time::TimestampMs};

/// The fields of an update in the documented order, which is the payload's too.
const fn fields(id: &'static str, partners_id: &'static str) -> [Field; 10] {
    [
        Field::required("status", Kind::Outcome),
        Field::optional("rejectReason", Kind::Text),
        Field::required(id, Kind::Uuid),
        Field::required("amount", Kind::Amount),
        Field::required("clientId", Kind::Uuid),
        Field::required("connectionId", Kind::Uuid),
        Field::required("partnersClientId", Kind::Text),
        Field::required("partnersConnectionId", Kind::Text),
        Field::required(partners_id, Kind::Text),
        Field::required("nonce", Kind::Text),
    ]
}

const ALLOCATION: [Field; 10] = fields("allocationId", "partnersAllocationId");
const DEALLOCATION: [Field; 10] = fields("deallocationId", "partnersDeallocationId");

/// An update that is well-formed and signed.
struct Update {
    id_name: &'static str,
    partners_id_name: &'static str,
    record_id: RecordId,
    asked: Asked,
    nonce: String,
}

impl Update {
    fn read(route: JobType, body: &Body) -> Result<Self, Refusal> {
        let (id_name, partners_id_name) = match route {
            JobType::Allocation => ("allocationId", "partnersAllocationId"),
            JobType::Deallocation => ("deallocationId", "partnersDeallocationId"),
        };
        let outcome = match body.text("status").as_str() {
            "cleared" => Outcome::Cleared,
            _ => Outcome::Released,
        };
        let reject_reason = body.optional("rejectReason");
        match (outcome, &reject_reason) {
            (Outcome::Cleared, None) | (Outcome::Released, Some(_)) => {}
            (Outcome::Cleared, Some(_)) => {
                return Err(invalid("rejectReason is there, and the status is cleared"));
            }
            (Outcome::Released, None) => {
                return Err(invalid("rejectReason is missing, and the status is released"));
            }
        }
        let record_id = body.text(id_name).parse().map_err(|_| invalid("the id is not a UUID"))?;
        Ok(Self {
            id_name,
            partners_id_name,
            record_id,
            asked: Asked {
                outcome,
                reject_reason,
                partners_record_id: body.text(partners_id_name),
            },
            nonce: body.text("nonce"),
        })
    }

    /// The answer to it: what it says, without what it asks for.
    fn echo(&self, body: &Body, record: Option<&Record>) -> Value {
        let (currency, quantity) = body.amount();
        let mut echo = Map::new();
        echo.insert(self.id_name.to_owned(), json!(self.record_id));
        echo.insert("amount".to_owned(), json!({ "currency": currency, "quantity": quantity }));
        for name in [
            "clientId",
            "connectionId",
            "partnersClientId",
            "partnersConnectionId",
            self.partners_id_name,
        ] {
            echo.insert(name.to_owned(), json!(body.text(name)));
        }
        if let Some(approval) = record.and_then(|record| record.pending_approval_id.as_ref()) {
            echo.insert("pendingApprovalId".to_owned(), json!(approval));
        }
        if let Some(result) = record.and_then(|record| record.policy_result) {
            echo.insert("policyResult".to_owned(), json!(result));
        }
        Value::Object(echo)
    }
}

fn invalid(text: &str) -> Refusal {
    Refusal::new(400, "InvalidRequest", text.to_owned())
}

/// A fault of the sandbox itself.
pub(super) fn broken(error: &WorldError) -> Refusal {
    Refusal::new(500, "SandboxFault", error.to_string())
}

impl Platform {
    /// Checks and carries out an update. `ruling` is what OES does with it other than obey.
    pub(super) fn update(
        &mut self,
        route: JobType,
        bytes: &[u8],
        ruling: Ruling,
        put: u64,
        now: TimestampMs,
    ) -> Result<Done, Refusal> {
        let fields = match route {
            JobType::Allocation => &ALLOCATION,
            JobType::Deallocation => &DEALLOCATION,
        };
        let body = Body::read(bytes, fields)?;
        let update = Update::read(route, &body)?;
        let documented: Vec<&str> = fields.iter().map(|field| field.name).collect();
        body.check_payload(&documented, &[], self.rules.key_order)?;
        if self.rules.signatures == Signatures::Checked
            && !self.world.partner.public_keys.contains(&body.signer()?)
        {
            return Err(unknown_signer());
        }
        let is_repetition = self.check_nonce(&update.nonce, bytes)?;
        let record = self.world.record(update.record_id).ok_or_else(|| {
            let text = format!("there is no record {}", update.record_id);
            Refusal::new(404, "RecordNotFound", text)
        })?;
        self.check_terms(route, &update, &body, record)?;
        let verdict = if is_repetition || self.is_done(&update, put)? {
            "repeated"
        } else {
            self.rule(&update, ruling, now)?
        };
        let record = self.world.record(update.record_id);
        Ok(Done {
            status: 200,
            body: update.echo(&body, record),
            verdict,
            applied: verdict == "applied",
        })
    }

    /// Uses a nonce up. Answers whether the request repeats an applied one byte for byte and is to
    /// be answered as that was.
    fn check_nonce(&mut self, nonce: &str, bytes: &[u8]) -> Result<bool, Refusal> {
        let body_hash = hash(bytes);
        if let Some(used) = self.partner_nonces.get(nonce) {
            let is_identical = used.body_hash == body_hash;
            return match self.rules.identical_repeat {
                Stance::Accept if is_identical => Ok(used.applied),
                Stance::Accept | Stance::Refuse => {
                    let status = match self.rules.nonce_refusal {
                        NonceRefusal::Conflict => 409,
                        NonceRefusal::BadRequest => 400,
                    };
                    let text = "the nonce was used before".to_owned();
                    Err(Refusal::new(status, "NonceUsed", text))
                }
            };
        }
        if self.partner_nonces.len() >= NONCES_MAX {
            let text = format!("{NONCES_MAX} nonces are remembered: start a new sandbox");
            return Err(Refusal::new(500, "SandboxFull", text));
        }
        let first_use = NonceUse { body_hash, applied: false };
        self.partner_nonces.insert(nonce.to_owned(), first_use);
        Ok(false)
    }

    /// Checks that an update is about the record as it is.
    fn check_terms(
        &self,
        route: JobType,
        update: &Update,
        body: &Body,
        record: &Record,
    ) -> Result<(), Refusal> {
        if record.record_type != route {
            return Err(Refusal::new(
                422,
                "WrongType",
                format!("record {} is a {}", record.id, record.record_type),
            ));
        }
        let connection = self.world.connections.get(&record.connection_id);
        let partners = |id: Option<&String>| id.cloned().unwrap_or_default();
        let (currency, quantity) = body.amount();
        for (name, said, known) in [
            ("amount.currency", currency, record.partner_currency.to_string()),
            ("amount.quantity", quantity, record.quantity.to_string()),
            ("clientId", body.text("clientId"), record.client_id.to_string()),
            ("connectionId", body.text("connectionId"), record.connection_id.to_string()),
            (
                "partnersClientId",
                body.text("partnersClientId"),
                partners(connection.and_then(|known| known.partners_client_id.as_ref())),
            ),
            (
                "partnersConnectionId",
                body.text("partnersConnectionId"),
                partners(connection.and_then(|known| known.partners_connection_id.as_ref())),
            ),
            (
                update.partners_id_name,
                update.asked.partners_record_id.clone(),
                record.partners_record_id.clone(),
            ),
        ] {
            if said != known {
                return Err(Refusal::new(
                    422,
                    "TermsDiffer",
                    format!("{name} is {said:?}, and the record's is {known:?}"),
                ));
            }
        }
        Ok(())
    }

    /// Whether the record has this outcome already and the update is to be answered as if it had
    /// brought it; otherwise the record can still be updated, or the update is refused.
    fn is_done(&mut self, update: &Update, put: u64) -> Result<bool, Refusal> {
        let (id, asked) = (update.record_id, update.asked.outcome);
        let Some(record) = self.world.record(id) else {
            return Err(broken(&WorldError::NoRecord(id)));
        };
        match &record.standing {
            Standing::Reserved => Ok(false),
            Standing::AwaitingApproval(_) => Err(Refusal::new(
                409,
                "ApprovalPending",
                format!("an update of record {id} waits for an approval"),
            )),
            Standing::Final(outcome) if *outcome == asked => match self.rules.final_repeat {
                Stance::Accept => Ok(true),
                Stance::Refuse => {
                    let status = match self.rules.final_refusal {
                        FinalRefusal::Conflict => 409,
                        FinalRefusal::Unprocessable => 422,
                    };
                    let text = format!("record {id} is {outcome} already");
                    Err(Refusal::new(status, "AlreadyFinal", text))
                }
            },
            Standing::Final(outcome) => {
                let text = format!("record {id} is {outcome}, and cannot become {asked}");
                self.audit.contradicts_record(id, asked, put);
                Err(Refusal::new(409, "FinalOtherwise", text))
            }
        }
    }

    /// Does what the update asks for, or what OES does instead. Answers what was done in one word.
    fn rule(
        &mut self,
        update: &Update,
        ruling: Ruling,
        now: TimestampMs,
    ) -> Result<&'static str, Refusal> {
        let (id, asked) = (update.record_id, &update.asked);
        let done = match ruling {
            Ruling::Obey => self.world.obey(id, asked, now).map(|()| "applied"),
            Ruling::AwaitApproval => {
                let waiting = self.world.await_approval(id, asked.clone(), now);
                waiting.map(|()| "awaitingApproval")
            }
            Ruling::PolicyRejects(then) => {
                let rejected = self.world.policy_rejects(id, asked.outcome, then, now);
                rejected.map(|()| "policyRejected")
            }
            Ruling::DecideOtherwise(status) => {
                let decided = self.world.finish(id, other(asked.outcome), now);
                decided.map_err(|error| broken(&error))?;
                if status != 200 {
                    let text = format!("record {id} was ended by OES");
                    return Err(Refusal::new(status, "DecidedOtherwise", text));
                }
                Ok("decidedOtherwise")
            }
        };
        if let Some(used) = self.partner_nonces.get_mut(&update.nonce) {
            used.applied = true;
        }
        done.map_err(|error| broken(&error))
    }
}
