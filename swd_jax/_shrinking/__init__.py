"""Channels cut out of parameters, modules and optimizer states."""
