//! The tree of replays: from the saga at the top, through what was restored from it, to what was restored from that.

use std::collections::HashSet;

use futures::future::BoxFuture;

use super::answer::{Child, LineageNode, PointInTime};
use super::reader::History;
use crate::error::{Error, Result};
use crate::saga::position::SagaId;
use crate::saga::state::{State, Status};

/// Lists the replays that restored a saga (not those refused or dry), in the order wanted; the replay log knows them.
pub type ChildrenOf<'a> = dyn Fn(SagaId) -> BoxFuture<'a, Result<Vec<Child>>> + Send + Sync + 'a;

/// Most sagas in one tree.
const MAX_NODES: usize = 10_000;

impl History {
    /// The tree from the root of the saga's lineage. A restored saga that an engine runs under an id of its own is one
    /// node: the restored saga's id, the status of the one that runs. Refused: `saga_not_found`, `too_large`.
    pub async fn lineage(&self, saga: &SagaId, children: &ChildrenOf<'_>) -> Result<LineageNode> {
        let state = self.state(saga, PointInTime::Newest).await?.state;
        let root = state.lineage.as_ref().map_or(saga, |lineage| &lineage.root).clone();
        let mut found: Vec<(Option<usize>, LineageNode)> = Vec::new();
        let mut known = HashSet::from([root.clone()]);
        let top = if root == *saga { Some(state) } else { self.newest_state(&root).await? };
        found.push((None, root_node(&root, top.as_ref())));
        let mut ids = vec![vec![root]];

        let mut next = 0;
        while next < found.len() {
            for id in std::mem::take(&mut ids[next]) {
                for child in children(id).await? {
                    if !known.insert(child.saga_id.clone()) {
                        continue;
                    }
                    if found.len() == MAX_NODES {
                        return Err(Error::refused("too_large", format!("the tree has more than {MAX_NODES} sagas")));
                    }
                    let status = self.status_of(&child).await?;
                    let depth = found[next].1.depth + 1;
                    ids.push(child.replay.executed_as.iter().chain([&child.saga_id]).cloned().collect());
                    found.push((Some(next), child_node(child, depth, status)));
                }
            }
            next += 1;
        }
        Ok(grow(found))
    }

    async fn status_of(&self, child: &Child) -> Result<Option<Status>> {
        let runs = child.replay.executed_as.as_ref().unwrap_or(&child.saga_id);
        Ok(self.newest_state(runs).await?.map(|state| state.status))
    }

    async fn newest_state(&self, saga: &SagaId) -> Result<Option<State>> {
        match self.state(saga, PointInTime::Newest).await {
            Ok(found) => Ok(Some(found.state)),
            Err(Error::Refused { code: "saga_not_found", .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn root_node(root: &SagaId, state: Option<&State>) -> LineageNode {
    LineageNode { saga_id: root.clone(), status: state.map(|state| state.status), replay: None, depth: 0, children: Vec::new() }
}

fn child_node(child: Child, depth: u32, status: Option<Status>) -> LineageNode {
    LineageNode { saga_id: child.saga_id, status, replay: Some(child.replay), depth, children: Vec::new() }
}

/// Nodes with the index of their parent, parents first and the root at 0 -> the tree.
fn grow(mut nodes: Vec<(Option<usize>, LineageNode)>) -> LineageNode {
    loop {
        let (parent, mut node) = nodes.pop().expect("the root is popped last and returned");
        // Children were taken off from the end.
        node.children.reverse();
        match parent {
            Some(parent) => nodes[parent].1.children.push(node),
            None => return node,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: &str) -> LineageNode {
        root_node(&id.into(), None)
    }

    fn text(node: &LineageNode) -> String {
        let children: Vec<String> = node.children.iter().map(text).collect();
        format!("{}({})", node.saga_id, children.join(" "))
    }

    #[test]
    fn a_tree_keeps_the_order_of_its_children() {
        let nodes =
            vec![(None, node("a")), (Some(0), node("b")), (Some(0), node("c")), (Some(1), node("d")), (Some(1), node("e"))];
        assert_eq!(text(&grow(nodes)), "a(b(d() e()) c())");
    }
}
