import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonGenerator;
import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonToken;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.HashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Properties;
import java.util.Random;
import java.util.Set;
import java.util.concurrent.atomic.AtomicLong;
import java.util.function.Function;
import java.util.stream.Collectors;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AdminClientConfig;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.processor.api.ContextualProcessor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.query.StateQueryRequest;
import org.apache.kafka.streams.query.VersionedKeyQuery;
import org.apache.kafka.streams.state.Stores;
import org.apache.kafka.streams.state.VersionedKeyValueStore;
import org.apache.kafka.streams.state.VersionedRecord;

/**
 * Folds saga step events into a versioned store and prints what that cost, as one line of JSON.
 *
 * <p>Arguments: BROKERS TOPIC EVENTS GUARANTEE STATE_DIRECTORY APPLICATION_ID [--query].
 */
public final class Peer {
    private static final String STORE = "history";
    private static final Duration RETENTION = Duration.ofDays(1);
    private static final Duration STALLED = Duration.ofSeconds(180);
    private static final int QUERIES = 10_000;
    private static final int WARM_UP = 2_000;
    private static final JsonFactory JSON = new JsonFactory();

    private static final AtomicLong folded = new AtomicLong();
    private static final List<Sample> samples = Collections.synchronizedList(new ArrayList<>());

    /** A moment of a saga that can be asked for later. */
    record Sample(String saga, long millis) {}

    /** What is kept of an event; the context is not taken apart. */
    record Event(String kind, String step, long millis, String context) {
        static Event parse(byte[] json) {
            String kind = null;
            String step = null;
            String context = null;
            long millis = 0;
            try (JsonParser parser = JSON.createParser(json)) {
                parser.nextToken();
                while (parser.nextToken() == JsonToken.FIELD_NAME) {
                    String field = parser.currentName();
                    parser.nextToken();
                    switch (field) {
                        case "kind" -> kind = parser.getText();
                        case "step" -> step = parser.getText();
                        case "occurred_at" -> millis = Instant.parse(parser.getText()).toEpochMilli();
                        case "context" -> context = span(parser, json);
                        default -> parser.skipChildren();
                    }
                }
            } catch (IOException error) {
                throw new UncheckedIOException(error);
            }
            return new Event(kind, step, millis, context);
        }
    }

    /** A saga's state; stored as JSON. */
    record State(String status, List<String> completed, List<String> failed, String context) {
        static final State NONE = new State("", List.of(), List.of(), "{}");

        State fold(Event event) {
            String after = event.context() == null ? context : event.context();
            return switch (event.kind()) {
                case "SAGA_STARTED", "STEP_STARTED" -> new State("RUNNING", completed, failed, after);
                case "STEP_COMPLETED" -> new State("RUNNING", with(completed, event.step()), without(failed, event.step()), after);
                case "STEP_FAILED" -> new State("RUNNING", completed, with(failed, event.step()), after);
                case "SAGA_COMPLETED" -> new State("COMPLETED", completed, failed, after);
                case "SAGA_FAILED" -> new State("FAILED", completed, failed, after);
                default -> throw new IllegalArgumentException("an event of the unknown kind " + event.kind());
            };
        }

        private static List<String> with(List<String> steps, String step) {
            if (steps.contains(step)) {
                return steps;
            }
            List<String> more = new ArrayList<>(steps);
            more.add(step);
            return more;
        }

        private static List<String> without(List<String> steps, String step) {
            return steps.contains(step) ? steps.stream().filter(other -> !other.equals(step)).toList() : steps;
        }

        byte[] write() {
            var out = new ByteArrayOutputStream(2048);
            try (var json = JSON.createGenerator(out)) {
                json.writeStartObject();
                json.writeStringField("status", status);
                writeSteps(json, "completed", completed);
                writeSteps(json, "failed", failed);
                json.writeFieldName("context");
                json.writeRawValue(context);
                json.writeEndObject();
            } catch (IOException error) {
                throw new UncheckedIOException(error);
            }
            return out.toByteArray();
        }

        private static void writeSteps(JsonGenerator json, String name, List<String> steps) throws IOException {
            json.writeArrayFieldStart(name);
            for (String step : steps) {
                json.writeString(step);
            }
            json.writeEndArray();
        }

        static State read(byte[] json) {
            if (json == null) {
                return null;
            }
            String status = "";
            List<String> completed = new ArrayList<>();
            List<String> failed = new ArrayList<>();
            String context = "{}";
            try (JsonParser parser = JSON.createParser(json)) {
                parser.nextToken();
                while (parser.nextToken() == JsonToken.FIELD_NAME) {
                    String field = parser.currentName();
                    parser.nextToken();
                    switch (field) {
                        case "status" -> status = parser.getText();
                        case "completed" -> readSteps(parser, completed);
                        case "failed" -> readSteps(parser, failed);
                        case "context" -> context = span(parser, json);
                        default -> parser.skipChildren();
                    }
                }
            } catch (IOException error) {
                throw new UncheckedIOException(error);
            }
            return new State(status, completed, failed, context);
        }

