package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
)

// Entry is one line of the ledger: a replay id with the position of the record that brought it, or an effect.
type Entry struct {
	Key      string          `json:"key"`
	Position string          `json:"position,omitempty"`
	SagaID   string          `json:"saga_id,omitempty"`
	Step     string          `json:"step,omitempty"`
	Action   string          `json:"action,omitempty"`
	Input    json.RawMessage `json:"input,omitempty"`
	Result   json.RawMessage `json:"result,omitempty"`
}

// Ledger is what was done, on disk before anything builds on it. In production: a table with the key as primary key.
type Ledger struct {
	file    *os.File
	entries map[string]Entry
}

// OpenLedger reads what is there. A crash may have left half a line, which is cut off.
func OpenLedger(path string) (*Ledger, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return nil, err
	}
	content, err := io.ReadAll(file)
	if err != nil {
		return nil, err
	}
	whole := content[:bytes.LastIndexByte(content, '\n')+1]
	if err := file.Truncate(int64(len(whole))); err != nil {
		return nil, err
	}
	ledger := &Ledger{file, map[string]Entry{}}
	for line := range bytes.Lines(whole) {
		var entry Entry
		if err := json.Unmarshal(line, &entry); err != nil {
			return nil, fmt.Errorf("read ledger: %w", err)
		}
		ledger.entries[entry.Key] = entry
	}
	return ledger, nil
}

// Once gives the entry that the ledger has under this key, this one if it had none; and whether it is new.
func (ledger *Ledger) Once(entry Entry) (Entry, bool, error) {
	if found, there := ledger.entries[entry.Key]; there {
		return found, false, nil
	}
	line, err := json.Marshal(entry)
	if err != nil {
		return entry, false, err
	}
	if _, err := ledger.file.Write(append(line, '\n')); err != nil {
		return entry, false, err
	}
	if err := ledger.file.Sync(); err != nil {
		return entry, false, err
	}
	ledger.entries[entry.Key] = entry
	return entry, true, nil
}
