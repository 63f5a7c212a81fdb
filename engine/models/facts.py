"""A configuration as its families read it: typed, bounded, and honest about what is missing."""

from collections.abc import Mapping
from dataclasses import dataclass

from ..errors import BadInput
from . import defaults

MAX_WHOLE = 1_000_000_000
"""Above any width there is."""
MAX_LAYERS = 10_000


class Unknown(Exception):  # noqa: N818 - not an error: the closed form steps back
    """The closed form does not know this model; the text says why."""


@dataclass(frozen=True, slots=True)
class Facts:
    """One section of a config.json."""

    config: Mapping[str, object]
    where: str
    kind: str = ""
    """Model type that decides the defaults, where the section does not say its own."""

    def value(self, *names: str) -> object:
        """Return the first of these keys that is set, or transformers' default when none is there.

        A key that holds null is there, and says: none.
        """
        found = [self.config[name] for name in names if name in self.config]
        if found:
            return next((value for value in found if value is not None), None)
        known = defaults.of(self.model_type)
        return next((known[name] for name in names if name in known), None)

    def optional(self, *names: str, low: int = 0, high: int = MAX_WHOLE) -> int | None:
        """Return the first of these keys that is set.

        Raises:
            BadInput: It is not a whole number between the bounds.
        """
        value = self.value(*names)
        if value is None:
            return None
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            name = next((name for name in names if self.config.get(name) is not None), None)
            if name is None:  # a default that stands for none
                return None
            allowed = f"a whole number from {low:,} to {high:,}"
            raise BadInput(f"{self.where}: {name} must be {allowed}; got {shown(value)}")
        return value

    def whole(self, *names: str, default: int | None = None, low: int = 1) -> int:
        """Return the first of these keys that is set, or the default.

        Raises:
            Unknown: None of them is set and there is no default.
        """
        value = self.optional(*names, low=low)
        if value is None and default is None:
            raise Unknown(f"{names[0]} is missing")
        return value if value is not None else default or 0

    def flag(self, name: str, *, default: bool) -> bool:
        """Return a yes or no."""
        value = self.value(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise BadInput(f"{self.where}: {name} must be true or false; got {shown(value)}")
        return value

    def text(self, name: str) -> str | None:
        """Return a text, or ``None`` when the key holds something else."""
        value = self.value(name)
        return value if isinstance(value, str) else None

    def names(self, name: str) -> tuple[str, ...] | None:
        """Return a list of texts, or ``None`` when there is none."""
        value = self.value(name)
        if value is None:
            return None
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise BadInput(f"{self.where}: {name} must be a list of names; got {shown(value)}")
        return tuple(value)

    def wholes(self, name: str) -> tuple[int, ...]:
        """Return a list of whole numbers, empty when there is none."""
        value = self.value(name)
        if value is None:
            return ()
        if not isinstance(value, list) or not all(
            isinstance(item, int) and not isinstance(item, bool) and 0 <= item <= MAX_WHOLE for item in value
        ):
            raise BadInput(f"{self.where}: {name} must be a list of whole numbers; got {shown(value)}")
        return tuple(value)

    def section(self, *names: str) -> "Facts | None":
        """Return the first of these sections that is there."""
        for name in names:
            value = self.config.get(name)
            if isinstance(value, Mapping):
                return Facts(value, self.where, defaults.section(self.model_type, name, value))
        return None

    @property
    def model_type(self) -> str:
        """The name of the architecture."""
        own = self.config.get("model_type")
        return self.kind or (own if isinstance(own, str) else "")

    @property
    def num_layers(self) -> int:
        """Layers of the decoder."""
        value = self.optional(
            "num_hidden_layers", "n_layer", "num_layers", "n_layers", low=1, high=MAX_LAYERS
        )
        if value is None:
            raise Unknown("num_hidden_layers is missing")
        return value

    @property
    def hidden_size(self) -> int:
        """Width of the residual stream."""
        return self.whole("hidden_size", "n_embd", "d_model", "dim")

    @property
    def num_heads(self) -> int:
        """Query heads."""
        return self.whole("num_attention_heads", "n_head", "num_heads")

    @property
    def num_kv_heads(self) -> int:
        """Key and value heads."""
        return self.whole("num_key_value_heads", default=self.num_heads)

    @property
    def head_dim(self) -> int:
        """Width of a head."""
        return self.whole("head_dim", default=max(1, self.hidden_size // self.num_heads))

    @property
    def vocab_size(self) -> int:
        """Rows of the embedding."""
        return self.whole("vocab_size", "n_vocab")

    def layer_types(self, default: tuple[str, ...] | None = None) -> tuple[str, ...]:
        """Return one name per layer.

        Raises:
            Unknown: There is no list, and no default.
            BadInput: The list does not fit the number of layers.
        """
        found = self.names("layer_types") or default
        if found is None:
            raise Unknown("layer_types is missing")
        if len(found) != self.num_layers:
            raise BadInput(
                f"{self.where}: layer_types names {len(found):,} layers; num_hidden_layers is "
                f"{self.num_layers:,}"
            )
        return found


def shown(value: object) -> str:
    """Return a value as a message may show it: short, and without control characters."""
    text = ascii(value) if isinstance(value, str) else repr(value)
    if isinstance(value, list | Mapping):
        text = type(value).__name__
    return text if len(text) <= 60 else f"{text[:44]}..."  # noqa: PLR2004 - a line's half
