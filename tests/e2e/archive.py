"""The cold store as any other program sees it: keys, and plain Parquet read with pyarrow."""

import json
import re

import pyarrow.parquet
from pyarrow.fs import FileSelector, S3FileSystem

_NAME = re.compile(r"l0/(?P<topic>.+)/(?P<incarnation>\d+)/(?P<partition>\d+)/(?P<start>\d{20})\.parquet$")


class Archive:
    def __init__(self, endpoint, bucket, prefix, key, secret):
        self.files = S3FileSystem(access_key=key, secret_key=secret, endpoint_override=endpoint.removeprefix("http://"), scheme="http", region="us-east-1")
        self.root = f"{bucket}/{prefix}"

    @staticmethod
    def parse_name(path):
        """(topic, partition, start offset) of a segment's path, or None."""
        match = _NAME.search(path)
        return match and (match["topic"], int(match["partition"]), int(match["start"]))

    def segments(self, topic):
        """{partition: [(start, path)]} in order of start."""
        found = {}
        for info in self.files.get_file_info(FileSelector(self.root, recursive=True, allow_not_found=True)):
            name = self.parse_name(info.path)
            if name and name[0] == topic:
                found.setdefault(name[1], []).append((name[2], info.path))
        return {partition: sorted(starts) for partition, starts in found.items()}

    def rows(self, topic, columns=("saga_id", "sequence", "kind", "status", "event_id", "effective_time", "recorded_time", "partition", "offset")):
        """Every row of the chain: {(partition, offset): [row, ...]}; the chain has no gaps, and each row lies in the segment that covers its offset."""
        found = {}
        for partition, segments in self.segments(topic).items():
            expected = None
            for start, path in segments:
                table = pyarrow.parquet.read_table(path, filesystem=self.files, columns=list(columns))
                info = json.loads(pyarrow.parquet.read_metadata(path, filesystem=self.files).metadata[b"resaga.segment"])
                end = int(info["end"])
                assert expected in (None, start), f"{path}: the segment before ends at {expected - 1}"
                expected = end + 1
                for row in table.to_pylist():
                    assert row["partition"] == partition and start <= row["offset"] <= end, f"{path} has the row of {row['partition']}/{row['offset']}"
                    found.setdefault((partition, row["offset"]), []).append(row)
        return found

    def keys(self):
        """Every object's path."""
        return [info.path for info in self.files.get_file_info(FileSelector(self.root, recursive=True, allow_not_found=True)) if info.is_file]

    def get(self, path):
        with self.files.open_input_stream(path) as stream:
            return stream.read()

    def put(self, path, content):
        with self.files.open_output_stream(path) as stream:
            stream.write(content)

    def size(self):
        return sum(info.size or 0 for info in self.files.get_file_info(FileSelector(self.root, recursive=True, allow_not_found=True)))
