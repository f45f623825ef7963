import { fsyncSync, ftruncateSync, openSync, readFileSync, writeSync } from "node:fs";

/** A replay id with the position of the record that brought it, or an effect. */
export interface Entry {
  key: string;
  position?: string;
  saga_id?: string;
  step?: string;
  action?: string;
  input?: unknown;
  result?: unknown;
}

/** What was done, a JSON line each, on disk before anything builds on it. In production: a table with `key` as primary key. */
export class Ledger {
  private readonly file: number;
  private readonly entries = new Map<string, Entry>();

  constructor(path: string) {
    this.file = openSync(path, "a+");
    const content = readFileSync(path);
    // A crash may have left half a line.
    const whole = content.subarray(0, content.lastIndexOf("\n") + 1);
    ftruncateSync(this.file, whole.length);
    for (const line of whole.toString().split("\n").slice(0, -1)) {
      const entry: Entry = JSON.parse(line);
      this.entries.set(entry.key, entry);
    }
  }

  /** The entry that the ledger has under this key, this one if it had none; and whether it is new. */
  once(entry: Entry): { entry: Entry; isNew: boolean } {
    const found = this.entries.get(entry.key);
    if (found !== undefined) {
      return { entry: found, isNew: false };
    }
    writeSync(this.file, `${JSON.stringify(entry)}\n`);
    fsyncSync(this.file);
    this.entries.set(entry.key, entry);
    return { entry, isNew: true };
  }
}
