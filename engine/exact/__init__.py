"""Asks the exact tier, in a process of its own, and remembers its answers."""
