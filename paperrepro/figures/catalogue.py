"""The figures that move, each with its title, its caption and where its numbers come from."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from . import measured, numbers, workings


@dataclass(frozen=True)
class Moving:
    """A figure that moves.

    Attributes:
        title: its name for who hears it.
        caption: what to do, and what to see.
        numbers: the numbers that its script gets, as JSON takes them.
        alt: its first state in words.
        height: of the picture, 346 wide.
    """

    title: str
    caption: str
    numbers: Callable[[], dict[str, Any]]
    alt: Callable[[], str]
    height: int


FIGURES = {
    "reparameterization": Moving(
        "Three branches become one kernel",
        "Move the step, and pick a cell: by finger, by mouse, or with the arrow keys. Each "
        "number of the one kernel is the sum of the numbers above it.",
        numbers.reparameterization,
        numbers.say_reparameterization,
        336,
    ),
    "pconv": Moving(
        "A partial convolution",
        "Take a smaller part of the channels: the multiply-adds fall with its square, the memory "
        "access almost with the part itself (FasterNet, Section 3.2).",
        numbers.pconv,
        numbers.say_pconv,
        236,
    ),
    "kernel": Moving(
        "A large kernel over the map of a stage",
        "Move the kernel over the map and change its size: beside the border, and on the small "
        "maps, most of a large kernel lies on padding. The first K of each stage is "
        "RepLKNet-31B's.",
        numbers.kernel,
        numbers.say_kernel,
        344,
    ),
    "graph": Moving(
        "The links of a pixel in MGC and SVGA",
        "Pick a pixel to see its links, and change K and the side of the map. Pixels of one "
        "colour can reach each other through the graph; the colours repeat where there are more "
        "islands.",
        dict,
        lambda: (
            "MGC with K = 4 on a map of 14 × 14, MobileViGv2's stage 3: a pixel has four links "
            "along its row and its column. The map falls into 4 islands of 49 pixels."
        ),
        346,
    ),
    "dilation": Moving(
        "What stacked dilated kernels see",
        "Stack more layers and compare the kernels: one dilation alone leaves holes that no "
        "number of layers fills. Two dilations leave none around the pixel from the second "
        "layer on, only a few at the window's border (RapidNet, Section 3.2).",
        numbers.dilation,
        numbers.say_dilation,
        346,
    ),
    "speed": Moving(
        "Accuracy against four measures of cost",
        "Switch what stands across and watch the order change. Accuracies and phone latencies "
        "are the papers' (MobileOne on an iPhone 12, MobileViGv2 and RapidNet on an iPhone 13 "
        "Mini); counts and CPU latencies are ours: paperrepro models, paperrepro benchmark "
        "models.",
        numbers.speed,
        numbers.say_speed,
        344,
    ),
    "interval": Moving(
        "What more seeds make visible",
        "Add seeds: the intervals shrink, and with them the grey band, within which no difference "
        "is visible. Small dots are single seeds, diamonds are the paper's differences "
        "(FasterNet, Table 5). With two or three seeds the width itself is chance.",
        measured.interval,
        measured.say_interval,
        330,
    ),
    "cue": Moving(
        "Can the pixel see the cue?",
        "Move the cue away and change the kernels: only what lies within the reach of both blocks "
        "can tell the class. The reach is computed from the layers by "
        "paperrepro.analysis.receptive_field.",
        workings.cue,
        workings.say_cue,
        304,
    ),
    "schedule": Moving(
        "The learning rate, and what an average remembers",
        "Change the schedule, its length and the decay: in a long training an average of 0.9995 "
        "is made of the last moments; in a short one it is made of the random beginning.",
        workings.schedule,
        workings.say_schedule,
        316,
    ),
    "waiting": Moving(
        "What a user waits for",
        "Raise the load: long before a server is busy all the time, most of the wait is the "
        "queue. The times of MobileOne-S0 were measured (paperrepro benchmark deployment), the "
        "requests come at random and are drawn by computer.",
        measured.waiting,
        measured.say_waiting,
        360,
    ),
    "rounding": Moving(
        "Weights on a grid of few bits",
        "Take bits away, then give each channel a scale of its own. With one scale the channel "
        "with the largest weight sets the grid, and one with small weights loses most.",
        workings.rounding,
        workings.say_rounding,
        290,
    ),
    "path": Moving(
        "The way of integrated gradients",
        "Move back to the grey picture and forth again: at each place the attributions add up to "
        "what the logit has risen so far. Green speaks for the class, pink against it. The "
        "network is this book's small RapidNet.",
        workings.path,
        workings.say_path,
        344,
    ),
    "crop": Moving(
        "What the middle of a large kernel holds",
        "Crop the kernels of a trained RepLKNet (stored in data/weights, 64 pixels): the curve "
        "says how much of the squared weights stays. What lies outside the dashed square met "
        "nothing but padding, and no gradient ever moved it. The stronger the colour, the larger "
        "the weights (by the root).",
        workings.crop,
        workings.say_crop,
        372,
    ),
    "bias": Moving(
        "What people and networks decide by",
        "Choose a network. Each picture has the shape of one thing and the texture of another; a "
        "row holds the pictures of one shape. Decisions as published by Geirhos et al. (2019), "
        "counted by paperrepro shape-bias.",
        measured.bias,
        measured.say_bias,
        364,
    ),
}
