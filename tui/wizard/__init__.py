"""The wizard: from what was detected to a job that is launched."""
