"""Peaks that were measured on this machine, to correct later estimates."""
