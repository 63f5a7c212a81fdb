"""Makes a folder that ``from_pretrained`` reads out of what a run left: merged, converted, put together.

Nothing here imports torch but what ``__main__`` calls, in a process of its own.
"""

from .needs import Need, needs_of
from .process import export
from .source import Form, Source, find_source
from .wanted import DTYPE_BYTES, Wanted

__all__ = ["DTYPE_BYTES", "Form", "Need", "Source", "Wanted", "export", "find_source", "needs_of"]
