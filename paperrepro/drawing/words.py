"""A drawing in words, for those who cannot see it."""

from .reading import Group, Layer, Part

JOINS = {"sum": "the sum of", "mean": "the mean of"}


def describe(part: Part) -> str:
    """What a part does, from the same tree as the drawing."""
    if isinstance(part, Layer):
        text = ", ".join([part.title, *part.facts])
        return f"{part.times} times {text}" if part.times > 1 else text
    times = f"{part.times} times " if part.times > 1 else ""
    inside = [describe(child) for child in part.parts]
    if part.kind in JOINS:
        return f"{times}{JOINS[part.kind]} {len(inside)} branches ({'; '.join(inside)})"
    text = ", then ".join(inside)
    if part.kind == "residual":
        return f"{times}the input added to ({text})"
    if part.kind == "partial":
        return f"{times}side by side ({'; '.join(inside)})"
    return f"{times}({text})" if times else text


def short(part: Part) -> str:
    """The layers that count, in a row: `1×1, 31×31 dw, 1×1`; of branches the largest kernel."""
    return ", ".join(names(part))


def names(part: Part) -> list[str]:
    if isinstance(part, Layer):
        return [part.short] if part.groups or part.kind in ("graph", "unknown") else []
    if part.kind in JOINS:
        branches = [found for child in part.parts if (found := names(child))]
        unlike = {tuple(found) for found in branches}
        widest = max(branches, key=lambda found: reach(found[0]), default=[])
        dilated = len(unlike) > 1 and len({reach(found[0]) for found in branches}) == 1
        return [" + ".join(found[0] for found in branches)] if dilated else widest
    return [name for child in part.parts for name in names(child)]


def reach(name: str) -> int:
    digits = name.partition("×")[0]
    return int(digits) if digits.isdigit() else 0


def blocks(part: Part) -> list[str]:
    """The blocks of a stage, each kind once, with how often it comes."""
    if isinstance(part, Group) and part.kind == "series" and part.times == 1:
        return [line for child in part.parts for line in blocks(child)]
    if isinstance(part, Group) and part.kind == "series":
        inner = [found for child in part.parts if (found := names(child))]
        if all(len(found) == 1 for found in inner):
            inner = [[name for found in inner for name in found]]
        return [f"{part.times} × " + " and ".join(f"({', '.join(found)})" for found in inner)]
    text = short(part)
    return [f"{part.times} × ({text})" if part.times > 1 else text] if text else []
