"""Users' arguments: numbers read exactly, checks, and tables of text for reports."""
