"""What the chapters repeat: small data, a short training, and tables that read well.

    >>> from paperrepro.lessons import digits, table, train_and_test
    >>> data = digits(size=32)
    >>> train_and_test(lambda: MobileOne(num_classes=10), data, seed=0, epochs=4)

For timings there is `paperrepro.benchmark.latency.compare`, for sizes by stage
`paperrepro.complexity.stage_table`.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from html import escape
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .files import data_folder
from .models import IMAGENET
from .models.layers import LayerScale
from .reparam import reparameterize
from .weights import load_model

if TYPE_CHECKING:
    import pandas as pd

Model = TypeVar("Model", bound=nn.Module)

IGNORED = -100
"""The label of a pixel that is not asked about: neither loss nor accuracy counts it."""

CUES = {"red": (1, 0, 0), "green": (0, 1, 0), "blue": (0, 0, 1), "yellow": (1, 1, 0)}
"""What a cue can be: its class is its place in this order."""


class Split(NamedTuple):
    """Images `(N, C, H, W)` and labels to train with and to test with."""

    train_x: Tensor
    train_y: Tensor
    test_x: Tensor
    test_y: Tensor


def digits(
    size: int = 32, *, channels: int = 3, train: int | None = None, test: int | None = None
) -> Split:
    """Scikit-learn's 1,797 handwritten digits (Alpaydin and Kaynak, 1998), in grey from 0 to 1.

    Args:
        size: side in pixels; beyond their own 8 they are enlarged bilinearly.
        channels: how often the one grey channel is repeated.
        train: how many to train with; all others by default.
        test: how many to test with; a quarter, 450, by default. The split is the same each time,
            and each digit has the same share of both parts.
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    loaded = load_digits()
    images = torch.tensor(loaded.images, dtype=torch.float32)[:, None] / 16
    if size != 8:
        images = F.interpolate(images, size=size, mode="bilinear")
    images = images.expand(-1, channels, -1, -1).contiguous()
    labels = torch.tensor(loaded.target)
    sizes = {"train_size": train, "test_size": test or (None if train else 0.25)}
    first, second = train_test_split(
        range(len(labels)), random_state=0, stratify=loaded.target, **sizes
    )
    return Split(images[first], labels[first], images[second], labels[second])


