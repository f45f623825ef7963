"""Real servers for the tests: installed once into the cache, started on private loopback ports.

Knows Kafka, Redis, SeaweedFS and the Apicurio registry; knows nothing of resaga. Standard library only.
"""