        private static void readSteps(JsonParser parser, List<String> steps) throws IOException {
            while (parser.nextToken() != JsonToken.END_ARRAY) {
                steps.add(parser.getText());
            }
        }
    }

    /** The text of the value at which the parser stands. */
    private static String span(JsonParser parser, byte[] json) throws IOException {
        int begin = (int) parser.currentTokenLocation().getByteOffset();
        parser.skipChildren();
        int end = (int) parser.currentLocation().getByteOffset();
        return new String(json, begin, end - begin, StandardCharsets.UTF_8);
    }

    private static final class Fold extends ContextualProcessor<String, Event, Void, Void> {
        private final long sampleEvery;
        private VersionedKeyValueStore<String, State> store;
        private long seen;

        Fold(long sampleEvery) {
            this.sampleEvery = sampleEvery;
        }

        @Override
        public void init(ProcessorContext<Void, Void> context) {
            super.init(context);
            store = context.getStateStore(STORE);
        }

        @Override
        public void process(Record<String, Event> record) {
            VersionedRecord<State> before = store.get(record.key());
            State state = before == null ? State.NONE : before.value();
            store.put(record.key(), state.fold(record.value()), record.timestamp());
            if (seen++ % sampleEvery == 0) {
                samples.add(new Sample(record.key(), record.timestamp()));
            }
            folded.incrementAndGet();
        }
    }

    private static Topology topology(String topic, long events) {
        Serde<State> states = Serdes.serdeFrom((name, state) -> state == null ? null : state.write(), (name, json) -> State.read(json));
        Serde<Event> values = Serdes.serdeFrom((name, event) -> null, (name, json) -> Event.parse(json));
        var builder = new StreamsBuilder();
        builder.addStateStore(Stores.versionedKeyValueStoreBuilder(
            Stores.persistentVersionedKeyValueStore(STORE, RETENTION), Serdes.String(), states));
        builder
            .stream(topic, Consumed.with(Serdes.String(), values)
                .withTimestampExtractor((record, previous) -> ((Event) record.value()).millis()))
            .process(() -> new Fold(Math.max(1, events / QUERIES)), STORE);
        return builder.build();
    }

