"""One rule for each primitive of jax: its labels, and how it runs at other sizes."""
