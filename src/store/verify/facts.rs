//! What connections, currencies and limits look like, compared with the facts that were fed: they are
//! not sealed, because they follow from facts that are.

use std::collections::BTreeMap;

use futures_util::TryStreamExt as _;
use serde_json::{Map, Value};

use super::{VERIFYING, Verification};
use crate::store::{
    StoreError,
    error::{While as _, unreadable},
};

/// What is shown: which fact's, of what.
type Key = (String, String);

/// Compares every row that shows a fact with the last fact about the same thing.
pub(super) async fn verify_facts(
    connection: &mut sqlx::SqliteConnection,
    found: &mut Verification,
) -> Result<(), StoreError> {
    let mut last: BTreeMap<Key, Map<String, Value>> = BTreeMap::new();
    let mut facts = sqlx::query!(
        "SELECT kind, body FROM book_events WHERE kind NOT IN ('balance.adjusted', 'balance.snapshot')
         ORDER BY event_seq"
    )
    .fetch(&mut *connection);
    while let Some(fact) = facts.try_next().await.while_doing(VERIFYING)? {
        let mut fields = fields(&fact.body, "book_events")?;
        fields.remove("type");
        fields.remove("sequence");
        if fact.kind == "connection.suspended" {
            let key = ("connection.upserted".to_owned(), name(&fields));
            last.entry(key).or_default().insert("active".to_owned(), Value::Bool(false));
        } else {
            last.insert((fact.kind, name(&fields)), fields);
        }
    }
    drop(facts);
    for (kind, shown) in shown(connection).await? {
        let fields = fields(&shown, "connections")?;
        let name = name(&fields);
        if last.remove(&(kind.clone(), name.clone())).as_ref() != Some(&fields) {
            found.fault(format!("{kind} of {name}: the book does not show what was fed last"));
        }
    }
    for (kind, name) in last.into_keys() {
        found.fault(format!("{kind} of {name}: the book does not show it"));
    }
    Ok(())
}

/// Compares every switch with the last action on it.
pub(super) async fn verify_switches(
    connection: &mut sqlx::SqliteConnection,
    found: &mut Verification,
) -> Result<(), StoreError> {
    let wrong = sqlx::query_scalar!(
        r#"WITH known (switch) AS (VALUES ('intake'), ('signing'), ('sending')),
                last AS (SELECT switch, max(action_seq) AS action_seq FROM actions
                         WHERE kind = 'switch' GROUP BY switch)
           SELECT known.switch AS "switch!: String" FROM known
           LEFT JOIN switches ON switches.switch = known.switch
           LEFT JOIN last ON last.switch = known.switch
           LEFT JOIN actions ON actions.action_seq = last.action_seq
           WHERE switches.is_on IS NOT coalesce(actions.detail ->> 'on', 1)
              OR switches.action_seq IS NOT last.action_seq"#
    )
    .fetch_all(connection)
    .await
    .while_doing(VERIFYING)?;
    for switch in wrong {
        found.fault(format!("switch {switch}: it is not as it was set last"));
    }
    Ok(())
}

/// The rows that show facts, in the form of the facts.
async fn shown(connection: &mut sqlx::SqliteConnection) -> Result<Vec<Key>, StoreError> {
    let rows = sqlx::query!(
        r#"SELECT 'connection.upserted' AS "kind!: String",
            json_object('connectionId', connection_id, 'clientId', client_id,
                'partnersClientId', partners_client_id,
                'partnersConnectionId', partners_connection_id,
                'active', json(iif(active, 'true', 'false'))) AS "body!: String"
           FROM connections
           UNION ALL
           SELECT 'currency.configured',
            json_object('currency', currency, 'enabled', json(iif(enabled, 'true', 'false')),
                'quantityMin', quantity_min, 'quantityMax', quantity_max,
                'decimals', decimals, 'exposureMaxTotal', exposure_max_total,
                'exposureMaxPerConnection', exposure_max_per_connection,
                'dailyAllocationMaxPerConnection', daily_allocation_max_per_connection,
                'dailyDeallocationMaxPerConnection', daily_deallocation_max_per_connection,
                'approvalAbove', approval_above)
           FROM currencies
           UNION ALL
           SELECT 'connection.limited',
            json_object('connectionId', connection_id, 'currency', currency,
                'exposureMaxPerConnection', exposure_max_per_connection,
                'dailyAllocationMaxPerConnection', daily_allocation_max_per_connection,
                'dailyDeallocationMaxPerConnection', daily_deallocation_max_per_connection,
                'approvalAbove', approval_above)
           FROM connection_limits"#
    )
    .fetch_all(connection)
    .await
    .while_doing(VERIFYING)?;
    Ok(rows.into_iter().map(|row| (row.kind, row.body)).collect())
}

/// The fields that say something: what is absent in a fact is null in its row.
fn fields(json: &str, table: &'static str) -> Result<Map<String, Value>, StoreError> {
    let mut fields: Map<String, Value> =
        serde_json::from_str(json).map_err(|error| unreadable(table)(&error))?;
    fields.retain(|_, value| !value.is_null());
    Ok(fields)
}

/// What it is about: a connection, a currency, or both.
fn name(fields: &Map<String, Value>) -> String {
    let part = |field| fields.get(field).and_then(Value::as_str).unwrap_or_default();
    format!("{} {}", part("connectionId"), part("currency")).trim().to_owned()
}
