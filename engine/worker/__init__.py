"""What the launcher runs on every rank. Torch lives here and in the stages' trainer() only."""
