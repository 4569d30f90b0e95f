"""Scored units of one target: thresholds, and masks of exactly k pruned weights."""
