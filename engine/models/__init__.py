"""The shape of a model from its configuration: pure, and never from its name."""
