//! `settled topology`.

use super::output;
use crate::{broker, config::Config};

pub(super) async fn run(config: &Config) -> anyhow::Result<()> {
    let connection = broker::connect(&config.broker, "topology").await?;
    let declared = broker::declare(&connection, &config.broker).await;
    broker::close(&connection, config.broker.call_timeout()).await;
    for line in declared? {
        output::line(line)?;
    }
    Ok(())
}
