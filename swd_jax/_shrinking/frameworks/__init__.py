"""Modules of Flax NNX and Equinox, and the sizes that their layers keep."""
