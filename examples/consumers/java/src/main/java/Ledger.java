import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.HashMap;
import java.util.Map;

/** What was done, a JSON line each, on disk before anything builds on it. In production: a table with {@code key} as primary key. */
final class Ledger implements AutoCloseable {
    /** What the ledger has under a key, and whether it was put there now. */
    record Entry(JsonNode entry, boolean isNew) {}

    private final FileChannel file;
    private final Map<String, JsonNode> entries = new HashMap<>();

    Ledger(String path) throws IOException {
        file = FileChannel.open(Path.of(path), StandardOpenOption.CREATE, StandardOpenOption.WRITE);
        String content = Files.readString(Path.of(path));
        // A crash may have left half a line.
        String whole = content.substring(0, content.lastIndexOf('\n') + 1);
        file.truncate(whole.getBytes(StandardCharsets.UTF_8).length);
        file.position(file.size());
        for (String line : whole.lines().toList()) {
            JsonNode entry = ResumeOrders.JSON.readTree(line);
            entries.put(entry.get("key").asText(), entry);
        }
    }

    /** The entry that the ledger has under this key, this one if it had none. */
    Entry once(String key, ObjectNode entry) throws IOException {
        JsonNode found = entries.get(key);
        if (found != null) {
            return new Entry(found, false);
        }
        entry.put("key", key);
        ByteBuffer line = StandardCharsets.UTF_8.encode(ResumeOrders.JSON.writeValueAsString(entry) + "\n");
        while (line.hasRemaining()) {
            file.write(line);
        }
        file.force(true);
        entries.put(key, entry);
        return new Entry(entry, true);
    }

    @Override
    public void close() throws IOException {
        file.close();
    }
}
