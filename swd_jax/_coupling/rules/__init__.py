"""One rule for each primitive of jax: its channel labels, and how it runs at other sizes."""
