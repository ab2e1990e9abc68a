"""Which chains of layers run as a whole, by the code around them.

A module may call its `nn.Sequential`, or take it apart and do something between its layers. The
source of its `forward`, and of the methods that this uses, tells: `self.chain(x)` is a call, and
`self.chain[0](x)`, `for layer in self.chain` or `self.chain.conv.weight` are not. A class that says
`foldable = True` itself is not read.
"""

import ast
import inspect
import textwrap
from collections.abc import Iterator
from types import ModuleType

from torch import nn

WHOLE = {"checkpoint", "checkpoint_seq", "checkpoint_sequential"}
"""Functions that call what they are given."""


class UnreadableCodeError(ValueError):
    """A module whose source is not at hand; the message names its class."""


def taken_apart(model: nn.Module) -> set[str]:
    """The attributes that some module of a network does not just call when it runs.

    Raises:
        UnreadableCodeError: the source of one of its classes is missing.
    """
    classes = {type(module) for module in model.modules()}
    return {name for each in classes for name in handled(each)}


def handled(kind: type[nn.Module]) -> frozenset[str]:
    """The attributes that the code of a class does not just call."""
    if kind.__module__.startswith("torch.nn."):
        return frozenset()
    names: set[str] = set()
    waiting, seen = ["forward"], {"forward"}
    while waiting:
        for function in versions(kind, waiting.pop()):
            tree = parsed(function, kind)
            called = {id(node) for node in calls(tree)}
            for node in ast.walk(tree):
                if not isinstance(node, ast.Attribute) or of_library(node, function):
                    continue
                if id(node) not in called:
                    names.add(node.attr)
                if node.attr not in seen:
                    seen.add(node.attr)
                    waiting.append(node.attr)
    return frozenset(names)


def of_library(node: ast.Attribute, function: object) -> bool:
    """Whether it is a name in an imported library, as `nn` is in `torch.nn.functional`."""
    root: ast.expr = node
    while isinstance(root, ast.Attribute):
        root = root.value
    known = getattr(function, "__globals__", {})
    return isinstance(root, ast.Name) and isinstance(known.get(root.id), ModuleType)


def versions(kind: type[nn.Module], name: str) -> Iterator[object]:
    """The method of that name in the class and in what it inherits from, as `super` may call it."""
    for parent in kind.__mro__:
        if parent.__module__.startswith("torch.nn.") or parent is object:
            return
        if "foldable" in vars(parent):
            continue
        method = vars(parent).get(name)
        method = getattr(method, "fget", None) or getattr(method, "__func__", method)
        if inspect.isfunction(method):
            yield inspect.unwrap(method)


def parsed(function: object, kind: type) -> ast.AST:
    assert inspect.isfunction(function)
    try:
        return ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, SyntaxError, TypeError) as error:
        raise UnreadableCodeError(f"the code of {kind.__name__} cannot be read") from error


def calls(tree: ast.AST) -> Iterator[ast.expr]:
    """What a piece of code calls, gives to a function that calls it, or compares with None."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.Is | ast.IsNot):
            yield node.left
        elif isinstance(node, ast.Call):
            yield node.func
            function = node.func
            if getattr(function, "id", getattr(function, "attr", "")) in WHOLE:
                yield from node.args
