"""Towers that turn pictures and sound into tokens, one function per kind of tower."""

from .decoder import norms
from .facts import Facts, Unknown
from .parts import Block, Piece, linear, other

TOWER = "vision_tower"
PROJECTOR = "projector"
AUDIO = "audio_tower"


def _norms(width: int, *names: str, bias: bool = True, group: str = TOWER) -> tuple[Piece, ...]:
    """A tower's normalisations count as its own."""
    return tuple(Piece(name, group, (width,), bias=bias) for name in names)


def _square(width: int, *names: str, bias: bool, group: str = TOWER) -> tuple[Piece, ...]:
    return tuple(linear(name, width, width, group, bias=bias) for name in names)


def _mlp(width: int, inner: int, names: tuple[str, str], *, bias: bool = True) -> tuple[Piece, ...]:
    up, down = names
    return (linear(up, width, inner, TOWER, bias=bias), linear(down, inner, width, TOWER, bias=bias))


def _gated(width: int, inner: int, prefix: str, *, bias: bool, end: str = "") -> tuple[Piece, ...]:
    return (
        linear(f"{prefix}gate_proj{end}", width, inner, TOWER, bias=bias),
        linear(f"{prefix}up_proj{end}", width, inner, TOWER, bias=bias),
        linear(f"{prefix}down_proj{end}", inner, width, TOWER, bias=bias),
    )


def _side(facts: Facts, key: str) -> int:
    """Return a side length that older files write as a pair."""
    pair = facts.value(key)
    if isinstance(pair, list):
        sides = facts.wholes(key)
        if len(set(sides)) != 1:
            raise Unknown(f"{key} is not square")
        return sides[0]
    return facts.whole(key)


