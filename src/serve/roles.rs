//! The roles of this build: the one line of wiring that each costs.

use std::sync::Arc;

use crate::roles::{Components, RoleTask, materialize, replay};

/// What a process does, by name, and what runs of it.
#[derive(Debug)]
pub struct Role {
    pub name: &'static str,
    tasks: fn(&Components) -> Vec<Arc<dyn RoleTask>>,
}

/// Its routes are answered by the HTTP server, which every process has.
pub(super) const API: &str = "api";

/// A process has all of them unless it is told otherwise.
pub static ROLES: &[Role] = &[
    Role { name: "materialize", tasks: materialize::task::tasks },
    Role { name: "replay", tasks: replay::task::tasks },
    Role { name: API, tasks: |_| Vec::new() },
];

/// The interface names them and this version does nothing as such: taken with a warning, so that a command line written for
/// a later version starts; shown in no help.
static PLANNED: &[Role] = &[Role { name: "bridge", tasks: |_| Vec::new() }, Role { name: "compact", tasks: |_| Vec::new() }];

/// Those that no help may show.
#[cfg(test)]
pub fn planned_names() -> impl Iterator<Item = &'static str> {
    PLANNED.iter().filter(|role| role.is_planned()).map(|role| role.name)
}

impl Role {
    /// `None`: there is no such role.
    pub fn named(name: &str) -> Option<&'static Self> {
        ROLES.iter().chain(PLANNED).find(|role| role.name == name)
    }

    /// Nothing runs of it in this version.
    pub fn is_planned(&self) -> bool {
        ROLES.iter().all(|role| role.name != self.name)
    }

    pub(super) fn tasks(&self, components: &Components) -> Vec<Arc<dyn RoleTask>> {
        (self.tasks)(components)
    }
}

/// For messages: the names of all.
pub fn role_names() -> String {
    ROLES.iter().map(|role| role.name).collect::<Vec<_>>().join(", ")
}
