"""Which of torch's functions and operators ask for values on the host, and what to write instead.

Those of torch 2.15. Its tags name most operators whose result or shape follows from values; the
others that are here read values within themselves. Asked for by torch only to raise an error, a
value changes nothing that is computed: these questions pass by name (docs/writing-a-task.md).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import CodeType, FrameType
from typing import Any

import torch
from torch.distributions import constraints, continuous_bernoulli, distribution, geometric, wishart
from torch.nn import functional

from dtjob_trainer.mechanism.opacus_hooks import is_hooks_module

IsMarked = Callable[[object], bool]


@dataclass(frozen=True)
class Question:
    """What was asked, as the user wrote it, and what to write instead."""

    asked: str
    remedy: str


_WHERE = (
    "compute both and choose for each row by torch.where(condition, a, b); leave asserts and "
    "warnings out"
)
_TENSORS = (
    "stay in torch's tensors; where it is a length, pad to that of example_spec and mask the rest"
)
_MASK = "keep every element, and use torch.where(mask, x, 0.0) or a sum with the mask"
_COUNT = "count by torch.nn.functional.one_hot(x, classes).sum(1), of a public number of classes"
_MEMORY = "use torch's own operators, since what others do with its memory can't be followed"
_LOG = "leave it out of the pass"
_BY_ROW = "compare within each row, as in (a == b).all(1)"
_GATHER = "choose for each row by torch.where, or by torch.gather with an index for each element"
_CTC = (
    "write the recursion over the positions of example_spec with torch.where, or give lengths that "
    "are the same for all examples as a tuple"
)
_RANGE = (
    "it rounds by the range of the whole batch: quantize weights alone, or round each row by a "
    "public scale"
)
_DENSE = "stay with dense tensors, of which what is not wanted is zero"
_REMEDIES = {
    "__bool__": _WHERE,
    "is_nonzero": _WHERE,
    "cond": _WHERE,
    "while_loop": "take a public number of turns, and torch.where for what has ended before",
    "__array__": _TENSORS,
    "index": _MASK,
    "__getitem__": _MASK,
    "nonzero": _MASK,
    "nonzero_static": _MASK,
    "argwhere": _MASK,
    "masked_select": _MASK,
    "where": _MASK,
    "unique": _COUNT,
    "unique_consecutive": _COUNT,
    "_unique2": _COUNT,
    "bincount": _COUNT,
    "histc": _COUNT,
    "histogram": _COUNT,
    "histogramdd": _COUNT,
    "one_hot": "give it num_classes",
    "equal": _BY_ROW,
    "allclose": _BY_ROW,
    "repeat_interleave": (
        "take elements by torch.gather with an index of a public length, as torch.searchsorted "
        "finds it in the cumulated counts, and mask the rest"
    ),
    "_pack_padded_sequence": (
        "pass all positions, and take what is wanted by a mask, or by outputs[rows, lengths - 1]"
    ),
    "ctc_loss": _CTC,
    "_ctc_loss": _CTC,
    "tensor_split": "split at public places, and mask",
    "embedding_bag": "look the ids up by torch.nn.Embedding, and sum them with a mask",
    "masked_scatter": _GATHER,
    "masked_scatter_": _GATHER,
    "__setitem__": _GATHER,
    "index_put": _GATHER,
    "index_put_": _GATHER,
    "prod": "multiply the parts, as in functools.reduce(torch.mul, x.unbind(1))",
    "matrix_exp": "take a public number of terms of its series",
    "segment_reduce": "sum with a mask for each segment",
    "data_ptr": _MEMORY,
    "const_data_ptr": _MEMORY,
    "untyped_storage": _MEMORY,
    "storage": _MEMORY,
    "_typed_storage": _MEMORY,
    "__cuda_array_interface__": _MEMORY,
    "__dlpack__": _MEMORY,
    "__reduce_ex__": _MEMORY,
    "share_memory_": _MEMORY,
    "__repr__": _LOG,
    "__format__": _LOG,
    "lstsq": "solve the normal equations by torch.linalg.solve_ex, or multiply by inv_ex's inverse",
    "quantize_per_tensor_dynamic": _RANGE,
    "_choose_qparams_per_tensor": _RANGE,
    "choose_qparams_optimized": _RANGE,
    "linear_dynamic": _RANGE,
    "linear_relu_dynamic": _RANGE,
}
_READY_MASK = (
    "give the model a ready attention mask of floats [rows, 1, positions, positions], 0 where a "
    "position is seen and torch.finfo(torch.float32).min where not; of a model of the next word "
    "no later position is seen"
)
# A method of transformers, which warns of padding where no mask is given.
_SEEKS_PADDING = "warn_if_padding_and_no_attention_mask"
_WRITTEN = {
    "__bool__": "if or bool()",
    "__int__": "int()",
    "__float__": "float()",
    "__index__": "an index, a length or range()",
    "__repr__": "print() or str()",
    "__format__": "a formatted string",
    "__array__": "numpy",
    "__contains__": "the operator in",
    "apply_": "apply_()",
    "map_": "map_()",
    "map2_": "map2_()",
    "__dlpack__": "dlpack",
    "__getitem__": "an index",
    "__setitem__": "an assignment to an index",
    "__reduce_ex__": "copy.copy or pickle",
    "_pack_padded_sequence": "pack_padded_sequence()",
    "_local_scalar_dense": "bool(), item() or their like",
}

#: In these runs code of the task's: it is not they who ask.
BACKWARDS = frozenset({torch.Tensor.backward, torch.autograd.grad})
#: Of these the result holds values of what is given, though no operator is seen to copy them.
COPIES = frozenset(
    {
        torch.tensor,
        torch.as_tensor,
        torch.asarray,
        torch.Tensor.__deepcopy__,
    }
)
# Functions that give values or memory away and of which the dispatcher sees nothing.
_READS = frozenset(
    {
        torch.Tensor.numpy,
        torch.Tensor.tolist,
        torch.Tensor.__array__,
        torch.Tensor.__dlpack__,
        torch.Tensor.__cuda_array_interface__.__get__,
        torch.Tensor.__reduce_ex__,
        torch.Tensor.__repr__,
        torch.Tensor.__format__,
        torch.Tensor.data_ptr,
        torch.Tensor.const_data_ptr,  # type: ignore[attr-defined]
        torch.Tensor.untyped_storage,
        torch.Tensor.storage,
        torch.Tensor._typed_storage,
        torch.Tensor.share_memory_,
    }
)
# They give the values of all that they are given to a function of Python's, one by one.
_CALL_PYTHON = frozenset(
    {
        torch.Tensor.apply_,
        torch.Tensor.map_,
        torch.Tensor.map2_,
    }
)
_SPLITS = frozenset({torch.tensor_split, torch.Tensor.tensor_split})

# Operators of aten that ask for some of their arguments only; None: for any.
_ASKED: Mapping[str, tuple[str, ...] | None] = {
    "masked_select": ("mask",),
    "masked_scatter": ("mask",),
    "masked_scatter_": ("mask",),
    "repeat_interleave": ("repeats",),
    "_ctc_loss": ("input_lengths", "target_lengths"),
    "_cudnn_ctc_loss": ("input_lengths", "target_lengths"),
    "_use_cudnn_ctc_loss": ("input_lengths", "target_lengths"),
    "_pack_padded_sequence": ("lengths",),
    "_embedding_bag": ("offsets",),
    "_embedding_bag_forward_only": ("offsets",),
    "_nested_tensor_from_mask": ("mask",),
    "_nested_tensor_from_mask_left_aligned": ("mask",),
    "segment_reduce": ("lengths", "indices", "offsets"),
    "nonzero_static": None,
    "histc": None,
    "histogram": None,
    "_histogramdd_bin_edges": None,
    "_histogramdd_from_bin_cts": None,
    "linalg_matrix_exp": None,
    "quantize_per_tensor_dynamic": None,
    "_choose_qparams_per_tensor": None,
    "choose_qparams_optimized": None,
    # Its backward pass looks for zeros, unless a mode is on: one row's changed the others' bits.
    "prod": None,
}
_BY_TRUTH = frozenset({torch.bool, torch.uint8})
_TAGS = (torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape)

#: Code that asks for nobody else.
_OWN = ("torch.", "dtjob_trainer.mechanism.", "dtjob_trainer.preflight.")

# Python code of torch that asks only to raise, or to tell whether it has to.
_MAY_ASK: frozenset[CodeType] = frozenset(
    function.__code__
    for function in (
        functional.gaussian_nll_loss,
        distribution._all_true_or_runtime_assert,
        continuous_bernoulli.ContinuousBernoulli.__init__,
        geometric.Geometric.__init__,
        wishart.Wishart.__init__,
        type(constraints.positive_definite).check,
        type(constraints.positive_semidefinite).check,
    )
)

NOT_STRIDED = Question("a sparse tensor, whose shape follows from values", _DENSE)
NESTED = Question(
    "a nested tensor, whose rows are as long as values may ask",
    "stay with dense tensors: pad to the length of example_spec, and mask the rest",
)


@dataclass(frozen=True)
class Kind:
    """What is known of an operator before it is called.

    Attributes
    ----------
    of_shapes
        Its result holds no values of its arguments.
    """

    name: str
    of_shapes: bool
    _asks: bool
    _asked: tuple[str, ...] | None
    _arguments: tuple[str, ...]
    _written: tuple[str, ...]

    def question(
        self,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        is_marked: IsMarked,
        function: Callable[..., Any] | None,
    ) -> Question | None:
        """Return what it asks for of what is marked, or None."""
        if not self._asks or not self._is_asked(args, kwargs, is_marked):
            return None
        return _question(self.name, function)

    def written(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[object]:
        """Return the arguments that it writes to."""
        return list(self._named(self._written, args, kwargs))

    def _is_asked(
        self, args: Sequence[Any], kwargs: Mapping[str, Any], is_marked: IsMarked
    ) -> bool:
        if self.name in ("index", "index_put", "index_put_", "_index_put_impl_"):
            masks = [i for i in args[1] if i is not None and i.dtype in _BY_TRUTH]
            if self.name != "index":
                masks = [] if _one_for_all(args, masks) else masks
            return is_marked(masks)
        if self.name == "prod":
            return any(a.requires_grad for a in args if isinstance(a, torch.Tensor))
        if self._asked is None:
            return True
        return is_marked(list(self._named(self._asked, args, kwargs)))

    def _named(
        self, names: Sequence[str], args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Iterator[object]:
        for name in names:
            place = self._arguments.index(name)
            yield args[place] if place < len(args) else kwargs.get(name)


@functools.cache
def kind_of(operator: Any) -> Kind:
    """Return what is known of an operator, by its schema and tags."""
    name = operator.__name__.partition(".")[0]
    schema = getattr(operator, "_schema", None)
    if schema is None:  # of a higher order: they choose by what they are given
        return Kind(name, False, name in ("cond", "while_loop"), None, (), ())
    of_aten = operator.namespace == "aten"
    # They round by the least and the greatest value of all that they are given.
    by_range = operator.namespace == "quantized" and "dynamic" in name
    arguments = tuple(argument.name for argument in schema.arguments)
    asked = _ASKED.get(name) if of_aten else None
    if asked is not None:
        asked = tuple(each for each in asked if each in arguments)
    return Kind(
        name=name,
        of_shapes=of_aten and (name.endswith("_like") or name.startswith("new_")),
        _asks=by_range
        or any(tag in operator.tags for tag in _TAGS)
        or (of_aten and (name in _ASKED or name.startswith(("index_put", "_index_put")))),
        _asked=asked,
        _arguments=arguments,
        _written=tuple(
            argument.name
            for argument in schema.arguments
            if argument.alias_info is not None and argument.alias_info.is_write
        ),
    )


def of_function(
    function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> tuple[Question, object] | None:
    """Return what a function asks without any operator, and of which of its arguments."""
    if function in _CALL_PYTHON:
        return _question("", function), args
    if function in _READS:
        return _question("", function), args[:1]
    if function in _SPLITS:
        return _question("", function), (args[1:], kwargs)
    return None


def may_be_asked(
    function: Callable[..., Any] | None, arguments: Sequence[Any], frame: FrameType | None
) -> bool:
    """Whether torch asks only to raise, or a hook of Opacus asks.

    Parameters
    ----------
    function, arguments
        The function of torch that is being called.
    frame
        Of who asks.
    """
    if function is functional.one_hot and arguments[1:] and arguments[1] != -1:
        return True
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if frame.f_code in _MAY_ASK or is_hooks_module(module):
            return True
        if not module.startswith(_OWN):
            return False
        frame = frame.f_back
    return False


def remedy_in_library(frame: FrameType | None) -> str | None:
    """Return the remedy for what transformers asks of a mask, or torch where it seeks anomalies."""
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if module == "torch.autograd.graph" and torch.is_anomaly_enabled():
            return "leave torch.autograd.set_detect_anomaly and detect_anomaly out"
        if (
            module.startswith("transformers.masking_utils")
            or frame.f_code.co_name == _SEEKS_PADDING
        ):
            return _READY_MASK
        if not module.startswith(_OWN):
            return None
        frame = frame.f_back
    return None


def _question(operator: str, function: Callable[..., Any] | None) -> Question:
    """Name it as the user wrote it, if a function of torch was called."""
    name = _name(function)
    remedy = _REMEDIES.get(name) or _REMEDIES.get(operator.removeprefix("linalg_"), _TENSORS)
    if name == "__getitem__" and operator == "_local_scalar_dense":
        remedy = _TENSORS
    written = _WRITTEN.get(name or operator, f"{name or operator}()")
    return Question(f"{written} reads them", remedy)


def _name(function: Callable[..., Any] | None) -> str:
    """The name of a function, or of the property that it is the getter of."""
    name = getattr(function, "__name__", "")
    return str(getattr(function.__self__, "__name__", "")) if name == "__get__" else str(name)  # type: ignore[union-attr]


def _one_for_all(args: Sequence[Any], masks: Sequence[torch.Tensor]) -> bool:
    """Whether an assignment by masks gives all elements the same, however many they are."""
    target, value = args[0], args[2]
    rest = target.dim() - sum(mask.dim() for mask in masks)
    return len(masks) == 1 and (value.dim() <= rest or value.shape[value.dim() - rest - 1] == 1)
