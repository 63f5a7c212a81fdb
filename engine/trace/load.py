"""How a model comes onto the device before the first step: what was there for a while shapes what is free.

Sources: transformers 5.23 (modeling_utils.caching_allocator_warmup; core_model_loading: weights that are
packed while they are loaded come one by one), bitsandbytes 0.50.2 (Params4bit._quantize), peft 0.21.2
(prepare_model_for_kbit_training casts one weight after the other and empties the cache).
"""

from itertools import count

from ..specs.workload import Workload
from .tracer import Event, Held, Trace

EMPTY_CACHE = Event(0, 0, "load")
"""Says that free segments go back to the driver."""
_PACKED = {"uint8": 4, "bfloat16": 4, "float16": 4, "float32": 4, "int8": 2}
"""Bytes of a 16-bit weight for a byte of what it is packed into, by the type of the packed tensor."""
_FROZEN, _TRAINED = 0, 1
"""Segments of the loading."""
_ON_THE_FLY = ("nf4", "fp4", "int8")


def as_loaded(trace: Trace, workload: Workload) -> Trace:
    """Return a trace with the loading before its steps.

    Args:
        trace: Its first two segments are the frozen weights and the trained ones.
        workload: Decides what is packed and cast.
    """
    base = [event for event in trace.events if event.segment == _FROZEN]
    adapters = [event for event in trace.events if event.segment == _TRAINED]
    steps = [event for event in trace.events if event.segment > _TRAINED]
    uids, held = count(-1, -1), dict(trace.held)
    read: list[Event] = []
    cast: list[Event] = []
    packs = workload.quantization is not None and workload.quantization.kind in _ON_THE_FLY
    packs = packs and workload.sharding.num_shards == 1  # shards come from a model that was packed before
    if packs:
        read += _for_a_while(held, next(uids), sum(event.num_bytes for event in base), "warm-up")
    for event in base:
        own = held[event.uid]
        if packs and own.is_packed:
            whole = _for_a_while(held, next(uids), event.num_bytes * _PACKED[own.dtype], "weight as read")
            read += [whole[0], event, whole[1]]
        elif workload.upcast_frozen and own.dtype == "float32" and own.is_parameter:
            half = _for_a_while(held, next(uids), event.num_bytes // 2, "weight before its cast")
            read.append(half[0])
            cast += [event, half[1]]
        else:
            read.append(event)
    if cast:
        cast.append(EMPTY_CACHE)
    return Trace([*read, *cast, *adapters, *steps], held)


def _for_a_while(held: dict[int, Held], uid: int, num_bytes: int, what: str) -> list[Event]:
    held[uid] = Held(what, (num_bytes,), "uint8", "weights", num_bytes)
    return [Event(uid, num_bytes, "load"), Event(uid, -num_bytes, "load")]
