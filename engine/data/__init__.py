"""Reads data files row by row, finds their format, and turns rows into what a stage trains on."""
