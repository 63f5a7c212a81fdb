"""The saved job: reads, checks and writes the YAML, and finds presets and model folders.

It may look at the files that a job names, and import neither the training stack nor a screen. Every mistake
of a user leaves as one ``BadInput`` whose line names file, line and key.
"""

from .loader import LoadedJob, load_job, parse_job
from .model_folder import model_spec
from .presets import load_preset, preset_names, preset_summary
from .schema import job_schema
from .tree import Source
from .writer import dump_job

__all__ = [
    "LoadedJob",
    "Source",
    "dump_job",
    "job_schema",
    "load_job",
    "load_preset",
    "model_spec",
    "parse_job",
    "preset_names",
    "preset_summary",
]