def distant_cue(
    count: int, side: int = 16, distances: Sequence[int] = (4,), *, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Pictures that ask each row one question, whose answer lies some pixels away.

    In every row stands one white pixel, and left or right of it, at one of the distances, a cue: a
    pixel that is red, green, blue or yellow. The white pixel's class is the cue's colour. A layer
    that does not see the cue from the white pixel can only guess, one right in four.

    Returns:
        Images float `(count, 3, side, side)`, and labels `(count, side, side)`: the class at the
        white pixels, `IGNORED` elsewhere.

    Raises:
        ValueError: the picture has no place for such a distance.
    """
    if not distances or not all(0 < distance < side for distance in distances):
        raise ValueError(f"distances {list(distances)}: from 1 to {side - 1} in {side} pixels")
    order = torch.Generator().manual_seed(seed)
    rows = (count, side)
    far = torch.tensor(distances)[torch.randint(len(distances), rows, generator=order)]
    start = (torch.rand(rows, generator=order) * (side - far)).long()
    turned = torch.rand(rows, generator=order) < 0.5
    white, cue = torch.where(turned, start + far, start), torch.where(turned, start, start + far)
    classes = torch.randint(len(CUES), rows, generator=order)
    colors = torch.tensor(list(CUES.values()), dtype=torch.float32)[classes]
    images = torch.zeros(count, side, side, 3)
    images.scatter_(2, cue[..., None, None].expand(-1, -1, 1, 3), colors[:, :, None])
    images.scatter_(2, white[..., None, None].expand(-1, -1, 1, 3), 1.0)
    labels = torch.full((count, side, side), IGNORED)
    labels.scatter_(2, white[..., None], classes[..., None])
    return images.permute(0, 3, 1, 2).contiguous(), labels


def photographs(size: int) -> Tensor:
    """Scikit-learn's two photographs, the left and the right of each, `(4, 3, size, size)`.

    They are normalised by ImageNet's mean and standard deviation, as the stored networks expect.
    """
    from sklearn.datasets import load_sample_image

    halves = []
    for name in ("china.jpg", "flower.jpg"):
        picture = torch.from_numpy(load_sample_image(name).copy()).permute(2, 0, 1)
        halves += [picture[:, :, :427], picture[:, :, -427:]]
    return normalised(F.interpolate(torch.stack(halves).float(), (size, size), mode="area"))


def normalised(images: Tensor) -> Tensor:
    """Images with values from 0 to 255, less ImageNet's mean and over its standard deviation."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in IMAGENET)
    return (images.float() / 255 - mean) / std


def small_network(name: str) -> nn.Module:
    """A small network that was trained here, as it runs: re-parameterized, in eval mode.

    Args:
        name: of a file in `data/weights`, such as "cifar10-full-fasternet" or "shapes-replknet-k3".
    """
    return reparameterize(load_model(data_folder("weights") / f"{name}.safetensors"))


def train(
    net: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    epochs: int = 5,
    batch: int = 64,
    rate: float = 0.01,
    weight_decay: float = 0.05,
    momentum: float | None = None,
    seed: int = 0,
    after_epoch: Callable[[], object] | None = None,
) -> list[float]:
    """Trains in place on the cross-entropy, the learning rate rising and falling (one cycle).

    Args:
        net: images `(N, C, H, W)` to scores `(N, classes)`, or `(N, classes, H, W)` where each
            pixel has a label.
        weight_decay: of AdamW, or of SGD where `momentum` is given.
        seed: of the order of the images; the weights are what they are.
        after_epoch: called at the end of each epoch.

    Returns:
        The loss of each step. The network is left in eval mode.
    """
    parameters = list(net.parameters())
    optimizer: torch.optim.Optimizer
    if momentum is None:
        optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=weight_decay)
    else:
        optimizer = torch.optim.SGD(
            parameters, lr=rate, momentum=momentum, weight_decay=weight_decay
        )
    steps = len(x) // batch
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=epochs * steps)
    order = torch.Generator().manual_seed(seed)
    losses = []
    for _ in range(epochs):
        net.train()
        for picked in torch.randperm(len(x), generator=order)[: steps * batch].split(batch):
            loss = F.cross_entropy(net(x[picked]), y[picked], ignore_index=IGNORED)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
        if after_epoch:
            after_epoch()
    net.eval()
    return losses


@torch.no_grad()
def accuracy(net: nn.Module, x: Tensor, y: Tensor) -> float:
    """The share of right answers, of images or of the pixels that are asked about; in eval mode."""
    net.eval()
    answers = torch.cat([net(part).argmax(1) for part in x.split(256)])
    asked = y != IGNORED
    return (answers == y)[asked].float().mean().item()


def train_and_test(
    make: Callable[[], nn.Module], data: Split, *, seed: int = 0, **settings: Any
) -> float:
    """The test accuracy of a new network after a short training.

    Args:
        make: makes the network; its weights are drawn with the seed.
        seed: of the weights and of the order of the images.
        settings: of `train`.
    """
    torch.manual_seed(seed)
    net = make()
    train(net, data.train_x, data.train_y, seed=seed, **settings)
    return accuracy(net, data.test_x, data.test_y)


@torch.no_grad()
def as_if_trained(model: Model, seed: int = 0) -> Model:
    """Gives every BatchNorm and LayerScale random values, as a training would, in place.

    Fresh ones do nothing, or nearly: a mistake in folding them would not show.

    Returns:
        The same model in eval mode.
    """
    dice = torch.Generator().manual_seed(seed)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.bias.normal_(0, 0.5, generator=dice)
            assert layer.running_mean is not None and layer.running_var is not None
            layer.running_mean.normal_(0, 0.5, generator=dice)
            layer.running_var.uniform_(0.5, 2, generator=dice)
        if isinstance(layer, nn.BatchNorm2d | LayerScale):
            layer.weight.uniform_(0.5, 1.5, generator=dice)
    return model.eval()


