"""Along which dimensions of what an operator is given it makes an entry of others, or moves them.

Beside those that it takes away: a sum over the rows shows in the shape of what it gives.
"""

from __future__ import annotations

from typing import Any

import torch

#: Operators that give rows another order, in the dimensions that they are given; in all, for none.
REORDER = frozenset({"flip", "roll"})
#: Products whose operands may both have rows.
PRODUCTS = frozenset({"addmm", "baddbmm", "bmm", "mm"})
# At which place each product has its first factor.
_FACTORS = {"mm": 0, "bmm": 0, "mv": 0, "dot": 0, "addmm": 1, "baddbmm": 1, "addmv": 1}
# Operators that give an entry for each, made of those before it in a dimension, or of all of them.
_ALONG = frozenset(
    {
        "_log_softmax",
        "_safe_softmax",
        "_softmax",
        "cummax",
        "cummin",
        "cumprod",
        "cumsum",
        "kthvalue",
        "logcumsumexp",
        "median",
        "mode",
        "nanmedian",
        "sort",
        "topk",
    }
)

Along = list[tuple[torch.Tensor, tuple[int, ...]]]
"""Tensors that an operator is given, each with the dimensions along which it mixes entries."""


def mixed(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Along:
    """Return which dimensions an operator runs along, sums over beside others, or reorders."""
    name = func.overloadpacket.__name__
    if name in _FACTORS:
        first, second = args[_FACTORS[name]], args[_FACTORS[name] + 1]
        return [(first, _counted(first, -1)), (second, _counted(second, -min(second.dim(), 2)))]
    if name in _ALONG:
        dim = argument(func, "dim", args, kwargs)
        return [(args[0], _counted(args[0], dim))] if isinstance(dim, int) else []
    if name in REORDER:
        return [(args[0], _counted(args[0], *(argument(func, "dims", args, kwargs) or ())))]
    if name.startswith("_fft"):
        return [(args[0], _counted(args[0], *args[1]))]
    if name == "renorm":
        return [(args[0], tuple(d for d in _counted(args[0]) if d != args[2] % args[0].dim()))]
    return _of_windows(name, args) or _of_searches(name, args)


def _of_windows(name: str, args: tuple[Any, ...]) -> Along:
    """Where a kernel of more than one place slides."""
    if name == "convolution":
        sizes = list(args[1].shape[2:])
    elif ("_pool" in name or name == "im2col") and isinstance(args[1], (list, tuple)):
        sizes = list(args[1])
    elif name == "unfold":
        return [(args[0], _counted(args[0], args[1]))] if args[2] > 1 else []
    elif name.startswith("upsample"):
        sizes = [2] * (args[0].dim() - 2)
    else:
        return []
    first = args[0].dim() - len(sizes)
    return [(args[0], tuple(first + place for place, size in enumerate(sizes) if size > 1))]


def _of_searches(name: str, args: tuple[Any, ...]) -> Along:
    """Among which each value of another operand is looked for."""
    if name == "isin" and isinstance(args[1], torch.Tensor):
        return [(args[1], _counted(args[1]))]
    if name == "bucketize":
        return [(args[1], _counted(args[1], -1))]
    return [(args[0], _counted(args[0], -1))] if name == "searchsorted" else []


def _counted(tensor: torch.Tensor, *dims: int) -> tuple[int, ...]:
    """Dimensions counted from the first; all of them for none."""
    rank = tensor.dim()
    return tuple(dim % rank for dim in dims or range(rank)) if rank else ()


def argument(func: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What an operator is given under a name, or its default; None where it has no such one."""
    arguments = func._schema.arguments
    places = [place for place, each in enumerate(arguments) if each.name == name]
    if not places or name in kwargs:
        return kwargs.get(name)
    (place,) = places
    return args[place] if place < len(args) else arguments[place].default_value
