"""Measured tables: figures from the results of runs, and every form in which they are shown."""
