"""Experiments: one run and its result, and tables over many."""
