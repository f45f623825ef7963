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

pub use load::{LoadedConfig, ShownSetting, Sources, crash_point, environment, load, person, temporary_directory};
pub use schemes::HotScheme;
pub use sections::{ColdConfig, Config, HotConfig, KafkaConfig, LogFormat, PartitionerSetting, TopicsConfig};
#[cfg(feature = "testing")]
pub use settings::{SettingReference, reference};
