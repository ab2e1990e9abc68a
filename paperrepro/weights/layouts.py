"""The names that other code gives to the same weights.

Each function below turns one of this library's state_dict keys into the key of a released file.
They cover the papers' own checkpoints, timm's MobileOne and FasterNet, and OpenMMLab's RepLKNet.
"""

import re
from collections.abc import Callable, Iterable, Mapping

from ..models import Backbone, family_of
from ..models.describe import blocks_of

Rules = list[tuple[str, str | Callable[[re.Match], str]]]


def layouts(model: Backbone) -> dict[str, dict[str, str]]:
    """Every layout in which the model's weights are published, as `{our key: their key}`.

    The model may be re-parameterized; of that form only what the authors publish is known.
    """
    keys = list(model.state_dict())
    tables = {"paperrepro": {key: key for key in keys}}
    if model.variant is None:
        return tables
    family = family_of(model.variant)
    if model.reparameterized and not family.fused_releases:
        return tables
    for name, rules_of in family.need("layouts").items():
        if name == "released" or not model.reparameterized:
            tables[name] = rename(keys, rules_of(model))
    return tables


def rename(keys: Iterable[str], rules: Rules) -> dict[str, str]:
    """Applies the rules in order, each to what the one before it made of a key."""
    renamed = {}
    for key in keys:
        new = key
        for pattern, replacement in rules:
            new = re.sub(pattern, replacement, new)
        renamed[key] = new
    return renamed


def mobileone(model: Backbone) -> Rules:
    merged = r"\1.reparam_conv.\2" if model.reparameterized else r"\1.conv.\2"
    return [
        (r"^stem\.", "stage0."),
        (r"^stages\.(\d)\.blocks\.", lambda m: f"stage{int(m[1]) + 1}."),
        (r"^(stage\d.*?)\.conv\.(weight|bias)$", merged),
        (r"\.conv\.skip\.", ".rbr_skip."),
        (r"\.conv\.scale\.", ".rbr_scale."),
        (r"\.conv\.conv(\d)\.", r".rbr_conv.\1."),
        (r"\.norm\.", ".bn."),
        (r"\.se\.fc1\.", ".se.reduce."),
        (r"\.se\.fc2\.", ".se.expand."),
        (r"^head\.fc\.", "linear."),
    ]


def fasternet(model: Backbone) -> Rules:
    return [
        (r"^stem\.conv\.", "patch_embed.proj."),
        (r"^stem\.", "patch_embed."),
        (r"^stages\.(\d)\.downsample\.", lambda m: f"stages.{2 * int(m[1]) - 1}."),
        (r"^stages\.(\d)\.conv\.", r"stages.\1.reduction."),
        (r"^stages\.(\d)\.blocks\.", lambda m: f"stages.{2 * int(m[1])}.blocks."),
        (r"\.pconv\.conv\.", ".spatial_mixing.partial_conv3."),
        (r"\.expand\.conv\.", ".mlp.0."),
        (r"\.expand\.norm\.", ".mlp.1."),
        (r"\.project\.", ".mlp.3."),
        (r"^head\.conv\.", "avgpool_pre_head.1."),
        (r"^head\.fc\.", "head."),
    ]


def replknet(model: Backbone) -> Rules:
    return [
        (r"^stages\.(\d)\.downsample\.", lambda m: f"transitions.{int(m[1]) - 1}."),
        (r"^(stages\.\d\.blocks\.\d*[02468])\.norm\.", r"\1.prelkb_bn."),
        (r"^(stages\.\d\.blocks\.\d*[13579])\.norm\.", r"\1.preffn_bn."),
        (r"^head\.norm\.", "norm."),
        (r"^head\.fc\.", "head."),
        (r"\.norm\.", ".bn."),
        (r"\.large_kernel\.large\.", ".large_kernel.lkb_origin."),
        (r"\.large_kernel\.small\.", ".large_kernel.small_conv."),
    ]


INVERTED_RESIDUAL_AND_MIXER: Rules = [
    (r"\.expand\.conv\.", ".dws.pw1."),
    (r"\.expand\.norm\.", ".dws.norm1."),
    (r"\.depthwise\.conv\.", ".dws.dw."),
    (r"\.depthwise\.norm\.", ".dws.norm2."),
    (r"\.project\.conv\.", ".dws.pw2."),
    (r"\.project\.norm\.", ".dws.norm3."),
    (r"\.(mixer\.)?scale\.weight$", ".layer_scale_1"),
    (r"\.mixer\.cpe\.conv\.", ".mixer.cpe.pe."),
    (r"\.(fc1|fc2|nn|nn_2)\.conv\.", r".\1.0."),
    (r"\.(fc1|fc2|nn|nn_2)\.norm\.", r".\1.1."),
]
STEM_AND_HEAD: Rules = [
    (r"^stem\.conv1\.conv\.", "stem.stem.0."),
    (r"^stem\.conv1\.norm\.", "stem.stem.1."),
    (r"^stem\.conv2\.conv\.", "stem.stem.3."),
    (r"^stem\.conv2\.norm\.", "stem.stem.4."),
    (r"\.downsample\.conv\.", ".conv.0."),
    (r"\.downsample\.norm\.", ".conv.1."),
    (r"^head\.hidden\.conv\.", "prediction.1."),
    (r"^head\.hidden\.norm\.", "prediction.2."),
    (r"^head\.classifier\.(head|dist_head)\.", r"\1."),
]


