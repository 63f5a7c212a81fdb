"""Completes a line of settings: keys of the job file, and the words that they may hold."""

from ...engine.job.schema import choices, fields


def setting_completions(text: str) -> list[str]:
    """Complete the last key of a line of ``key=value``, and after the sign the words that it may hold."""
    head, space, last = text.rpartition(" ")
    if not last:
        return []
    key, equals, begun = last.partition("=")
    known = dict(fields())
    if not equals:
        return [f"{head}{space}{name}=" for name in known if name.startswith(key)]
    words = choices(known[key]) if key in known else []
    return [f"{head}{space}{key}={word}" for word in words if word.startswith(begun)]
