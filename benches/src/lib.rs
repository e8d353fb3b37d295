//! Measurements of the agent: counts that noise cannot move, or ratios against a peer in one run.
