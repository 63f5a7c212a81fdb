"""Reads what other tools call a configuration and says it in a job: tables of their keys, and one reader.

LLaMA-Factory, its DeepSpeed and accelerate files, any accelerate or DeepSpeed file, TRL and axolotl. Nothing
is dropped in silence: every key of a file has a line on what became of it, and a key that no table knows is
an error. It may read the files that it is given and those that they name, and import neither the training
stack nor a screen.
"""

from .formats import FORMATS
from .importer import Imported, Wishes, import_files
from .rows import How
from .sheet import Change

__all__ = ["FORMATS", "Change", "How", "Imported", "Wishes", "import_files"]
