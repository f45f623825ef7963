import com.fasterxml.jackson.databind.DeserializationFeature;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.cfg.JsonNodeFeature;
import com.fasterxml.jackson.databind.json.JsonMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/**
 * Resumes restored order sagas. What it must do and why: docs/consuming-restored-sagas.md.
 *
 * <p>Per record: its effects, each once; then one short transaction with its step events and its input offset. Any error
 * ends the process. Whoever starts it again gives it the same record again, as after a crash.
 */
public final class ResumeOrders {
    /** Numbers are kept as they are written: 99.50 is no double. */
    static final JsonMapper JSON = JsonMapper.builder()
            .enable(DeserializationFeature.USE_BIG_DECIMAL_FOR_FLOATS)
            .disable(JsonNodeFeature.STRIP_TRAILING_BIGDECIMAL_ZEROES)
            .build();

    private static final String SAGA_NAME = "order-processing";

    private static volatile boolean stopping;

    private ResumeOrders() {}

    static String env(String name, String otherwise) {
        String value = System.getenv(name);
        return value == null || value.isEmpty() ? otherwise : value;
    }

    /** Of the conformance test: after_effect, before_commit. Nothing is closed, as after a kill. */
    static void failPoint(String name) {
        if (name.equals(System.getenv("FAIL_POINT"))) {
            Runtime.getRuntime().halt(137);
        }
    }

    /** Carries out one record. None come of another engine's saga and of a replay that another record brought already. */
    private static List<ObjectNode> eventsOf(ConsumerRecord<String, String> message, Ledger ledger) throws Exception {
        JsonNode saga = JSON.readTree(message.value());
        if (!saga.path("saga_name").asText().equals(SAGA_NAME)) {
            return List.of();
        }
        String position = message.topic() + "/" + message.partition() + "/" + message.offset();
        JsonNode taken = ledger.once(saga.get("replay_id").asText(), JSON.createObjectNode().put("position", position)).entry();
        // The same position again: the transaction of the first time was never committed, or its offset would be.
        return taken.get("position").asText().equals(position) ? new Execution(saga, ledger).resume() : List.of();
    }

    /** Commits the events and the input offset: both or neither. */
    private static void publish(
            KafkaProducer<String, String> producer, KafkaConsumer<String, String> consumer,
            ConsumerRecord<String, String> message, List<ObjectNode> events) throws Exception {
        producer.beginTransaction();
        for (ObjectNode event : events) {
            String topic = env("EVENTS_TOPIC", "saga.events.v1");
            producer.send(new ProducerRecord<>(topic, event.get("saga_id").asText(), JSON.writeValueAsString(event)));
        }
        var readUpTo = Map.of(new TopicPartition(message.topic(), message.partition()), new OffsetAndMetadata(message.offset() + 1));
        producer.sendOffsetsToTransaction(readUpTo, consumer.groupMetadata());
        if (!events.isEmpty()) {
            producer.flush();
            failPoint("before_commit");
        }
        producer.commitTransaction();
    }

    private static void run() throws Exception {
        String brokers = env("BROKERS", "127.0.0.1:9092");
        String group = env("GROUP_ID", "order-resumer");
        int sessionTimeout = Integer.parseInt(env("SESSION_TIMEOUT_MS", "10000"));
        // One id per process, the same after a restart: it ends what the process before left open.
        Map<String, Object> forProducer = Map.of("bootstrap.servers", brokers, "transactional.id", group + "-1");
        // One record a poll: max.poll.interval.ms then counts for one saga.
        Map<String, Object> forConsumer = Map.of(
                "bootstrap.servers", brokers, "group.id", group, "isolation.level", "read_committed", "enable.auto.commit", false,
                "auto.offset.reset", "earliest", "max.poll.records", 1,
                "session.timeout.ms", sessionTimeout, "heartbeat.interval.ms", sessionTimeout / 4);
        try (var ledger = new Ledger(env("LEDGER", "ledger.jsonl"));
                var producer = new KafkaProducer<>(forProducer, new StringSerializer(), new StringSerializer());
                var consumer = new KafkaConsumer<>(forConsumer, new StringDeserializer(), new StringDeserializer())) {
            producer.initTransactions();
            consumer.subscribe(List.of(env("RESTORED_TOPIC", "saga.restored.v1")));
            while (!stopping) {
                for (ConsumerRecord<String, String> message : consumer.poll(Duration.ofMillis(200))) {
                    if (stopping) {
                        break;
                    }
                    publish(producer, consumer, message, eventsOf(message, ledger));
                }
            }
        }
    }

    public static void main(String[] arguments) {
        var ended = new CountDownLatch(1);
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            stopping = true;
            try {
                ended.await(15, TimeUnit.SECONDS);
            } catch (InterruptedException e) {
                Thread.currentThread().interrupt();
            }
        }));
        try {
            run();
            ended.countDown();
        } catch (Exception e) {
            e.printStackTrace();
            Runtime.getRuntime().halt(1);
        }
    }
}
