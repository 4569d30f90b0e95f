"""Arrays and trees: exact sums, sort keys, norms, sharding, paths, XLA workarounds."""
