"""`paperrepro train`, `evaluate`, `recipe` and `experiment`."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .console import (
    DeviceOption,
    Format,
    FormatOption,
    NameArgument,
    WorkersOption,
    command_line,
    exit_on_error,
    exit_on_signal,
    render,
)
from .dense import evaluate_dense, is_dense

if TYPE_CHECKING:
    from ..training import Recipe

DataOption = Annotated[
    str,
    typer.Option(
        help="shapes, digits, cifar10, fashion-mnist, a folder of images, or what `paperrepro "
        "data pack` wrote, in a folder or at an address.",
        metavar="NAME|FOLDER",
    ),
]
RootOption = Annotated[
    Path, typer.Option(help="Where the named data lie, or are downloaded to.", metavar="FOLDER")
]
DownloadOption = Annotated[bool, typer.Option("--download", help="Fetch named data first.")]
RecipeOption = Annotated[
    str,
    typer.Option(
        help="A recipe that `paperrepro recipe NAME` lists, or a file of one.",
        metavar="RECIPE|FILE",
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", help="Replace a field of the recipe; may be repeated.", metavar="FIELD=VALUE"
    ),
]

LARGEST_DIFFERENCE = 1e-3  # of the logits' standard deviation, between a network and its fused form


def train(
    name: NameArgument,
    data: DataOption,
    out: Annotated[Path, typer.Option(help="The folder of the run.", metavar="RUN")],
    recipe: RecipeOption = "paper",
    settings: SetOption = None,
    task: Annotated[
        str, typer.Option(help="classify, segment or detect.", metavar="TASK")
    ] = "classify",
    head: Annotated[
        str | None,
        typer.Option(
            help="Of a segmenter: semantic_fpn, upernet, deeplabv3. Of a detector: mask_rcnn, "
            "faster_rcnn, cascade_mask_rcnn, retinanet, fcos, ssdlite.",
            metavar="HEAD",
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in that folder, if there is one.")
    ] = False,
    allow: Annotated[
        list[str] | None,
        typer.Option(
            help="What may be other than when the run was begun: a field of the recipe, data or "
            "processes; may be repeated.",
            metavar="FIELD",
        ),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(help="Begin with these: 'released', or a file.", metavar="FILE"),
    ] = None,
    trunk_only: Annotated[
        bool, typer.Option("--trunk-only", help="Take all but the classifier from --weights.")
    ] = False,
    root: RootOption = Path("data"),
    download: DownloadOption = False,
    workers: WorkersOption = 0,
    prefetch: Annotated[
        int, typer.Option(help="Batches that each worker prepares ahead.", min=1)
    ] = 2,
    device: DeviceOption = None,
    compile: Annotated[bool, typer.Option("--compile", help="Compile by torch.compile.")] = False,
    channels_last: Annotated[bool, typer.Option(help="The images' layout in memory.")] = True,
    tf32: Annotated[
        bool, typer.Option(help="Let an NVIDIA GPU round float32 matrices to TF32.")
    ] = True,
    deterministic: Annotated[
        bool, typer.Option("--deterministic", help="Use deterministic kernels only.")
    ] = False,
    grad_checkpointing: Annotated[
        bool,
        typer.Option("--grad-checkpointing", help="Compute blocks twice, to save memory."),
    ] = False,
    minutes: Annotated[
        float, typer.Option(help="Between two checkpoints: a kill loses no more.", min=0.0)
    ] = 10.0,
    keep: Annotated[
        int, typer.Option(help="Epochs whose checkpoints are kept, as epoch-N.pt.", min=0)
    ] = 0,
    log_every: Annotated[
        int, typer.Option(help="Steps between two looks at the losses.", min=1)
    ] = 50,
    wandb: Annotated[
        str | None,
        typer.Option(help="Send the log to Weights & Biases, too.", metavar="PROJECT"),
    ] = None,
) -> None:
    """Train a network by a recipe.

    The folder RUN gets checkpoints (last.pt and the one before), log.csv and log.json (a row per
    epoch), steps.csv (a row per step), recipe.json, best.safetensors and, at the end,
    model.safetensors; TensorBoard reads it where it is installed.

    A training that was stopped goes on with the same command and --resume, and refuses another
    recipe, other data or another number of processes unless --allow names them. Under torchrun the
    same command trains in many processes, on as many machines.

    \b
    Examples:
      paperrepro train mobileone_s0 --data digits --recipe small --out runs/digits
      paperrepro train fasternet_t0 --data shapes --recipe small --set size=64 --out runs/shapes
      paperrepro train mobileone_s0 --data digits --recipe small --out runs/digits --resume \\
        --set epochs=30 --allow epochs
      torchrun --nproc-per-node 8 -m paperrepro train fasternet_s --data imagenet \\
        --out runs/imagenet --workers 12 --resume
      paperrepro train rapidnet_ti --task segment --data scenes --recipe small --set size=96 --out s
      torchrun --nproc-per-node 8 -m paperrepro train fasternet_s --task detect --data coco \\
        --recipe mask_rcnn --weights released --out runs/coco --workers 12 --resume
    """
    with exit_on_signal():
        from ..datasets import load_data
        from ..files import pick_device
        from ..training import Machine
        from ..training import train as run_training
        from ..training.trainer import fit
        from .dense import make_task

        with exit_on_error(2):
            resolved = choose_recipe(name, recipe, settings)
            pick_device(device)
            if trunk_only and weights is None:
                raise ValueError("--trunk-only takes the trunk of --weights: give that, too")
        machine = Machine(
            device=device,
            workers=workers,
            prefetch=prefetch,
            compile=compile,
            channels_last=channels_last,
            tf32=tf32,
            deterministic=deterministic,
            grad_checkpointing=grad_checkpointing,
            minutes=minutes,
            keep=keep,
            log_every=log_every,
            wandb=wandb,
        )
        with exit_on_error(1):
            if task != "classify":
                chosen = make_task(task, head, resolved, data, weights)
                log = fit(chosen, out, resume=resume, allow=allow or (), machine=machine)
                if int(os.environ.get("RANK", 0)) == 0:
                    best = f"{chosen.headline} {log.iloc[-1][chosen.headline]:.3f}"
                    typer.echo(f"{best} on {len(chosen.val)} pictures; {out / 'model.safetensors'}")
                return
            splits = load_data(data, root=root, download=download, size=resolved.size)
            log = run_training(
                resolved,
                splits,
                out,
                weights=weights,
                trunk_only=trunk_only,
                resume=resume,
                allow=allow or (),
                machine=machine,
            )
    if int(os.environ.get("RANK", 0)) == 0:
        last = log.iloc[-1]
        typer.echo(
            f"top-1 {last['top1']:.2f} %, top-5 {last['top5']:.2f} % on {len(splits.val)} images; "
            f"{out / 'model.safetensors'}"
        )


def evaluate(
    name: NameArgument,
    weights: Annotated[
        str,
        typer.Option(help="'released', or a file of weights.", metavar="FILE"),
    ],
    data: DataOption,
    size: Annotated[
        int | None,
        typer.Option(
            help="Side of the images; what the file says, else the release's.",
            metavar="PIXELS",
            min=32,
        ),
    ] = None,
    root: RootOption = Path("data"),
    download: DownloadOption = False,
    workers: WorkersOption = 0,
    device: DeviceOption = None,
    format: FormatOption = Format.table,
) -> None:
    """Evaluate weights: top-1, top-5, images per second, as trained and re-parameterized.

    Of a file that holds a segmenter: mean IoU and pixel accuracy; of a detector: COCO's numbers.

    The images are prepared as the file of weights says, or as the released network was evaluated.
    The speed is the network's alone, in batches of 64.

    \b
    Examples:
      paperrepro evaluate mobileone_s0 --weights runs/digits/model.safetensors --data digits
      paperrepro evaluate fasternet_t0 --weights released --data imagenet
    """
    if is_dense(weights):
        evaluate_dense(weights, data, size, workers, device, format)
        return
    from ..datasets import PAINTED, load_data
    from ..files import pick_device
    from ..models import Backbone, check_name
    from ..networks import find_network, transform_of
    from ..training.evaluation import evaluate_forms

    with exit_on_error(2):
        check_name(name)
        place = pick_device(device)
    with exit_on_error(1):
        splits = load_data(data, root=root, download=download)
        opened = find_network(name, weights=weights, size=size, num_classes=len(splits.classes))
        if data in PAINTED:  # which are painted at the network's size
            splits = load_data(data, size=opened.input.size)
        assert isinstance(opened.model, Backbone)
        table, difference, equal = evaluate_forms(
            opened.model, splits.val, transform_of(opened.input), workers=workers, device=place
        )
        formats = {"top1": "{:.2f}", "top5": "{:.2f}", "images_per_second": "{:.0f}"}
        for column, pattern in formats.items():
            table[column] = table[column].map(pattern.format)
        typer.echo(render(table, format))
        if not difference <= LARGEST_DIFFERENCE:
            raise ValueError(
                f"the re-parameterized network differs: its logits by {difference:.2g} standard "
                f"deviations, its answers in {100 - equal:.1f} % of the images"
            )
        typer.echo(
            f"The two agree: logits to {difference:.1e} standard deviations, {equal:.1f} % of the "
            "answers.",
            err=True,
        )


def recipe(
    name: NameArgument,
    recipe: RecipeOption = "paper",
    settings: SetOption = None,
    format: Annotated[
        Format, typer.Option("--format", help="How it is written.", show_choices=True)
    ] = Format.table,
) -> None:
    """Show how a network is trained: by its paper, or at a small scale and why so.

    A recipe for detection or segmentation also shows its command and an estimate of its GPU-hours.
    With --format json it is a file that --recipe reads.

    \b
    Examples:
      paperrepro recipe fasternet_s
      paperrepro recipe fasternet_s --recipe mask_rcnn
      paperrepro recipe mobileone_s0 --recipe small
      paperrepro recipe replknet_31b --recipe 384 --format json > finetune.json
    """
    from dataclasses import asdict

    import pandas as pd

    from ..training.cost import DOWNSTREAM, downstream_help
    from ..training.recipe import REASONS, changes, find_recipe, list_recipes, meanings

    with exit_on_error(2):
        resolved = choose_recipe(name, recipe, settings)
    if format is Format.json:
        typer.echo(resolved.to_json())
        return
    meaning = meanings()
    fields = [
        {"field": field, "value": written(value), "meaning": meaning[field]}
        for field, value in asdict(resolved).items()
        if field != "source"
    ]
    different = [
        {
            "field": field,
            "value": written(value),
            "paper": written(paper),
            "why": REASONS[field] if recipe == "small" and field in REASONS else "",
        }
        for field, (value, paper) in changes(resolved, find_recipe(name)).items()
        if field != "source"
    ]
    if format is not Format.table:
        typer.echo(render(pd.DataFrame(fields), format))
        return
    typer.echo(f"{resolved.source}\n\n{render(pd.DataFrame(fields), format)}")
    if different:
        typer.echo(f"\nUnlike the recipe 'paper'\n{render(pd.DataFrame(different), format)}")
    if recipe in DOWNSTREAM:
        typer.echo(f"\n{downstream_help(name, recipe)}")
    typer.echo(f"\nRecipes of {name}: {', '.join(list_recipes(name))}")


def experiment(
    context: typer.Context,
    name: Annotated[
        str | None,
        typer.Argument(help="Which one; without a name all are listed."),
    ] = None,
    list_all: Annotated[
        bool,
        typer.Option("--list", help="List all, with what is stored and what it costs."),
    ] = False,
    measure: Annotated[
        bool,
        typer.Option(
            "--measure", help="With --list: measure the steps that the costs are estimated from."
        ),
    ] = False,
    data: Annotated[
        str | None,
        typer.Option(
            help="Other data than the experiment's own; `paperrepro data sources` says where those "
            "of the stored results come from.",
            metavar="NAME|FOLDER",
        ),
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(help="Runs of each variant; the design's by default.", min=1)
    ] = None,
    jobs: Annotated[int, typer.Option(help="Runs at a time, a thread each.", min=1)] = 1,
    runs: Annotated[
        Path, typer.Option(help="The folder of the runs; what is done there stays.")
    ] = Path("runs"),
    out: Annotated[
        Path | None, typer.Option(help="The folder of the results.", metavar="FOLDER")
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(help="Keep seed 0's networks there, in half precision.", metavar="FOLDER"),
    ] = None,
    add: Annotated[
        bool,
        typer.Option(
            "--add", help="Keep the runs that --out holds, of the same data; train the others."
        ),
    ] = False,
    root: RootOption = Path("data"),
    download: DownloadOption = False,
    finished: Annotated[
        bool,
        typer.Option("--finished", help="Of scenes and camvid: train none, take what is done."),
    ] = False,
    format: FormatOption = Format.table,
) -> None:
    """Run an ablation of the papers at a small scale: several variants, several seeds.

    With --list all are shown: the seeds that are stored of those of the design, the hours that the
    stored runs took by the clock on a busy machine, and the core-hours of the whole design on a
    quiet one, an ESTIMATE from a measured step of each variant.

    The data of cifar10 come by --download. The stored results had the same pictures as JPEG files,
    from a repository: `paperrepro data sources cifar10-jpeg`.

    Two are of segmentation: scenes, which are drawn, and camvid, whose archive --data names. Both
    print what became of their comparisons. With --out the folder gets segmentation-NAME.csv (a row
    per run and value) and segmentation-NAME.json (the recipes); of scenes also how far its networks
    look (segmentation-scenes-reach.csv); with --weights and camvid a picture of where its networks
    are right.

    An experiment that was stopped goes on with the same command, and on another machine from its
    results alone with --add: what --out holds is not trained again. With --out the folder gets
    experiment-NAME.csv (a row per run), experiment-NAME-log.csv (a row per epoch),
    experiment-NAME-correct.npz (which test images each network classifies rightly),
    experiment-NAME-trials.csv (where each variant chooses its learning rate) and
    experiment-NAME.json (the recipes).

    \b
    Examples:
      paperrepro experiment --list
      paperrepro experiment shapes --jobs 2 --out data/results --weights data/weights
      paperrepro experiment fasternet-block --root ~/datasets --download
      paperrepro experiment mobileone-factor --data CIFAR-10-images --jobs 2
      paperrepro experiment cifar10-full --data CIFAR-10-images --out data/results --add
    """

    from ..claims.dense import dense_comparisons
    from ..files import check_writable, replacing, write_atomically
    from ..results import rounded, save_correct, save_result
    from ..training.dense_studies import (
        STUDIES,
        keep_networks,
        reaches,
        run_study,
        study_json,
        where_right,
    )
    from ..training.experiments import (
        Outcome,
        find_experiment,
        keep_weights,
        load_outcome,
        recipes_json,
        run_experiment,
        source_of,
        summary,
    )

    if name is None or list_all:
        from ..training.listing import STEPS, listing, measure_steps

        with exit_on_error(1), exit_on_signal():
            if out:
                check_writable(out)
            table = rounded(measure_steps()) if measure else listing()
            if measure and out:
                command = command_line(context)
                save_result(out / f"{STEPS}.csv", table, command=command, threads=1)
        typer.echo(render(table, format))
        return
    if name in STUDIES:
        with exit_on_error(1):
            if out:
                check_writable(out)
            with exit_on_signal():
                table = run_study(name, runs, data=data, seeds=seeds, train=not finished)
            given = f" --data {Path(data).name}" if data else ""
            command = f"paperrepro experiment {name}{given}"
            if out:
                save_result(out / f"segmentation-{name}.csv", table, command=command, threads=1)
                recipes = study_json(name, runs, table)
                write_atomically(out / f"segmentation-{name}.json", recipes)
                if name == "scenes":
                    save_result(
                        out / "segmentation-scenes-reach.csv", reaches(runs), command=command
                    )
            if weights:
                kept = keep_networks(name, runs, weights, data=data)
                typer.echo(render(kept, format), err=True)
                if out:
                    save_result(out / f"weights-{name}.csv", kept, command=command)
                    if name == "camvid" and data:
                        with replacing(out / "segmentation-camvid-right.png") as partial:
                            where_right(runs, data).save(partial, format="PNG")
            keys = [key for key in table if key not in ("seed", "params", "value")]
            means = table.groupby(keys, sort=False, dropna=False)["value"]
            shown = means.agg(["mean", "std", "count"]).round(2).reset_index()
            typer.echo(render(shown, format))
            compared = rounded(dense_comparisons(name, table)).drop(columns="variant")
            told = f"The first decides.\n{render(compared, format)}"
            if compared.empty:
                told = "Fewer than three seeds of K = 3 and K = 31: the rule compares none."
            typer.echo(f"\n{told}", err=True)
        return
    with exit_on_error(2):
        study = find_experiment(name)
        if add and not out:
            raise ValueError("--add: to which results? Name their folder by --out")
    with exit_on_error(1):
        if out:
            check_writable(out)
        with exit_on_signal():
            outcome = run_experiment(
                study,
                runs / name,
                data=data,
                root=root,
                seeds=seeds or study.seeds,
                jobs=jobs,
                known=load_outcome(study, name, out) if out and add else Outcome(),
                download=download,
            )
        command = command_line(context, "runs", "weights")
        if out:
            stem = out / f"experiment-{name}"
            splits, test = source_of(study, data, root).load(size=64)
            facts = {
                "source": study.source,
                "images": f"{len(splits.train)} for training, {len(test)} for testing",
                "seeds": outcome.table["seed"].nunique(),
                "threads": "1 per run",
            }
            save_result(f"{stem}.csv", outcome.table, command=command, **facts)
            save_result(f"{stem}-log.csv", outcome.log, command=command, **facts)
            save_correct(out / f"{stem.name}-correct.npz", outcome.correct)
            if len(outcome.trials):
                trials = out / f"{stem.name}-trials.csv"
                save_result(trials, outcome.trials, command=command, **facts)
            write_atomically(stem.with_suffix(".json"), recipes_json(study))
        if weights:
            kept = keep_weights(study, name, runs / name, weights, data=data, root=root)
            typer.echo(render(kept, format), err=True)
            if out:
                save_result(out / f"weights-{name}.csv", kept, command=command)
    typer.echo(render(summary(outcome.table), format))


def written(value: object) -> str:
    return str(value).replace("'", "")


def choose_recipe(name: str, recipe: str, settings: list[str] | None) -> "Recipe":
    """A recipe by its name or from a file, with the fields that were set."""
    from ..models import check_name
    from ..training.recipe import find_recipe, from_json, override

    check_name(name)
    if recipe.endswith(".json"):
        try:
            resolved = from_json(Path(recipe).read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{recipe}: {error}") from error
        if resolved.model != name:
            raise ValueError(f"{recipe} is a recipe for {resolved.model}, not for {name}")
    else:
        resolved = find_recipe(name, recipe)
    resolved = override(resolved, settings or [])
    if settings or recipe.endswith(".json"):
        check_config(resolved)
    return resolved


def check_config(recipe: "Recipe") -> None:
    """Whether the network takes the recipe's options; it is built without memory."""
    import torch

    from ..models import build_model

    with torch.device("meta"):
        build_model(recipe.model, **recipe.config)
