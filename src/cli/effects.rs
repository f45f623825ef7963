//! Warnings before steps with effects outside run again: what the server says of declared effects, in words.

use serde_json::Value;

/// One line for each effect of a dry run's answer or a batch's plan. `compensates`: the steps are not to run, but to be compensated.
pub fn warnings(answer: &Value, compensates: bool) -> Vec<String> {
    let what = if compensates { "is to be compensated" } else { "happens again" };
    let line = |effect: &Value| {
        let text = |name: &str| super::output::visible(effect[name].as_str().unwrap_or_default());
        let often = effect["count"].as_u64().map_or_else(String::new, |count| format!(", {}", times(count)));
        format!("{what}: {}: {}{often}", text("step"), text("effect"))
    };
    answer["effects"].as_array().into_iter().flatten().map(line).collect()
}

/// `1,500 times`.
fn times(count: u64) -> String {
    let digits = count.to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    if count == 1 { "once".to_owned() } else { format!("{grouped} times") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_effect_is_told_with_how_often_it_happens() {
        let plan = json!({"effects": [{"step": "charge_payment", "effect": "charges the card", "count": 1_500}]});
        assert_eq!(warnings(&plan, false), ["happens again: charge_payment: charges the card, 1,500 times"]);
        let plan = json!({"effects": [{"step": "charge\u{1b}", "effect": "charges the card"}]});
        assert_eq!(warnings(&plan, true), ["is to be compensated: charge\\u{1b}: charges the card"]);
        assert_eq!(warnings(&json!({}), false), Vec::<String>::new());
    }

    #[test]
    fn large_numbers_are_grouped() {
        let texts = [1, 2, 999, 1_000, 12_345, 1_000_000].map(times);
        assert_eq!(texts, ["once", "2 times", "999 times", "1,000 times", "12,345 times", "1,000,000 times"]);
    }
}
