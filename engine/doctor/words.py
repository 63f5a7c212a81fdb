"""How the doctor writes sizes, rates and ages."""

GIB = 1 << 30
_LARGE = 10.0
_UNITS = ((86400, "days"), (3600, "hours"), (60, "minutes"))


def size(num_bytes: float | None) -> str:
    """Return bytes in GiB, or in MiB when that says more."""
    if num_bytes is None:
        return "n/a"
    gib = num_bytes / GIB
    if gib >= _LARGE:
        return f"{gib:.0f} GiB"
    return f"{gib:.1f} GiB" if gib >= 1 else f"{gib * 1024:.0f} MiB"


def rate(bytes_per_second: float) -> str:
    """Return bytes per second as disks' makers write them."""
    gigabytes = bytes_per_second / 1e9
    return f"{gigabytes:.1f} GB/s" if gigabytes >= 1 else f"{gigabytes * 1000:.0f} MB/s"


def age(seconds: float) -> str:
    """Return a time span in its largest unit of which there are two."""
    for unit_seconds, unit in _UNITS:
        if seconds >= 2 * unit_seconds:
            return f"{seconds / unit_seconds:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} seconds"


def some(names: list[str], most: int = 4) -> str:
    """Return the first names, and how many more there are."""
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")
