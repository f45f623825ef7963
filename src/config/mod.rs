//! All settings with units and defaults. No other file reads the environment.
//!
//! [`load`] lays file, environment and flags over the defaults, checks the whole and remembers where each value came
//! from. Knows names, units and rules between keys; must not know a broker or a store: nothing is asked here.

mod check;
mod load;
mod redact;
mod schemes;
mod sections;
mod settings;
mod units;

pub use load::{LoadedConfig, Origin, ShownSetting, Sources, crash_point, environment, load, person, temporary_directory};
pub use schemes::HotScheme;
pub use sections::{
    ApiConfig, ColdConfig, Config, HotConfig, KafkaConfig, LimitsConfig, LogConfig, LogFormat, PartitionerSetting,
    RegistryConfig, ReplayConfig, ServeConfig, SnapshotOverride, SnapshotsConfig, TopicsConfig,
};
