"""Selective weight decay as optax transformations."""
