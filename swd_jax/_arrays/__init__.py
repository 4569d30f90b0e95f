"""Arrays and trees: exact integer sums, sort keys, norms, sharding, paths."""