    private static Properties settings(String brokers, String guarantee, String directory, String application) {
        var settings = new Properties();
        settings.put(StreamsConfig.APPLICATION_ID_CONFIG, application);
        settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, brokers);
        settings.put(StreamsConfig.STATE_DIR_CONFIG, directory);
        settings.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, guarantee);
        settings.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, 2);
        // Nobody calls there; without it the store does not tell which partition has a key.
        settings.put(StreamsConfig.APPLICATION_SERVER_CONFIG, "127.0.0.1:1");
        // Larger transactions and batches than the defaults: less CPU time per event, later results.
        settings.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, 1_000);
        settings.put(StreamsConfig.producerPrefix(ProducerConfig.COMPRESSION_TYPE_CONFIG), "zstd");
        settings.put(StreamsConfig.producerPrefix(ProducerConfig.BATCH_SIZE_CONFIG), 262_144);
        settings.put(StreamsConfig.producerPrefix(ProducerConfig.LINGER_MS_CONFIG), 100);
        settings.put(StreamsConfig.consumerPrefix(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG), "earliest");
        return settings;
    }

    private static Map<TopicPartition, Long> offsets(Admin admin, String topic, OffsetSpec which) throws Exception {
        var partitions = admin.describeTopics(Set.of(topic)).allTopicNames().get().get(topic).partitions();
        var wanted = partitions.stream().collect(Collectors.toMap(p -> new TopicPartition(topic, p.partition()), p -> which));
        var found = new HashMap<TopicPartition, Long>();
        admin.listOffsets(wanted).all().get().forEach((partition, info) -> found.put(partition, info.offset()));
        return found;
    }

    private static boolean committed(Admin admin, String group, Map<TopicPartition, Long> ends) throws Exception {
        var committed = admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata().get();
        return ends.entrySet().stream().allMatch(end -> {
            var at = committed.get(end.getKey());
            return end.getValue() == 0 || at != null && at.offset() >= end.getValue();
        });
    }

    private static void await(KafkaStreams streams, Admin admin, String group, long events, Map<TopicPartition, Long> ends) throws Exception {
        long last = -1;
        long moved = System.nanoTime();
        while (folded.get() < events || !committed(admin, group, ends)) {
            long now = folded.get();
            if (now != last) {
                last = now;
                moved = System.nanoTime();
            }
            if (System.nanoTime() - moved > STALLED.toNanos() || streams.state() == KafkaStreams.State.ERROR) {
                throw new IllegalStateException(streams.state() + ", " + now + " of " + events + " events folded");
            }
            Thread.sleep(100);
        }
    }

    /** Latencies in nanoseconds, ascending. */
    private static long[] query(KafkaStreams streams) {
        var asked = new ArrayList<>(samples);
        Collections.shuffle(asked, new Random(1));
        var latencies = new long[QUERIES];
        for (int at = -WARM_UP; at < QUERIES; at++) {
            Sample sample = asked.get(Math.floorMod(at, asked.size()));
            long began = System.nanoTime();
            int partition = streams.queryMetadataForKey(STORE, sample.saga(), Serdes.String().serializer()).partition();
            var query = VersionedKeyQuery.<String, State>withKey(sample.saga()).asOf(Instant.ofEpochMilli(sample.millis()));
            var request = StateQueryRequest.inStore(STORE).withQuery(query).withPartitions(Set.of(partition));
            VersionedRecord<State> found = streams.query(request).getOnlyPartitionResult().getResult();
            long took = System.nanoTime() - began;
            if (found == null || found.timestamp() != sample.millis()) {
                throw new IllegalStateException("the store does not have " + sample);
            }
            if (at >= 0) {
                latencies[at] = took;
            }
        }
        Arrays.sort(latencies);
        return latencies;
    }

    private static long changelogBytes(Admin admin, String application) throws Exception {
        String topic = application + "-" + STORE + "-changelog";
        long bytes = 0;
        var nodes = admin.describeCluster().nodes().get().stream().map(node -> node.id()).toList();
        for (var directories : admin.describeLogDirs(nodes).allDescriptions().get().values()) {
            for (var directory : directories.values()) {
                for (var replica : directory.replicaInfos().entrySet()) {
                    bytes += replica.getKey().topic().equals(topic) ? replica.getValue().size() : 0;
                }
            }
        }
        return bytes;
    }

    /** User and system time of all threads so far, microseconds; the kernel counts in ticks of 10 ms. */
    private static double cpuMicros() throws IOException {
        String stat = Files.readString(Path.of("/proc/self/stat"));
        String[] fields = stat.substring(stat.lastIndexOf(')') + 2).split(" ");
        return (Long.parseLong(fields[11]) + Long.parseLong(fields[12])) * 1e4;
    }

    private static double peakMib() throws IOException {
        Function<String, String> number = line -> line.replaceAll("[^0-9]", "");
        try (var lines = Files.lines(Path.of("/proc/self/status"))) {
            return lines.filter(line -> line.startsWith("VmHWM:")).map(number).mapToLong(Long::parseLong).findFirst().orElseThrow() / 1024.0;
        }
    }

    public static void main(String[] arguments) throws Exception {
        String brokers = arguments[0];
        String topic = arguments[1];
        long events = Long.parseLong(arguments[2]);
        String guarantee = arguments[3];
        String application = arguments[5];
        boolean queries = arguments.length > 6 && arguments[6].equals("--query");

        long began = System.nanoTime();
        var streams = new KafkaStreams(topology(topic, events), settings(brokers, guarantee, arguments[4], application));
        streams.setUncaughtExceptionHandler(error -> {
            error.printStackTrace();
            return StreamThreadExceptionResponse.SHUTDOWN_CLIENT;
        });
        try (streams; var admin = Admin.create(Map.of(AdminClientConfig.BOOTSTRAP_SERVERS_CONFIG, (Object) brokers))) {
            var ends = offsets(admin, topic, OffsetSpec.latest());
            var begins = offsets(admin, topic, OffsetSpec.earliest());
            long held = ends.entrySet().stream().mapToLong(end -> end.getValue() - begins.get(end.getKey())).sum();
            if (held != events) {
                throw new IllegalArgumentException(topic + " holds " + held + " events, not " + events);
            }
            streams.start();
            await(streams, admin, application, events, ends);
            double seconds = (System.nanoTime() - began) / 1e9;
            double cpu = cpuMicros() / events;
            double peak = peakMib();
            long stored = changelogBytes(admin, application);

            String latency = "";
            if (queries) {
                long[] nanos = query(streams);
                latency = String.format(Locale.ROOT, ",\"query_p50_us\":%.1f,\"query_p99_us\":%.1f",
                    nanos[QUERIES / 2] / 1e3, nanos[QUERIES * 99 / 100] / 1e3);
            }
            String name = guarantee.equals(StreamsConfig.EXACTLY_ONCE_V2) ? "exactly-once v2" : "at-least-once";
            System.out.printf(Locale.ROOT,
                "{\"peer\":\"kafka-streams 4.4.0, %s, versioned store\",\"events\":%d,\"cpu_us_per_event\":%.2f,\"rss_mib\":%.0f,"
                    + "\"seconds\":%.2f,\"events_per_s\":%.0f,\"stored_bytes\":%d%s,\"note\":\"%s\"}%n",
                name, events, cpu, peak, seconds, events / seconds, stored, latency,
                "writes neither Redis nor S3: its durable copy is the changelog topic (stored_bytes); one state per saga and "
                    + "millisecond, kept for " + RETENTION.toDays() + " day; start of the JVM included");
        }
    }
}
