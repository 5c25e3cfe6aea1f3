"""Training with Lightning: modules, data modules, callbacks."""
