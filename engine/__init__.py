"""The brain: plans, launches and records fine-tuning runs, and never imports the screen."""
