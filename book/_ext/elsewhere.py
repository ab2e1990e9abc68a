"""Links to the pages of Python, PyTorch and others, made without a network.

intersphinx takes the addresses of names from an inventory that each site offers. These are written
here, with the few names that the library's signatures and docstrings use.
"""

import zlib
from pathlib import Path

# By site: its address and, by the page, the names there as the signatures spell them. In a page "@"
# stands for the last part of a name.
SITES = {
    "python": (
        "https://docs.python.org/3/",
        {
            "library/collections.abc.html#collections.abc.@": (
                "collections.abc.Callable collections.abc.Collection collections.abc.Iterable "
                "collections.abc.Iterator collections.abc.Mapping collections.abc.Sequence"
            ),
            "library/os.html#os.@": "os.PathLike",
            "library/pathlib.html#pathlib.@": "pathlib.Path Path",
            "library/re.html#re.@": "re.Match",
            "library/types.html#types.@": "types.ModuleType",
            "library/exceptions.html#@": "ImportError OSError RuntimeError TypeError ValueError",
            "library/functions.html#@": "bool float int",
            "library/stdtypes.html#@": "bytes dict list range str tuple",
        },
    ),
    "torch": (
        "https://docs.pytorch.org/docs/stable/",
        {
            "tensors.html#torch.Tensor": "torch.Tensor Tensor",
            "tensor_attributes.html#torch.@": "torch.dtype torch.device",
            "generated/torch.nn.@.html#torch.nn.@": (
                "torch.nn.Module torch.nn.modules.module.Module nn.Module Module "
                "torch.nn.modules.conv.Conv2d torch.nn.modules.container.Sequential"
            ),
            "generated/torch.@.html#torch.@": "torch._C.Generator torch.Generator",
            "data.html#torch.utils.data.@": (
                "torch.utils.data.dataset.Dataset torch.utils.data.dataloader.DataLoader"
            ),
        },
    ),
    "torchvision": (
        "https://docs.pytorch.org/vision/stable/",
        {
            "generated/torchvision.transforms.v2.@.html#torchvision.transforms.v2.@": (
                "torchvision.transforms.v2._container.Compose "
                "torchvision.transforms.v2._transform.Transform"
            )
        },
    ),
    "pandas": (
        "https://pandas.pydata.org/docs/",
        {
            "reference/api/pandas.@.html#pandas.@": "pandas.DataFrame pd.DataFrame pandas.Series pd.Series"
        },
    ),
    "numpy": (
        "https://numpy.org/doc/stable/",
        {
            "reference/generated/numpy.@.html#numpy.@": "numpy.ndarray",
            "reference/generated/numpy.ndarray.html#numpy.ndarray": "Array",
            "reference/typing.html#numpy.typing.@": "numpy.typing.ArrayLike ArrayLike",
        },
    ),
    "matplotlib": (
        "https://matplotlib.org/stable/",
        {
            "api/_as_gen/matplotlib.figure.@.html#matplotlib.figure.@": (
                "matplotlib.figure.Figure Figure"
            ),
            "api/_as_gen/matplotlib.axes.@.html#matplotlib.axes.@": "matplotlib.axes._axes.Axes",
            "api/_as_gen/matplotlib.lines.@.html#matplotlib.lines.@": "matplotlib.lines.Line2D",
        },
    ),
    "pillow": (
        "https://pillow.readthedocs.io/en/stable/",
        {"reference/Image.html#PIL.Image.Image": "PIL.Image.Image"},
    ),
}


TYPE_VARIABLES = (
    "paperrepro.benchmark.latency.Name",
    "paperrepro.lessons.Model",
    "paperrepro.reparam.Network",
)
"""Which have no page."""


def write(app, config):
    config.nitpick_ignore = [("py:class", name) for name in TYPE_VARIABLES]
    folder = Path(app.doctreedir).parent / "inventories"
    folder.mkdir(parents=True, exist_ok=True)
    for site, (address, names) in SITES.items():
        rows = (
            f"{name} py:class 1 {page.replace('@', name.rpartition('.')[2])} -"
            for page, found in names.items()
            for name in found.split()
        )
        head = f"# Sphinx inventory version 2\n# Project: {site}\n# Version: \n"
        head += "# The remainder of this file is compressed using zlib.\n"
        path = folder / f"{site}.inv"
        path.write_bytes(
            head.encode()
            + zlib.compress("".join(f"{r}\n" for r in rows).encode())
        )
        config.intersphinx_mapping[site] = (address, str(path))


def setup(app):
    before_intersphinx = 100
    app.connect("config-inited", write, priority=before_intersphinx)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
