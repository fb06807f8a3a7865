"""Counts of several processes as one: trees of integers that add.

A tree is a dict whose leaves are integers or lists of integers. Leaves add, except under a key that starts with
`last_`: those are points in time, of which the later one counts.
"""

from collections.abc import Iterable, Mapping

Tree = Mapping[str, object]
LATEST_PREFIX = "last_"


def add(left: Tree, right: Tree) -> dict[str, object]:
    """Returns the sum of two trees; neither is changed, and the order of additions does not matter.

    Raises: ValueError if one key holds different kinds of values.
    """
    total = {key: _copy(value) for key, value in left.items()}
    for key, value in right.items():
        total[key] = _added(key, total[key], value) if key in total else _copy(value)
    return total


def add_all(trees: Iterable[Tree]) -> dict[str, object]:
    total: dict[str, object] = {}
    for tree in trees:
        total = add(total, tree)
    return total


def branch(tree: Tree, *path: str) -> dict[str, object]:
    """Returns the dict at that path, empty where the tree does not reach it."""
    here: object = tree
    for key in path:
        here = here.get(key) if isinstance(here, Mapping) else None
    return dict(here) if isinstance(here, Mapping) else {}


def whole(tree: Tree, *path: str) -> int:
    """Returns the integer at that path, 0 where there is none."""
    value = branch(tree, *path[:-1]).get(path[-1], 0)
    return value if isinstance(value, int) else 0


def wholes(tree: Tree, *path: str) -> list[int]:
    """Returns the list of integers at that path, empty where there is none."""
    value = branch(tree, *path[:-1]).get(path[-1])
    return [item for item in value if isinstance(item, int)] if isinstance(value, list) else []


def listed(tree: Tree, key: str) -> list[Tree]:
    """Returns the dicts of the list under that key, none where there is no list."""
    items = tree.get(key)
    return [item for item in items if isinstance(item, Mapping)] if isinstance(items, list) else []


def _added(key: str, left: object, right: object) -> object:
    if isinstance(left, int) and isinstance(right, int):
        return max(left, right) if key.startswith(LATEST_PREFIX) else left + right
    if isinstance(left, list) and isinstance(right, list):
        short, long = sorted((left, right), key=len)
        return [a + b for a, b in zip(short, long, strict=False)] + long[len(short) :]
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        return add(left, right)
    raise ValueError(f"counts under {key!r} cannot be added: {type(left).__name__} and {type(right).__name__}")


def _copy(value: object) -> object:
    if isinstance(value, Mapping):
        return {key: _copy(item) for key, item in value.items()}
    return list(value) if isinstance(value, list) else value