def copy_weights(source: nn.Module, target: Model) -> Model:
    """Copies all weights and statistics in their order, whatever their names.

    Returns:
        The target in eval mode.

    Raises:
        ValueError: the two have another number of tensors, or other shapes in this order.
    """
    new, old = list(source.state_dict().items()), list(target.state_dict().items())
    if len(new) != len(old):
        raise ValueError(f"{len(new)} tensors in the source, {len(old)} in the target")
    for (theirs, tensor), (ours, place) in zip(new, old, strict=True):
        if tensor.shape != place.shape:
            raise ValueError(f"{theirs} {tuple(tensor.shape)} for {ours} {tuple(place.shape)}")
    target.load_state_dict({ours: tensor for (ours, _), (_, tensor) in zip(old, new, strict=True)})
    return target.eval()


class Table:
    """A table that a notebook shows as HTML; `str` gives the same as plain text.

    Attributes:
        heads: what stands above the columns.
        rows: the texts of the cells.
        numeric: of each column, whether it holds numbers, which stand right.
        labels: how many columns at the left name the row.
        caption: what stands above it all.
    """

    def __init__(
        self,
        heads: list[str],
        rows: list[list[str]],
        numeric: list[bool],
        labels: int,
        caption: str,
    ) -> None:
        self.heads, self.rows, self.numeric = heads, rows, numeric
        self.labels, self.caption = labels, caption

    def __str__(self) -> str:
        lines = [self.heads, *self.rows]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        text = "\n".join(
            "  ".join(
                cell.rjust(width) if right else cell.ljust(width)
                for cell, width, right in zip(line, widths, self.numeric, strict=True)
            ).rstrip()
            for line in lines
        )
        return f"{self.caption}\n\n{text}" if self.caption else text

    __repr__ = __str__

    def _repr_html_(self) -> str:
        sides = ["right" if right else "left" for right in self.numeric]
        head = "".join(
            f'<th scope="col" style="text-align:{side}">{escape(text)}</th>'
            for text, side in zip(self.heads, sides, strict=True)
        )
        body = "".join(f"<tr>{self.cells(row, sides)}</tr>" for row in self.rows)
        caption = (
            f'<caption style="caption-side:top;text-align:left">{escape(self.caption)}</caption>'
            if self.caption
            else ""
        )
        name = escape(self.caption or f"Table of {', '.join(self.heads)}")
        return (
            f'<div class="pr-table" role="region" tabindex="0" aria-label="{name}" '
            'style="overflow-x:auto;max-width:100%">'
            f'<table class="dataframe">{caption}<thead><tr>{head}</tr></thead>'
            f"<tbody>{body}</tbody></table></div>"
        )

    def cells(self, row: list[str], sides: list[str]) -> str:
        parts = []
        for place, (text, side) in enumerate(zip(row, sides, strict=True)):
            kind = 'th scope="row"' if place < self.labels else "td"
            style = f"text-align:{side}" + (";white-space:nowrap" if side == "right" else "")
            parts.append(f'<{kind} style="{style}">{escape(text)}</{kind[:2]}>')
        return "".join(parts)


