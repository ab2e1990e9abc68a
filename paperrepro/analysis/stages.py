"""What every analysis does to a network and undoes: hold it still, and reach one of its stages."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from ..models import Backbone
from ..results import need_finite


class _Reached(Exception):
    """The forward pass has come to the stage; the rest of it is not needed."""


@contextmanager
def held_still(model: nn.Module) -> Iterator[None]:
    """The network in eval mode, its parameters without gradients; afterwards as it was.

    Raises:
        ValueError: naming a weight or buffer that is not finite.
    """
    need_finite(model.state_dict().items())
    modes = {module: module.training for module in model.modules()}
    needing = [parameter for parameter in model.parameters() if parameter.requires_grad]
    model.eval().requires_grad_(False)
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training
        for parameter in needing:
            parameter.requires_grad_(True)


def find_stage(model: nn.Module, stage: int | str) -> nn.Module:
    """The module whose output is the map of a stage.

    Args:
        stage: a module's name; or a number, which counts the four stages of a `Backbone`, and else
            the children of `model.features`, as torchvision's and timm's networks have it. Of a
            network without that, -1 is the network itself.

    Raises:
        ValueError: there is no such stage; those that there are are named.
    """
    if isinstance(stage, str):
        names = [name for name, _ in model.named_modules()]
        if stage not in names:
            children = ", ".join(name for name, _ in model.named_children()) or "none"
            raise ValueError(
                f"{type(model).__name__} has no module {stage!r}; its parts are: {children}"
            )
        return model.get_submodule(stage)
    stages = model.stages if isinstance(model, Backbone) else getattr(model, "features", None)
    if isinstance(stages, nn.Sequential | nn.ModuleList):
        if not -len(stages) <= stage < len(stages):
            raise ValueError(
                f"{type(model).__name__} has no stage {stage}: it has 0 to {len(stages) - 1}, and "
                "-1 is the last"
            )
        return stages[stage]
    if stage == -1:
        return model
    children = ", ".join(name for name, _ in model.named_children()) or "none"
    raise ValueError(
        f"{type(model).__name__} does not number its stages: name a module; its parts are: "
        f"{children}"
    )


def stage_map(model: nn.Module, images: Tensor, stage: int | str = -1) -> Tensor:
    """The map `(N, C, H', W')` of a stage, see `find_stage`; nothing after it is computed.

    Raises:
        ValueError: no such stage, one whose output is no map, one that the images do not pass
            through, or images too small for a kernel.
    """
    reached = []

    def stop(module: nn.Module, inputs: object, output: object) -> None:
        reached.append(output)
        raise _Reached

    hook = find_stage(model, stage).register_forward_hook(stop)
    try:
        model(images)
    except _Reached:
        pass
    except RuntimeError as error:
        if "size can't be greater" not in str(error) and "too small" not in str(error):
            raise
        height, width = images.shape[2:]
        raise ValueError(
            f"images of {height} x {width} pixels are smaller than a kernel of "
            f"{type(model).__name__}; resize them ({str(error).splitlines()[0]})"
        ) from error
    finally:
        hook.remove()
    if not reached:
        raise ValueError(f"{type(model).__name__} does not use its module {stage!r}")
    output = reached[0]
    if not isinstance(output, Tensor) or output.dim() != 4:
        shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise ValueError(f"stage {stage!r} gives {shape} and no map (N, C, H, W); choose another")
    return output
