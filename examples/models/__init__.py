"""The networks of the pruning literature, in Flax NNX."""
