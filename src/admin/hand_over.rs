//! `store hand-over`: an archive is another installation's from now on.

use crate::cold::owner;
use crate::config::Config;
use crate::kafka::ends::Ends;
use crate::serve::installation;

/// Gives the archive to the installation that the configuration names; tells what it did.
pub async fn hand_over(config: &Config, requested_by: &str, reason: &str) -> anyhow::Result<String> {
    let objects = crate::cold::open(&config.cold).await?;
    let mine = installation(config, &Ends::new(&config.kafka)?).await?;
    let before = owner::hand_over(&*objects, &mine, (requested_by, reason)).await?;
    Ok(format!("the archive belongs to this installation now ({mine}), no longer to {before}"))
}
