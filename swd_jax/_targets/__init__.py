"""The target, and its resolution against a tree of parameters."""
