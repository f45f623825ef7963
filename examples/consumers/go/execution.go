package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"
)

var steps = []string{"reserve_inventory", "charge_payment", "ship_order"}

// Restored has the members of a restored saga that this engine needs. Raw JSON keeps the text of numbers.
type Restored struct {
	SagaID           string                     `json:"saga_id"`
	SagaName         string                     `json:"saga_name"`
	ReplayID         string                     `json:"replay_id"`
	Mode             string                     `json:"mode"`
	ResumeSteps      []string                   `json:"resume_steps"`
	CompletedSteps   []string                   `json:"completed_steps"`
	SkippedSteps     []string                   `json:"skipped_steps"`
	CompensatedSteps []string                   `json:"compensated_steps"`
	CompensatedSince []string                   `json:"compensated_since"`
	Results          map[string]json.RawMessage `json:"results"`
	Context          json.RawMessage            `json:"context"`
	ForceFailure     *string                    `json:"force_failure"`
}

// Event is a step event.
type Event struct {
	EventID    string          `json:"event_id"`
	SagaID     string          `json:"saga_id"`
	SagaName   string          `json:"saga_name"`
	Kind       string          `json:"kind"`
	OccurredAt time.Time       `json:"occurred_at"`
	Step       string          `json:"step,omitempty"`
	StepIndex  int             `json:"step_index,omitempty"`
	Result     json.RawMessage `json:"result,omitempty"`
	Error      *StepError      `json:"error,omitempty"`
}

// StepError is why a step failed.
type StepError struct {
	Code    string `json:"code"`
	Type    string `json:"type"`
	Message string `json:"message"`
}

// execution is one restored saga: it does its effects and collects its step events.
type execution struct {
	Restored
	ledger *Ledger
	undone map[string]bool
	events []Event
}

func resume(saga Restored, ledger *Ledger) ([]Event, error) {
	run := &execution{Restored: saga, ledger: ledger, undone: map[string]bool{}}
	for _, step := range slices.Concat(saga.CompensatedSteps, saga.CompensatedSince) {
		run.undone[step] = true
	}
	if run.Results == nil {
		run.Results = map[string]json.RawMessage{}
	}
	if saga.Mode == "compensate" {
		err := run.compensate(saga.CompletedSteps)
		return run.events, err
	}
	settled := slices.Concat(saga.CompletedSteps, saga.SkippedSteps, saga.ResumeSteps)
	todo := slices.Clone(saga.ResumeSteps)
	for _, step := range steps {
		if !slices.Contains(settled, step) {
			todo = append(todo, step)
		}
	}
	for _, step := range todo {
		failure, err := run.run(step)
		if err != nil {
			return nil, err
		}
		if failure != nil {
			run.event(Event{Kind: "STEP_FAILED", Step: step, Error: failure})
			var undo []string
			for _, step := range slices.Backward(run.CompletedSteps) {
				if !run.undone[step] {
					undo = append(undo, step)
				}
			}
			err := run.compensate(undo)
			return run.events, err
		}
	}
	run.event(Event{Kind: "SAGA_COMPLETED"})
	return run.events, nil
}

// run gives why the step failed; the error is of the engine itself.
func (run *execution) run(step string) (*StepError, error) {
	run.event(Event{Kind: "STEP_STARTED", Step: step})
	if run.ForceFailure != nil && *run.ForceFailure == step {
		return &StepError{"FORCED_FAILURE", "StepFailed", step + " failed"}, nil
	}
	result, err := run.effect(step, "run", run.Context)
	if err != nil {
		return nil, err
	}
	run.CompletedSteps = append(run.CompletedSteps, step)
	run.Results[step] = result
	delete(run.undone, step)
	run.event(Event{Kind: "STEP_COMPLETED", Step: step, Result: result})
	return nil, nil
}

func (run *execution) compensate(steps []string) error {
	run.event(Event{Kind: "COMPENSATION_STARTED"})
	for _, step := range steps {
		if _, err := run.effect(step, "compensate", run.Results[step]); err != nil {
			return err
		}
		run.event(Event{Kind: "STEP_COMPENSATED", Step: step})
	}
	run.event(Event{Kind: "SAGA_COMPENSATED"})
	return nil
}

// effect calls the outside world, here: the ledger. Send the key along as the idempotency key of a real call.
func (run *execution) effect(step, action string, input json.RawMessage) (json.RawMessage, error) {
	if !slices.Contains(steps, step) {
		return nil, fmt.Errorf("step %s is unknown to this engine", step)
	}
	key := run.ReplayID + "/" + step
	var result json.RawMessage
	if action == "compensate" {
		key += "/compensation"
	} else {
		result = json.RawMessage(fmt.Sprintf(`{"id":%q}`, key))
	}
	entry, isNew, err := run.ledger.Once(Entry{Key: key, SagaID: run.SagaID, Step: step, Action: action, Input: input, Result: result})
	if isNew {
		failPoint("after_effect")
	}
	return entry.Result, err
}

// event has no `sequence`: an undo comes under the same saga id, and one that began again would make its events look like repeats.
func (run *execution) event(event Event) {
	event.EventID = fmt.Sprintf("%s/%d", run.ReplayID, len(run.events)+1)
	event.SagaID, event.SagaName, event.OccurredAt = run.SagaID, run.SagaName, time.Now().UTC()
	if event.Step != "" {
		event.StepIndex = slices.Index(steps, event.Step) + 1
	}
	run.events = append(run.events, event)
}
