"""Picture encoders of the Qwen-VL kind: blocks with one attention layer, and a merger into tokens."""

from .facts import Facts
from .parts import Block, Piece, linear, other

TOWER = "vision_tower"
PROJECTOR = "projector"


def _norm(name: str, width: int, *, bias: bool = True, group: str = TOWER) -> Piece:
    return Piece(name, group, (width,), bias=bias)


def _patch(vision: Facts) -> int:
    channels = vision.whole("in_channels", "in_chans", default=3)
    return channels * vision.whole("temporal_patch_size", default=2) * vision.whole("patch_size") ** 2


def _merged(vision: Facts, width: int) -> int:
    """Width of a group of patches that becomes one token."""
    return width * vision.whole("spatial_merge_size", default=2) ** 2


def _attention(width: int, *, bias: bool, out_bias: bool | None = None) -> tuple[Piece, ...]:
    return (
        linear("attn.qkv", width, 3 * width, TOWER, bias=bias),
        linear("attn.proj", width, width, TOWER, bias=bias if out_bias is None else out_bias),
    )


def _merger(
    path: str, first_norm: int, inside: int, out: int, *, names: tuple[str, str], norm_bias: bool = True
) -> tuple[Piece, ...]:
    first, second = names
    return (
        _norm(f"{path}.norm", first_norm, bias=norm_bias, group=PROJECTOR),
        linear(f"{path}.{first}", inside, inside, PROJECTOR, bias=True),
        linear(f"{path}.{second}", inside, out, PROJECTOR, bias=True),
    )


def qwen2(vision: Facts) -> tuple[Block, ...]:
    """Return Qwen2-VL's picture encoder; its ``hidden_size`` is the width of the language part."""
    width = vision.whole("embed_dim")
    ratio = vision.value("mlp_ratio") or 4
    inner = int(width * ratio) if isinstance(ratio, int | float) and 0 < ratio < width else 4 * width
    layer = (
        _norm("norm1", width),
        _norm("norm2", width),
        *_attention(width, bias=True),
        linear("mlp.fc1", width, inner, TOWER, bias=True),
        linear("mlp.fc2", inner, width, TOWER, bias=True),
    )
    outside = (
        other("patch_embed.proj", TOWER, width, _patch(vision)),
        *_merger("merger", width, _merged(vision, width), vision.hidden_size, names=("mlp.0", "mlp.2")),
    )
    return (Block(outside), Block(layer, vision.whole("depth"), "Qwen2VLVisionBlock"))


def qwen2_5(vision: Facts) -> tuple[Block, ...]:
    """Return Qwen2.5-VL's picture encoder."""
    width, inner = vision.hidden_size, vision.whole("intermediate_size")
    layer = (
        _norm("norm1", width, bias=False),
        _norm("norm2", width, bias=False),
        *_attention(width, bias=True),
        linear("mlp.gate_proj", width, inner, TOWER, bias=True),
        linear("mlp.up_proj", width, inner, TOWER, bias=True),
        linear("mlp.down_proj", inner, width, TOWER, bias=True),
    )
    merger = _merger(
        "merger",
        width,
        _merged(vision, width),
        vision.whole("out_hidden_size"),
        names=("mlp.0", "mlp.2"),
        norm_bias=False,
    )
    outside = (other("patch_embed.proj", TOWER, width, _patch(vision)), *merger)
    return (Block(outside), Block(layer, vision.whole("depth"), "Qwen2_5_VLVisionBlock"))


def qwen3(vision: Facts, unit: str) -> tuple[Block, ...]:
    """Return the picture encoder of Qwen3-VL and Qwen3.5, with its mergers of deeper layers."""
    width, inner, out = (
        vision.hidden_size,
        vision.whole("intermediate_size"),
        vision.whole("out_hidden_size"),
    )
    merged, names = _merged(vision, width), ("linear_fc1", "linear_fc2")
    layer = (
        _norm("norm1", width),
        _norm("norm2", width),
        *_attention(width, bias=True),
        linear("mlp.linear_fc1", width, inner, TOWER, bias=True),
        linear("mlp.linear_fc2", inner, width, TOWER, bias=True),
    )
    outside = (
        Piece("patch_embed.proj", TOWER, (_patch(vision), width), bias=True),
        other("pos_embed", TOWER, vision.whole("num_position_embeddings"), width),
        *_merger("merger", width, merged, out, names=names),
    )
    deep = _merger("deepstack_merger_list", merged, merged, out, names=names)
    num_deep = len(vision.wholes("deepstack_visual_indexes"))
    return (
        Block(outside),
        Block(layer, vision.whole("depth"), unit),
        *((Block(deep, num_deep),) if num_deep else ()),
    )


def glm4(vision: Facts) -> tuple[Block, ...]:
    """Return GLM-4.1V's picture encoder; its ``intermediate_size`` is the merger's."""
    width, out = vision.hidden_size, vision.whole("out_hidden_size")
    inner, merger = out, vision.whole("intermediate_size")
    bias = vision.flag("attention_bias", default=False)
    size = vision.whole("image_size") // vision.whole("patch_size")
    layer = (
        _norm("norm1", width, bias=False),
        _norm("norm2", width, bias=False),
        *_attention(width, bias=bias, out_bias=False),
        linear("mlp.gate_proj", width, inner, TOWER),
        linear("mlp.up_proj", width, inner, TOWER),
        linear("mlp.down_proj", inner, width, TOWER),
    )
    outside = (
        other("embeddings.position_embedding", TOWER, size * size, width),
        Piece("patch_embed.proj", TOWER, (_patch(vision), width), bias=True),
        _norm("post_conv_layernorm", width, bias=False),
        _norm("post_layernorm", width, bias=False),
        Piece("downsample", TOWER, (_merged(vision, width), out), bias=True),
        linear("merger.proj", out, out, PROJECTOR),
        _norm("merger.post_projection_norm", out, group=PROJECTOR),
        linear("merger.gate_proj", out, merger, PROJECTOR),
        linear("merger.up_proj", out, merger, PROJECTOR),
        linear("merger.down_proj", merger, out, PROJECTOR),
    )
    return (Block(outside), Block(layer, vision.whole("depth"), "Glm4vVisionBlock"))
