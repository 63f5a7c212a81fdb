"""ftwiz: a terminal wizard, launcher and monitor for fine-tuning language models."""

__version__ = "0.1.0"
