"""Pruning after training: exact zeros, masks, fine-tuning that keeps the zeros."""
