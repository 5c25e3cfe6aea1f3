"""Data: tasks, their tokenised and cached form, length-bucketed batches, and the metrics."""
