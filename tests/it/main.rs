//! Scenario and server tests in one binary.

mod cold_bounds;
mod cold_chain;
mod cold_rows;
mod demo;
mod described;
mod faults;
mod faulty_hot;
mod hot_contract;
mod hot_redis;
mod http_api;
mod http_world;
mod kafka_fixture;
mod kafka_mock;
mod kafka_real;
mod kafka_transactions;
mod object_store_contract;
mod redis_process;
