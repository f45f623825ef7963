import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.IOException;
import java.time.Instant;
import java.util.ArrayList;
import java.util.Collections;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;

/** One restored saga: does its effects and collects its step events. */
final class Execution {
    private static final List<String> STEPS = List.of("reserve_inventory", "charge_payment", "ship_order");

    private static final class StepFailed extends Exception {
        private static final long serialVersionUID = 1;

        StepFailed(String code) {
            super(code);
        }
    }

    private final JsonNode saga;
    private final Ledger ledger;
    private final List<ObjectNode> events = new ArrayList<>();
    private final List<String> completed;
    private final Map<String, JsonNode> results = new HashMap<>();
    private final Set<String> undone = new HashSet<>();

    Execution(JsonNode saga, Ledger ledger) {
        this.saga = saga;
        this.ledger = ledger;
        completed = steps("completed_steps");
        saga.get("results").properties().forEach(member -> results.put(member.getKey(), member.getValue()));
        undone.addAll(steps("compensated_steps"));
        undone.addAll(steps("compensated_since"));
    }

    List<ObjectNode> resume() throws IOException {
        if (saga.get("mode").asText().equals("compensate")) {
            compensate(completed);
            return events;
        }
        List<String> todo = steps("resume_steps");
        for (String step : STEPS) {
            if (!todo.contains(step) && !completed.contains(step) && !steps("skipped_steps").contains(step)) {
                todo.add(step);
            }
        }
        for (String step : todo) {
            try {
                run(step);
            } catch (StepFailed failure) {
                ObjectNode error = event("STEP_FAILED", step).putObject("error");
                error.put("code", failure.getMessage()).put("type", "StepFailed").put("message", step + " failed");
                List<String> undo = new ArrayList<>(completed);
                undo.removeAll(undone);
                Collections.reverse(undo);
                compensate(undo);
                return events;
            }
        }
        event("SAGA_COMPLETED", null);
        return events;
    }

    private void run(String step) throws IOException, StepFailed {
        event("STEP_STARTED", step);
        if (step.equals(saga.get("force_failure").asText(null))) {
            throw new StepFailed("FORCED_FAILURE");
        }
        JsonNode result = effect(step, "run", saga.get("context"));
        completed.add(step);
        results.put(step, result);
        undone.remove(step);
        event("STEP_COMPLETED", step).set("result", result);
    }

    private void compensate(List<String> steps) throws IOException {
        event("COMPENSATION_STARTED", null);
        for (String step : steps) {
            effect(step, "compensate", results.get(step));
            event("STEP_COMPENSATED", step);
        }
        event("SAGA_COMPENSATED", null);
    }

    /** Calls the outside world, here: the ledger. Send {@code key} along as the idempotency key of a real call. */
    private JsonNode effect(String step, String action, JsonNode given) throws IOException {
        if (!STEPS.contains(step)) {
            throw new IllegalArgumentException("step " + step + " is unknown to this engine");
        }
        String key = saga.get("replay_id").asText() + "/" + step + (action.equals("compensate") ? "/compensation" : "");
        ObjectNode entry = ResumeOrders.JSON.createObjectNode();
        entry.put("saga_id", saga.get("saga_id").asText()).put("step", step).put("action", action).set("input", given);
        if (action.equals("run")) {
            entry.putObject("result").put("id", key);
        }
        Ledger.Entry taken = ledger.once(key, entry);
        if (taken.isNew()) {
            ResumeOrders.failPoint("after_effect");
        }
        return taken.entry().get("result");
    }

    /** No `sequence`: an undo comes under the same saga id, and one that began again would make its events look like repeats. */
    private ObjectNode event(String kind, String step) {
        ObjectNode event = ResumeOrders.JSON.createObjectNode();
        event.put("event_id", saga.get("replay_id").asText() + "/" + (events.size() + 1));
        event.put("saga_id", saga.get("saga_id").asText()).put("saga_name", saga.get("saga_name").asText());
        event.put("kind", kind).put("occurred_at", Instant.now().toString());
        if (step != null) {
            event.put("step", step).put("step_index", STEPS.indexOf(step) + 1);
        }
        events.add(event);
        return event;
    }

    private List<String> steps(String member) {
        List<String> steps = new ArrayList<>();
        saga.get(member).forEach(step -> steps.add(step.asText()));
        return steps;
    }
}
