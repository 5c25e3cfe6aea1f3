"""A Hydra sweeper over explicit cells: hydra/sweeper=cells."""
