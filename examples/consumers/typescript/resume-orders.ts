// Resumes restored order sagas. What it must do and why: docs/consuming-restored-sagas.md.
//
// Per record: its effects, each once; then one short transaction with its step events and its input offset.
// Any error ends the process. Whoever starts it again gives it the same record again, as after a crash.

import { zstdCompressSync, zstdDecompressSync } from "node:zlib";
import kafkajs, { type EachMessagePayload } from "kafkajs";
import { Execution, type RestoredSaga, type StepEvent } from "./execution.ts";
import { failPoint } from "./fail-point.ts";
import { Ledger } from "./ledger.ts";

const { CompressionCodecs, CompressionTypes, Kafka, logLevel } = kafkajs;

const SAGA_NAME = "order-processing";

const brokers = process.env.BROKERS ?? "127.0.0.1:9092";
const groupId = process.env.GROUP_ID ?? "order-resumer";
const restoredTopic = process.env.RESTORED_TOPIC ?? "saga.restored.v1";
const eventsTopic = process.env.EVENTS_TOPIC ?? "saga.events.v1";
const sessionTimeout = Number(process.env.SESSION_TIMEOUT_MS ?? "10000");

// resaga compresses with zstd, which kafkajs does not bring along.
CompressionCodecs[CompressionTypes.ZSTD] = () => ({
  compress: async (encoder: { buffer: Buffer }) => zstdCompressSync(encoder.buffer),
  decompress: async (buffer: Buffer) => zstdDecompressSync(buffer),
});

/** Carries out one record. None come of another engine's saga and of a replay that another record brought already. */
function eventsOf({ topic, partition, message }: EachMessagePayload, ledger: Ledger): StepEvent[] {
  const saga: RestoredSaga = JSON.parse(message.value!.toString());
  if (saga.saga_name !== SAGA_NAME) {
    return [];
  }
  const position = `${topic}/${partition}/${message.offset}`;
  const taken = ledger.once({ key: saga.replay_id, position });
  // The same position again: the transaction of the first time was never committed, or its offset would be.
  return taken.entry.position === position ? new Execution(saga, ledger).resume() : [];
}

/** Commits the events and the input offset: both or neither. */
async function publish({ topic, partition, message }: EachMessagePayload, events: StepEvent[]) {
  const offset = (BigInt(message.offset) + 1n).toString();
  if (events.length === 0) {
    // kafkajs does not try sendOffsets again when it is the first call of a transaction and comes too soon after the one before.
    return consumer.commitOffsets([{ topic, partition, offset }]);
  }
  const transaction = await producer.transaction();
  await transaction.send({ topic: eventsTopic, messages: events.map((event) => ({ key: event.saga_id, value: JSON.stringify(event) })) });
  await transaction.sendOffsets({ consumerGroupId: groupId, topics: [{ topic, partitions: [{ partition, offset }] }] });
  failPoint("before_commit");
  await transaction.commit();
}

function fail(error: unknown): never {
  console.error(error);
  process.exit(1);
}

const ledger = new Ledger(process.env.LEDGER ?? "ledger.jsonl");
const kafka = new Kafka({ brokers: brokers.split(","), clientId: "resume-orders", logLevel: logLevel.WARN });
// One id per process, the same after a restart: it ends what the process before left open. The partitioner is murmur2, as of Java's producers.
const producer = kafka.producer({
  transactionalId: `${groupId}-1`,
  idempotent: true,
  maxInFlightRequests: 1,
  createPartitioner: kafkajs.Partitioners.DefaultPartitioner,
});
// read_committed is the default of kafkajs; here it is said.
const consumer = kafka.consumer({ groupId, readUncommitted: false, sessionTimeout, heartbeatInterval: sessionTimeout / 4 });
consumer.on(consumer.events.CRASH, ({ payload }) => fail(payload.error));

await producer.connect();
await consumer.connect();
await consumer.subscribe({ topics: [restoredTopic], fromBeginning: true });
for (const name of ["SIGTERM", "SIGINT"] as const) {
  process.once(name, async () => {
    // Waits for the record in hand.
    await consumer.disconnect();
    await producer.disconnect();
    process.exit(0);
  });
}
await consumer.run({
  autoCommit: false,
  eachMessage: async (payload) => {
    try {
      await publish(payload, eventsOf(payload, ledger));
    } catch (error) {
      fail(error);
    }
  },
});
