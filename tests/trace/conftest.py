"""What needs the training stack is left out where the stack is missing."""

from importlib.util import find_spec

NEEDS_TORCH = ["test_trace_allocator.py", "test_trace_layers.py", "test_trace_tracer.py"]
collect_ignore = [] if find_spec("torch") else NEEDS_TORCH