def _num_patches(facts: Facts) -> int:
    return (_side(facts, "image_size") // _side(facts, "patch_size")) ** 2


def _patch(facts: Facts, *, temporal: bool = False) -> int:
    """Numbers in one patch."""
    channels = facts.whole("in_channels", "in_chans", "num_channels", default=3)
    frames = facts.whole("temporal_patch_size", default=2) if temporal else 1
    return int(channels * frames * _side(facts, "patch_size") ** 2)


SELF_ATTENTION = ("self_attn.k_proj", "self_attn.v_proj", "self_attn.q_proj", "self_attn.out_proj")


def _encoder_layer(facts: Facts) -> tuple[Piece, ...]:
    """CLIP's and SigLIP's layer."""
    width = facts.hidden_size
    return (
        *_square(width, *SELF_ATTENTION, bias=True),
        *_norms(width, "layer_norm1", "layer_norm2"),
        *_mlp(width, facts.whole("intermediate_size"), ("mlp.fc1", "mlp.fc2")),
    )


def clip(vision: Facts) -> tuple[Block, ...]:
    """Return CLIP's picture encoder."""
    width = vision.hidden_size
    embeddings = (
        other("embeddings.class_embedding", TOWER, width),
        other("embeddings.patch_embedding", TOWER, width, _patch(vision)),
        other("embeddings.position_embedding", TOWER, _num_patches(vision) + 1, width),
    )
    return (
        Block(embeddings, unit="CLIPVisionEmbeddings"),
        Block(_norms(width, "pre_layrnorm", "post_layernorm")),
        Block(_encoder_layer(vision), vision.num_layers, "CLIPEncoderLayer"),
    )


def siglip(vision: Facts) -> tuple[Block, ...]:
    """Return SigLIP's picture encoder, without its pooling head."""
    if vision.flag("vision_use_head", default=False):
        raise Unknown("the pooling head of siglip is not in the closed form")
    width = vision.hidden_size
    embeddings = (
        Piece("embeddings.patch_embedding", TOWER, (_patch(vision), width), bias=True),
        other("embeddings.position_embedding", TOWER, _num_patches(vision), width),
    )
    return (
        Block(embeddings, unit="SiglipVisionEmbeddings"),
        Block(_encoder_layer(vision), vision.num_layers, "SiglipEncoderLayer"),
        Block(_norms(width, "post_layernorm")),
    )


def pixtral(vision: Facts) -> tuple[Block, ...]:
    """Return Pixtral's picture encoder."""
    width = vision.hidden_size
    layer = (
        *_norms(width, "attention_norm", "ffn_norm", bias=False),
        *_gated(width, vision.whole("intermediate_size"), "feed_forward.", bias=False),
        *_square(width, *(f"attention.{name}_proj" for name in "kvqo"), bias=False),
    )
    outside = (other("patch_conv", TOWER, width, _patch(vision)), *_norms(width, "ln_pre", bias=False))
    return (Block(outside), Block(layer, vision.num_layers, "PixtralAttentionLayer"))


def internvl(vision: Facts) -> tuple[Block, ...]:
    """Return InternVL's picture encoder."""
    if vision.flag("use_qk_norm", default=False) or vision.flag("use_mask_token", default=False):
        raise Unknown("use_qk_norm and use_mask_token of internvl_vision are not in the closed form")
    width, bias = vision.hidden_size, vision.flag("attention_bias", default=False)
    has_bias = vision.text("norm_type") != "rms_norm"
    names = (*(f"attention.{name}_proj" for name in "qkv"),)
    layer = (
        other("lambda", TOWER, 2, width),
        *_square(width, *names, bias=bias),
        *_square(width, "attention.projection_layer", bias=True),
        *_mlp(width, vision.whole("intermediate_size"), ("mlp.fc1", "mlp.fc2")),
        *_norms(width, "layernorm_before", "layernorm_after", bias=has_bias),
    )
    outside = [
        other("embeddings.cls_token", TOWER, width),
        Piece("embeddings.patch_embeddings.projection", TOWER, (_patch(vision), width), bias=True),
    ]
    if vision.flag("use_absolute_position_embeddings", default=True):
        outside.append(other("embeddings.position_embeddings", TOWER, _num_patches(vision) + 1, width))
    return (Block(tuple(outside)), Block(layer, vision.num_layers, "InternVLVisionLayer"))


def llama4(vision: Facts) -> tuple[Block, ...]:
    """Return Llama 4's picture encoder and its adapter."""
    width, inner = vision.hidden_size, vision.whole("intermediate_size")
    between, out = vision.whole("projector_input_dim"), vision.whole("projector_output_dim")
    layer = (
        *_square(width, *(f"self_attn.{name}_proj" for name in "qkvo"), bias=True),
        *_mlp(width, inner, ("mlp.fc1", "mlp.fc2")),
        *_norms(width, "input_layernorm", "post_attention_layernorm"),
    )
    outside = (
        other("class_embedding", TOWER, width),
        other("positional_embedding_vlm", TOWER, _num_patches(vision) + 1, width),
        linear("patch_embedding.linear", _patch(vision), width, TOWER),
        *_norms(width, "layernorm_pre", "layernorm_post"),
        linear("vision_adapter.mlp.fc1", inner, between, TOWER),
        linear("vision_adapter.mlp.fc2", between, out, TOWER),
    )
    return (Block(outside), Block(layer, vision.num_layers, "Llama4VisionEncoderLayer"))


def mllama(vision: Facts) -> tuple[Block, ...]:
    """Return Llama 3.2's picture encoder: local layers, then gated global ones."""
    width, patches = vision.hidden_size, _num_patches(vision) + 1
    layer = (
        *_square(width, *(f"self_attn.{name}_proj" for name in "qkvo"), bias=False),
        *_mlp(width, vision.whole("intermediate_size"), ("mlp.fc1", "mlp.fc2")),
        *_norms(width, "input_layernorm", "post_attention_layernorm"),
    )
    ratios = vision.value("supported_aspect_ratios")
    if not isinstance(ratios, list):
        raise Unknown("supported_aspect_ratios is missing")
    rows, tiles = len(ratios) + 1, vision.whole("max_num_tiles")
    outside = (
        other("class_embedding", TOWER, width),
        other("patch_embedding", TOWER, width, _patch(vision)),
        other("gated_positional_embedding.gate", TOWER, 1),
        other("gated_positional_embedding.embedding", TOWER, patches, width),
        other("gated_positional_embedding.tile_embedding", TOWER, rows, tiles * patches * width),
        other("tile_positional_embeddings", TOWER, 2, 1 + rows * tiles * width),
        *_norms(width, "layernorm_pre", "layernorm_post"),
    )
    unit = "MllamaVisionEncoderLayer"
    gated = (other("gates", TOWER, 2), *layer)
    return (
        Block(outside),
        Block(layer, vision.num_layers, unit),
        Block(gated, vision.whole("num_global_layers"), unit),
    )


def gemma4(vision: Facts) -> tuple[Block, ...]:
    """Return Gemma 4's picture encoder."""
    width, head = vision.hidden_size, vision.head_dim
    heads, kv_heads = vision.num_heads * head, vision.num_kv_heads * head
    widths = {"q": (width, heads), "k": (width, kv_heads), "v": (width, kv_heads), "o": (heads, width)}
    layer = (
        *(
            linear(f"self_attn.{name}_proj.linear", num_in, num_out, TOWER)
            for name, (num_in, num_out) in widths.items()
        ),
        *_norms(head, "self_attn.q_norm", "self_attn.k_norm", bias=False),
        *_gated(width, vision.whole("intermediate_size"), "mlp.", bias=False, end=".linear"),
        *(Piece(piece.path, TOWER, piece.shape) for piece in norms(width, ("1", "2", "3", "4"))),
    )
    patches = (
        other("position_embedding_table", TOWER, 2, vision.whole("position_embedding_size"), width),
        linear("input_proj", _patch(vision), width, TOWER),
    )
    return (
        Block(patches, unit="Gemma4VisionPatchEmbedder"),
        Block(layer, vision.num_layers, "Gemma4VisionEncoderLayer"),
    )


def gemma4_audio(audio: Facts, hidden: int) -> tuple[Block, ...]:
    """Return Gemma 4's sound encoder with its projection; ``{}`` stands for transformers' defaults."""
    width = audio.whole("hidden_size", default=1024)
    heads = audio.whole("num_attention_heads", default=8)
    first, second = audio.wholes("subsampling_conv_channels") or (128, 32)
    out = audio.whole("output_proj_dims", default=1536)
    return (
        Block(
            (
                other("subsample_conv_projection", AUDIO, 9 * first + first + 9 * first * second + second),
                linear("input_proj_linear", first // 4 * second, width, AUDIO),
                linear("output_proj", width, out, AUDIO, bias=True),
                linear("embedding_projection", out, hidden, AUDIO),
            )
        ),
        Block(
            _gemma4_audio_layer(width, heads, audio.whole("conv_kernel_size", default=5)),
            audio.whole("num_hidden_layers", default=12),
            "Gemma4AudioLayer",
        ),
    )


def _gemma4_audio_layer(width: int, heads: int, kernel: int) -> tuple[Piece, ...]:
    forward = ("feed_forward1", "feed_forward2")
    names = ("self_attn.q_proj.linear", "self_attn.k_proj.linear", "self_attn.v_proj.linear")
    return (
        *(linear(f"{name}.ffw_layer_1.linear", width, 4 * width, AUDIO) for name in forward),
        *(linear(f"{name}.ffw_layer_2.linear", 4 * width, width, AUDIO) for name in forward),
        *_square(width, *names, "self_attn.post.linear", bias=False, group=AUDIO),
        *_square(width, "self_attn.relative_k_proj", bias=False, group=AUDIO),
        other("self_attn.per_dim_scale", AUDIO, width // heads),
        linear("lconv1d.linear_start.linear", width, 2 * width, AUDIO),
        linear("lconv1d.linear_end.linear", width, width, AUDIO),
        other("lconv1d.depthwise_conv1d", AUDIO, width, kernel),
        *_norms(width, *(str(number) for number in range(9)), bias=False, group=AUDIO),
    )
