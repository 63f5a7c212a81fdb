"""The saved job: reads, checks and writes the YAML, and finds presets and model folders."""
