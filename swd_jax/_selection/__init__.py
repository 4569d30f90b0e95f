"""Exact order statistics of sharded trees by counting, without a sort."""
