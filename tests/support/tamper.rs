//! Somebody who can write to a file of the daemon's and knows how to get round its rules.

use std::path::Path;

use sqlx::{AssertSqlSafe, Connection as _, SqliteConnection};

/// A connection that keeps none of the file's rules.
pub(crate) async fn open_without_rules(path: &Path) -> SqliteConnection {
    let url = format!("sqlite:{}", path.display());
    let mut connection = SqliteConnection::connect(&url).await.unwrap();
    let settings = "PRAGMA foreign_keys = OFF; PRAGMA ignore_check_constraints = ON";
    sqlx::raw_sql(settings).execute(&mut connection).await.unwrap();
    let triggers: Vec<(String,)> =
        sqlx::query_as("SELECT name FROM sqlite_schema WHERE type = 'trigger'")
            .fetch_all(&mut connection)
            .await
            .unwrap();
    for (name,) in triggers {
        let drop = AssertSqlSafe(format!("DROP TRIGGER {name}"));
        sqlx::raw_sql(drop).execute(&mut connection).await.unwrap();
    }
    connection
}

/// Name and declared type of each column of a table.
pub(crate) async fn columns(
    connection: &mut SqliteConnection,
    table: &str,
) -> Vec<(String, String)> {
    sqlx::query_as("SELECT name, type FROM pragma_table_info(?1)")
        .bind(table)
        .fetch_all(connection)
        .await
        .unwrap()
}

/// An SQL expression for a value that a column does not have, whatever it has.
pub(crate) fn another_value(column: &str, kind: &str) -> String {
    let with_other_end = |end: &str, or: &str| {
        format!(
            "substr({column}, 1, length({column}) - 1) || \
             CASE WHEN substr({column}, -1) = {end} THEN {or} ELSE {end} END"
        )
    };
    match kind {
        "TEXT" => format!("coalesce({}, '~')", with_other_end("'~'", "'!'")),
        "INTEGER" => format!("coalesce({column} + 1000, 1000)"),
        // One digest in 256 ends in a zero.
        "BLOB" => format!("CAST({} AS BLOB)", with_other_end("x'00'", "x'01'")),
        other => panic!("{column} is a {other}"),
    }
}

#[tokio::test]
async fn another_value_is_never_the_same() {
    let mut connection = SqliteConnection::connect("sqlite::memory:").await.unwrap();
    let create = "CREATE TABLE t (a TEXT, b INTEGER, c BLOB) STRICT;
        INSERT INTO t VALUES ('x', 1, x'0100'), ('x~', -1000, x'0101'), ('', 0, x'00'), (NULL, NULL, x'')";
    sqlx::raw_sql(create).execute(&mut connection).await.unwrap();
    for (column, kind) in columns(&mut connection, "t").await {
        let other = another_value(&column, &kind);
        let same = format!("SELECT count(*) FROM t WHERE {column} IS {other}");
        let same: i64 =
            sqlx::query_scalar(AssertSqlSafe(same)).fetch_one(&mut connection).await.unwrap();
        let update = AssertSqlSafe(format!("UPDATE t SET {column} = {other}"));
        let changed = sqlx::raw_sql(update).execute(&mut connection).await.unwrap();
        assert_eq!((same, changed.rows_affected()), (0, 4), "{column}: {other}");
    }
}
