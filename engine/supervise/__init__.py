"""Starts, watches, stops, resumes and diagnoses runs; owns every process of a run."""
