"""Allocation of the sparsity: prunable leaves, scopes of a threshold, exact counts."""
