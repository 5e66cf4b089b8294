"""Training data: demonstrations, decisions, pairs."""
