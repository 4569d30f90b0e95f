"""Arguments of users: numbers read exactly, checks, and tables of text."""
