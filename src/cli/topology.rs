//! `settled topology`.

use super::output;
use crate::{broker, config::Config};

pub(super) async fn run(config: &Config) -> anyhow::Result<()> {
    for line in broker::connect_and_declare(&config.broker).await? {
        output::line(line)?;
    }
    Ok(())
}
