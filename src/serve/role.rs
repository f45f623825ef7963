//! What a process does, by name.

/// What a process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    Bridge,
    Materialize,
    Replay,
    Compact,
    Api,
}

impl Role {
    pub const ALL: [Self; 5] = [Self::Bridge, Self::Materialize, Self::Replay, Self::Compact, Self::Api];
    pub const DEFAULT: [Self; 4] = [Self::Materialize, Self::Replay, Self::Compact, Self::Api];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bridge => "bridge",
            Self::Materialize => "materialize",
            Self::Replay => "replay",
            Self::Compact => "compact",
            Self::Api => "api",
        }
    }
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == text)
    }
}
