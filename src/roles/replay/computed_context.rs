//! The context of a replay whose override is an expression: evaluated before the replay is planned, since planning is pure and
//! takes no time that must be bounded. Knows where the values come from; what the language may do is `expression`'s.

use crate::error::Result;
use crate::expression::{Evaluator, Input};
use crate::saga::entry::Entry;
use crate::saga::json::Json;
use crate::saga::patch::apply_override;
use crate::saga::plan::{overrides, state_at_checkpoint};
use crate::saga::request::{Override, Refusal, ReplayOrder};
use crate::wire::state::without_context;

/// The checkpoint's context with all overrides applied. `None`: there is no expression among them, or no checkpoint, which the
/// plan says itself.
pub async fn computed_context(
    expressions: &Evaluator,
    order: &ReplayOrder,
    history: &[Entry],
) -> Result<Option<std::result::Result<Json, Refusal>>> {
    if !overrides(order).any(|change| matches!(change, Override::Jq(_))) {
        return Ok(None);
    }
    let Some(state) = state_at_checkpoint(history, &order.from) else { return Ok(None) };
    let item = order.member.as_ref().and_then(|member| member.item.clone()).unwrap_or_else(Json::null);
    let saga = without_context(&state);
    let mut context = state.context;
    for change in overrides(order) {
        let changed = match change {
            Override::Jq(text) => match text.to_value().as_str() {
                Some(text) => {
                    let input = Input { context, saga: saga.clone(), item: item.clone() };
                    expressions.evaluate(text, input).await?.map_err(|failure| invalid(&failure.to_string()))
                }
                None => Err(invalid("the expression is not a text")),
            },
            other => apply_override(&context, other),
        };
        match changed {
            Ok(changed) => context = changed,
            Err(refusal) => return Ok(Some(Err(refusal))),
        }
    }
    Ok(Some(Ok(context)))
}

fn invalid(why: &str) -> Refusal {
    Refusal::new("override_invalid", format!("override.jq: {why}"))
}