def numbered_stages(m: re.Match) -> str:
    """`backbone.{stage}.{index}`, where a stage's downsampling takes the first index."""
    return f"backbone.{m[1]}.{int(m[2]) + (m[1] != '0')}."


NUMBERED: Rules = [
    (r"^stages\.(\d)\.blocks\.(\d+)\.", numbered_stages),
    (r"^stages\.(\d)\.downsample\.", r"backbone.\1.0.downsample."),
]


def mobilevigv2(model: Backbone) -> Rules:
    ffn: Rules = [
        (r"\.ffn\.fc1\.conv\.", ".ffn.0."),
        (r"\.ffn\.fc1\.norm\.", ".ffn.1."),
        (r"\.ffn\.fc2\.conv\.", ".ffn.3."),
        (r"\.ffn\.fc2\.norm\.", ".ffn.4."),
        (r"\.ffn\.scale\.weight$", ".layer_scale_2"),
    ]
    return NUMBERED + ffn + INVERTED_RESIDUAL_AND_MIXER + STEM_AND_HEAD


def rapidnet(model: Backbone) -> Rules:
    ffn: Rules = [
        (r"\.ffn\.depthwise\.conv\.", ".ffn.conv.conv."),
        (r"\.ffn\.depthwise\.norm\.", ".ffn.norm1."),
        (r"\.ffn\.fc1\.norm\.", ".ffn.norm2."),
        (r"\.ffn\.fc2\.norm\.", ".ffn.norm3."),
        (r"\.ffn\.(fc1|fc2)\.conv\.", r".ffn.\1."),
        (r"\.ffn\.scale\.weight$", ".layer_scale_2"),
        (r"\.mldc\.dilated1\.", ".graph_conv.nn."),
        (r"\.mldc\.dilated2\.", ".graph_conv.nn_2."),
    ]
    return NUMBERED + ffn + INVERTED_RESIDUAL_AND_MIXER + STEM_AND_HEAD


def mobilevig(model: Backbone) -> Rules:
    """The released network keeps all inverted residuals and downsamplings in one flat list, and
    after it the graph blocks, each a pair of mixer and FFN."""
    lengths = [len(blocks_of(stage)) for stage in model.stages]

    def local(m: re.Match) -> str:
        stage, index = int(m[1]), int(m[2])
        return f"local_backbone.{sum(lengths[:stage]) + stage + index}."

    def down(m: re.Match) -> str:
        stage = int(m[1])
        return f"local_backbone.{sum(lengths[:stage]) + stage - 1}.downsample."

    return [
        (r"^stages\.3\.blocks\.(\d+)\.mixer\.", r"backbone.\1.0."),
        (r"^stages\.3\.blocks\.(\d+)\.ffn\.", r"backbone.\1.1."),
        (r"^stages\.(\d)\.blocks\.(\d+)\.", local),
        (r"^stages\.(\d)\.downsample\.", down),
        (r"\.(fc1|fc2|nn)\.conv\.", r".\1.0."),
        (r"\.(fc1|fc2|nn)\.norm\.", r".\1.1."),
        (r"\.expand\.conv\.", ".mlp.fc1."),
        (r"\.expand\.norm\.", ".mlp.norm1."),
        (r"\.depthwise\.conv\.", ".mlp.mid."),
        (r"\.depthwise\.norm\.", ".mlp.mid_norm."),
        (r"\.project\.conv\.", ".mlp.fc2."),
        (r"\.project\.norm\.", ".mlp.norm2."),
        (r"\.scale\.weight$", ".layer_scale_2"),
        *STEM_AND_HEAD,
    ]


# Layouts of other projects, as changes to the released one.

TIMM_MOBILEONE: Rules = [
    (r"^stage0\.", "stem."),
    (r"^stage(\d)\.", lambda m: f"stages.{int(m[1]) - 1}."),
    (r"\.rbr_skip\.", ".identity."),
    (r"\.rbr_conv\.", ".conv_kxk."),
    (r"\.rbr_scale\.", ".conv_scale."),
    (r"\.se\.reduce\.", ".attn.fc1."),
    (r"\.se\.expand\.", ".attn.fc2."),
    (r"^linear\.", "head.fc."),
]
TIMM_FASTERNET: Rules = [
    (r"^stages\.([135])\.", lambda m: f"stages.{(int(m[1]) + 1) // 2}_.downsample."),
    (r"^stages\.([0246])\.", lambda m: f"stages.{int(m[1]) // 2}_."),
    (r"^stages\.(\d)_\.", r"stages.\1."),
    (r"^head\.", "classifier."),
    (r"^avgpool_pre_head\.1\.", "conv_head."),
]
OPENMMLAB_REPLKNET: Rules = [
    (r"^(stem|stages|transitions)\.", r"backbone.\1."),
    (r"^norm\.", "backbone.stages.3.norm."),
    (r"^head\.", "head.fc."),
]

Layouts = Mapping[str, Callable[[Backbone], Rules]]

MOBILEONE: Layouts = {
    "released": mobileone,
    "timm": lambda model: mobileone(model) + TIMM_MOBILEONE,
}
FASTERNET: Layouts = {
    "released": fasternet,
    "timm": lambda model: fasternet(model) + TIMM_FASTERNET,
}
REPLKNET: Layouts = {
    "released": replknet,
    "openmmlab": lambda model: replknet(model) + OPENMMLAB_REPLKNET,
}
MOBILEVIG: Layouts = {"released": mobilevig}
MOBILEVIGV2: Layouts = {"released": mobilevigv2}
RAPIDNET: Layouts = {"released": rapidnet}
