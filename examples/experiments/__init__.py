"""Training runs of the paper's experiments: what, how, and what came of them."""
