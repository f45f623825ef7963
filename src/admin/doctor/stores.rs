//! Both stores: do they answer, are they fit for use, whose are they, and does the archive agree with the log?

use super::chains;
use super::check::{Check, Verdict, ok, problem, warning};
use crate::cold::owner;
use crate::config::Config;
use crate::error::Error;
use crate::hot::check_owner;
use crate::saga::installation::Installation;

pub async fn hot(config: &Config, mine: Option<&Installation>, checks: &mut Vec<Check>) {
    let look = async {
        let hot = crate::hot::open(&config.hot)?;
        let (health, owner) = (hot.health().await?, hot.owner().await?);
        hot.takes_writes().await?;
        Ok::<_, Error>((health, owner))
    };
    match look.await {
        Err(error) => checks.push(problem("hot store", &error)),
        Ok((health, owner)) => {
            if let (Some(owner), Some(mine)) = (owner, mine)
                && let Err(error) = check_owner(&owner, mine)
            {
                checks.push(problem("hot store", &error));
            }
            checks.push(ok("hot store", "answers and takes writes"));
            for text in health.problems {
                checks.push(problem("hot store", &Error::invalid("hot_store_unfit", text)));
            }
            for hint in health.hints {
                checks.push(warning("hot store", hint, "see docs/operations.md"));
            }
        }
    }
}

/// Every partition's chain against what the log still has.
pub async fn cold(config: &Config, counts: Option<&[(String, i32)]>, mine: Option<&Installation>, checks: &mut Vec<Check>) {
    let objects = match crate::cold::open(&config.cold).await {
        Ok(objects) => objects,
        Err(error) => return checks.push(problem("cold store", &error)),
    };
    let looked = owner::look(&*objects).await.and_then(|owners| mine.map_or(Ok(()), |mine| owners.check(mine)));
    if let Err(error) = looked {
        return checks.push(problem("cold store", &error));
    }
    checks.push(ok("cold store", "answers, and never writes over an object that is there"));
    let Some(counts) = counts else { return };
    match chains::disagreements(config, counts, objects).await {
        Err(error) => checks.push(problem("chains", &error)),
        Ok(found) if found.is_empty() => checks.push(ok("chains", "every chain ends inside its partition's log")),
        Ok(found) => {
            for (partition, code, reason) in found {
                if code == chains::NO_LEADER {
                    checks.push(Check {
                        remedy: Some("bring back the broker that has it; the other partitions go on meanwhile".into()),
                        ..problem("chains", &Error::unavailable(format!("{partition} is not led by any broker: {reason}")))
                    });
                    continue;
                }
                checks.push(Check {
                    check: "chains".into(),
                    verdict: Verdict::Problem,
                    detail: format!("{partition} is stopped ({code}): {reason}"),
                    remedy: Some(format!(
                        "if the offsets cannot be brought back: resaga store accept-gap {} {} --reason ... --yes",
                        partition.topic, partition.partition
                    )),
                    exit: None,
                });
            }
        }
    }
}
