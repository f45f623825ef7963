// Resumes restored order sagas. What it must do and why: docs/consuming-restored-sagas.md.
//
// Per record: its effects, each once; then one short transaction with its step events and its input offset.
// Any error ends the process. Whoever starts it again gives it the same record again, as after a crash.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

const sagaName = "order-processing"

func env(name, otherwise string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return otherwise
}

// failPoint is for the conformance test: after_effect, before_commit. Nothing is closed, as after a kill.
func failPoint(name string) {
	if os.Getenv("FAIL_POINT") == name {
		os.Exit(137)
	}
}

// eventsOf carries out one record. None come of another engine's saga and of a replay that another record brought already.
func eventsOf(record *kgo.Record, ledger *Ledger) ([]Event, error) {
	var saga Restored
	if err := json.Unmarshal(record.Value, &saga); err != nil {
		return nil, fmt.Errorf("read restored saga: %w", err)
	}
	if saga.SagaName != sagaName {
		return nil, nil
	}
	position := fmt.Sprintf("%s/%d/%d", record.Topic, record.Partition, record.Offset)
	taken, _, err := ledger.Once(Entry{Key: saga.ReplayID, Position: position})
	if err != nil || taken.Position != position {
		return nil, err
	}
	// It is new; or at the same position again: the transaction of the first time was never committed, or its offset would be.
	return resume(saga, ledger)
}

// publish commits the events and the input offset: both or neither. The session knows what was polled.
func publish(ctx context.Context, session *kgo.GroupTransactSession, topic string, events []Event) error {
	if err := session.Begin(); err != nil {
		return err
	}
	var records []*kgo.Record
	for _, event := range events {
		value, err := json.Marshal(event)
		if err != nil {
			return err
		}
		records = append(records, &kgo.Record{Topic: topic, Key: []byte(event.SagaID), Value: value})
	}
	if err := session.ProduceSync(ctx, records...).FirstErr(); err != nil {
		return err
	}
	if len(events) > 0 {
		failPoint("before_commit")
	}
	// Not committed: the partition went to another process, which gets the record again.
	if _, err := session.End(ctx, kgo.TryCommit); err != nil {
		return err
	}
	return nil
}

func run() error {
	stopping, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	group := env("GROUP_ID", "order-resumer")
	timeout, err := strconv.Atoi(env("SESSION_TIMEOUT_MS", "10000"))
	if err != nil {
		return fmt.Errorf("SESSION_TIMEOUT_MS: %w", err)
	}
	ledger, err := OpenLedger(env("LEDGER", "ledger.jsonl"))
	if err != nil {
		return err
	}
	session, err := kgo.NewGroupTransactSession(
		kgo.SeedBrokers(env("BROKERS", "127.0.0.1:9092")),
		// One id per process, the same after a restart: it ends what the process before left open.
		kgo.TransactionalID(group+"-1"),
		kgo.ConsumerGroup(group),
		kgo.ConsumeTopics(env("RESTORED_TOPIC", "saga.restored.v1")),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.SessionTimeout(time.Duration(timeout)*time.Millisecond),
		kgo.HeartbeatInterval(time.Duration(timeout)*time.Millisecond/4),
	)
	if err != nil {
		return err
	}
	// Ends what the process before left open now, not with the first record.
	if _, _, err := session.Client().ProducerID(stopping); err != nil {
		return err
	}
	for stopping.Err() == nil {
		fetches := session.PollRecords(stopping, 1)
		if err := fetches.Err(); err != nil {
			if errors.Is(err, context.Canceled) {
				break
			}
			return err
		}
		for _, record := range fetches.Records() {
			events, err := eventsOf(record, ledger)
			if err != nil {
				return err
			}
			// Not with the context that SIGTERM ends: what has begun is brought to its end.
			if err := publish(context.Background(), session, env("EVENTS_TOPIC", "saga.events.v1"), events); err != nil {
				return err
			}
		}
	}
	session.Close()
	return nil
}

func main() {
	if err := run(); err != nil {
		log.Fatal(err)
	}
}
