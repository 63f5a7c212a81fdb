"""The monitor: one screen that follows a run folder and never writes to it."""
