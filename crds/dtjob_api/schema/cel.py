"""CEL as the API server evaluates it: Google's own runtime and Kubernetes' extra functions.

Only the extensions that dtjob's rules use are here: quantities, networks, and `sum` and `isSorted`
of a list of integers (https://kubernetes.io/docs/reference/using-api/cel/).
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from functools import cache
from typing import Any

from cel_expr_python import cel

from dtjob_api.schema.cidr import contains_cidr, is_cidr, parse_cidr
from dtjob_api.schema.quantity import is_quantity, parse_quantity


class CelError(ValueError):
    """An expression can't be compiled, or has no value for this input."""


def _compare(this: str, other: str) -> int:
    left, right = Fraction(this), Fraction(other)
    return (left > right) - (left < right)


def _function(
    name: str,
    result: cel.Type,
    parameters: list[cel.Type],
    implementation: Callable[..., Any],
    *,
    member: bool = False,
) -> cel.FunctionDecl:
    overload = cel.Overload(
        f"dtjob_{name}",
        return_type=result,
        parameters=parameters,
        is_member=member,
        impl=implementation,
    )
    return cel.FunctionDecl(name, [overload])


@cache
def _environment() -> cel.Env:
    text, pair = cel.Type.STRING, [cel.Type.STRING, cel.Type.STRING]
    # A quantity and a network travel through an expression as the text of their exact value.
    functions = [
        _function("isCIDR", cel.Type.BOOL, [text], is_cidr),
        _function("cidr", text, [text], lambda value: str(parse_cidr(value))),
        _function("masked", text, [text], lambda a: str(parse_cidr(a).network), member=True),
        _function(
            "prefixLength",
            cel.Type.INT,
            [text],
            lambda a: parse_cidr(a).network.prefixlen,
            member=True,
        ),
        _function("containsCIDR", cel.Type.BOOL, pair, contains_cidr, member=True),
        _function("isQuantity", cel.Type.BOOL, [text], is_quantity),
        _function("quantity", text, [text], lambda value: str(parse_quantity(value))),
        _function("compareTo", cel.Type.INT, pair, _compare, member=True),
        _function("isLessThan", cel.Type.BOOL, pair, lambda a, b: _compare(a, b) < 0, member=True),
        _function(
            "isGreaterThan", cel.Type.BOOL, pair, lambda a, b: _compare(a, b) > 0, member=True
        ),
        _function("sum", cel.Type.INT, [cel.Type.List(cel.Type.DYN)], _sum, member=True),
        _function("isSorted", cel.Type.BOOL, [cel.Type.List(cel.Type.DYN)], _sorted, member=True),
    ]
    return cel.NewEnv(
        variables={"self": cel.Type.DYN, "oldSelf": cel.Type.DYN},
        extensions=[cel.CelExtension("kubernetes", functions)],
    )


def _sum(values: list[Any]) -> int:
    return sum(int(value) for value in values)


def _sorted(values: list[Any]) -> bool:
    numbers = [int(value) for value in values]
    return numbers == sorted(numbers)


@cache
def _compiled(expression: str) -> cel.Expression:
    try:
        return _environment().compile(expression)
    except Exception as error:
        raise CelError(f"{expression}: {error}") from error


def is_true(expression: str, self_value: Any, old_value: Any = None) -> bool:
    """Whether the expression is true of a value and, in a transition rule, of the stored one.

    Raises
    ------
    CelError
        The expression is not CEL, or its evaluation ends in an error.
    """
    result = _compiled(expression).eval(data={"self": self_value, "oldSelf": old_value})
    value = result.value()
    if not isinstance(value, bool):
        raise CelError(str(value))
    return value
