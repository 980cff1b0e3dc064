"""Training: one loop, regimes, loss balancing, checkpoints."""