def table(
    frame: "pd.DataFrame | pd.Series",
    *,
    heads: Mapping[Any, str] | None = None,
    digits: int | Mapping[Any, int] = 2,
    caption: str = "",
) -> Table:
    """A table with readable heads: numbers stand right, what is missing is a dash.

    The same frame gives the same bytes each time. A wide table scrolls inside its own box.

    Args:
        frame: a row each; an index that is not just a count stands at the left.
        heads: by column, or by the index's name, what stands above it; else its own name. Columns
            of several levels have a tuple, and the levels' names joined by commas.
        digits: digits after the point of the numbers that are not whole, of all columns or by
            column (else 2). Whole numbers get commas at the thousands.
        caption: what the table shows, in one sentence.

    Raises:
        ValueError: `heads` or `digits` names a column that is not there.
    """
    import pandas as pd

    frame = frame.to_frame() if isinstance(frame, pd.Series) else frame
    labels = 0 if isinstance(frame.index, pd.RangeIndex) else frame.index.nlevels
    columns = [
        (name, list(frame.index.get_level_values(level)))
        for level, name in enumerate(frame.index.names[:labels])
    ]
    columns += [(name, list(frame.iloc[:, place])) for place, name in enumerate(frame.columns)]
    known = {name for name, _ in columns}
    heads, places = heads or {}, digits if isinstance(digits, Mapping) else {}
    if unknown := (set(heads) | set(places)) - known:
        raise ValueError(
            f"no column {sorted(map(str, unknown))}: there are {sorted(map(str, known))}"
        )
    names, texts, numeric = [], [], []
    for name, values in columns:
        own = ", ".join(map(str, name)) if isinstance(name, tuple) else str(name or "")
        names.append(heads.get(name, own))
        after = places.get(name, 2) if isinstance(digits, Mapping) else digits
        texts.append([text_of(value, after) for value in values])
        present = [value for value in values if not missing(value)]
        numeric.append(bool(present) and all(is_number(value) for value in present))
    return Table(names, [list(row) for row in zip(*texts, strict=True)], numeric, labels, caption)


def missing(value: Any) -> bool:
    import pandas as pd

    return bool(pd.isna(value))


def is_number(value: object) -> bool:
    return isinstance(value, Real | Decimal) and not isinstance(value, bool | np.bool_)


def text_of(value: object, digits: int) -> str:
    """A cell's text: a dash for what is missing, a decimal with its own digits, 1,234 and 0.10."""
    if missing(value):
        return "–"
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, Integral):
        return f"{int(value):,}"
    if isinstance(value, Real):
        return re.sub(r"^-(0\.?0*)$", r"\1", f"{float(value):,.{digits}f}")
    return str(value)


def claims_table(claims: "pd.DataFrame", caption: str = "") -> Table:
    """Rows of `paperrepro.claims.load_claims`: the paper's value, ours, and the verdict."""
    from .claims import QUANTITIES

    names = claims["quantity"].map(lambda key: SHORT.get(key, QUANTITIES[key].meaning))
    units = claims["unit"].map(lambda unit: f", {unit}" if unit else "")
    heads = {"item": "In the paper", "subject": "Of", "what": "What", "paper_value": "Paper"}
    heads |= {"ours": "Ours", "verdict": "Verdict"}
    shown = claims.assign(what=names + units)[list(heads)].reset_index(drop=True)
    return table(shown, heads=heads, caption=caption)


def outcomes_table(outcomes: "pd.DataFrame", caption: str = "") -> Table:
    """Rows of `paperrepro.claims.outcomes.load_outcomes`: the paper's value, ours, the verdict.

    Beside ours stand its interval and the smallest effect that the design would have found.
    """
    interval = [
        f"{text_of(low, 1)} to {text_of(high, 1)}".replace(" ", "\N{NO-BREAK SPACE}")
        for low, high in zip(outcomes["low"], outcomes["high"], strict=True)
    ]
    heads = {"statement": "Compared", "paper": "Paper", "ours": "Ours", "interval": "Interval"}
    heads |= {"visible": "Visible", "verdict": "Verdict"}
    shown = outcomes.assign(interval=interval)[list(heads)].reset_index(drop=True)
    return table(shown, heads=heads, digits=1, caption=caption)


SHORT = {
    "params": "parameters",
    "macs": "multiply-adds",
    "top1": "ImageNet top-1",
    "miou": "mIoU",
    "ap_box": "box AP",
    "ap_mask": "mask AP",
    "latency_phone": "latency, phone",
    "latency_cpu": "latency, CPU",
    "latency_arm": "latency, ARM",
    "latency_gpu": "latency, GPU",
    "throughput_gpu": "throughput, GPU",
    "kernels": "kernel sizes",
    "dw_ratio": "width of the depthwise layer",
}
"""Of `claims.QUANTITIES`, those with a name that is shorter than their meaning."""
