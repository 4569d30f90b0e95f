"""What is pruned where: prunable leaves, scopes of a threshold, exact counts."""
