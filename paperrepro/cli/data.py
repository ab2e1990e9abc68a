"""`paperrepro data`: images in shards."""

from pathlib import Path
from typing import Annotated

import typer

from .console import exit_on_error

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="""Data for long trainings: a folder of images packed into shards.

    \b
    paperrepro data pack imagenet imagenet-shards
    paperrepro train fasternet_s --data imagenet-shards --out runs/imagenet
    """,
)


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
