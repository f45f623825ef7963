//! Whose keys these are: one text under the prefix, set once and gone with a wipe, after which whoever comes first has it.

use redis::{Pipeline, Value};

use super::client::RedisHot;
use super::values::{parse, unexpected};
use crate::error::{Error, Result};
use crate::saga::installation::Installation;

impl RedisHot {
    pub(super) async fn read_owner(&self) -> Result<Option<Installation>> {
        let mut pipeline = Pipeline::with_capacity(1);
        pipeline.cmd("GET").arg(self.keys.owner());
        let answers: Vec<Value> = self.reads.pipeline(&pipeline).await?;
        let text: Option<String> = parse(answers.into_iter().next().ok_or_else(|| unexpected("answers"))?)?;
        text.map(|text| serde_json::from_str(&text).map_err(|_| unexpected("an owner"))).transpose()
    }

    /// Asks before it writes: a store that is full is still whose it was.
    pub(super) async fn read_or_set_owner(&self, mine: &Installation) -> Result<Installation> {
        if let Some(owner) = self.read_owner().await? {
            return Ok(owner);
        }
        let text = serde_json::to_string(mine).map_err(|e| Error::bug(format!("write owner: {e}")))?;
        let mut pipeline = Pipeline::with_capacity(1);
        pipeline.cmd("SET").arg(self.keys.owner()).arg(text).arg("NX");
        self.writes.pipeline::<Vec<Value>>(&pipeline).await?;
        self.read_owner().await?.ok_or_else(|| Error::unavailable("it was wiped meanwhile"))
    }
}
