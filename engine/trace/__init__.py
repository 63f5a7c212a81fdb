"""The exact tier: traces a training step with fake tensors, in a process of its own. Needs the stack."""
