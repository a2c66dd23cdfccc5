"""Rule 4: fp32 norms and products, and that they are of fp32."""

import math
from typing import Any

import pytest
import torch

from dtjob_trainer.mechanism import contraction
from dtjob_trainer.mechanism.clipping import PerExampleClip
from dtjob_trainer.mechanism.contraction import (
    exact_fp32,
    lowering_switches,
    squared_norms,
    weighted_sum,
)
from dtjob_trainer.mechanism.slack import clipped_norm
from tests.support.mechanism.models import cross_entropy, linear, rows


@pytest.mark.rule(4)
def test_long_rows_are_measured_better_than_the_slack():
    """One fp32 sum over a long row falls short of its norm by more than 2⁻¹⁰."""
    worst = 0.0
    for value in (0.3, 0.7, 1 + 2**-12, 0.1, 1.7):
        row = torch.full((1, 4_000_001), value)
        exact = float(row[0, 0]) * math.sqrt(row.numel())
        worst = max(worst, abs(squared_norms(row).sqrt().item() / exact - 1))
        generator = torch.Generator().manual_seed(0)
        row = torch.randn(1, 100_001, generator=generator)
        exact = row.double().norm().item()
        worst = max(worst, abs(squared_norms(row).sqrt().item() / exact - 1))
    assert worst < 2**-17


@pytest.mark.parametrize("columns", [1, 255, 256, 257, 1000])
def test_norms_of_every_length(columns):
    rows_ = torch.randn(3, columns, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(squared_norms(rows_), rows_.double().square().sum(1), rtol=1e-5)


_ON_CPU: Any = torch.backends.mkldnn
PRODUCTS = (torch.backends.cuda.matmul, _ON_CPU.matmul)


def set_for_all(precision):
    for each in PRODUCTS:
        each.fp32_precision = precision


# torch's older switch, and the newer ones, after which the older one can't be read any more.
LOWERED = {
    "medium": lambda: torch.set_float32_matmul_precision("medium"),
    "tf32": lambda: set_for_all("tf32"),
}


@pytest.mark.rule(4)
@pytest.mark.parametrize("how", LOWERED)
def test_autocast_and_low_precision_products_do_not_reach_the_clip(how):
    def half(model, batch):
        with torch.autocast("cpu", torch.bfloat16):
            return cross_entropy(model, batch).float()

    before = [each.fp32_precision for each in PRODUCTS]
    LOWERED[how]()
    lowered = [each.fp32_precision for each in PRODUCTS]
    assert lowered != before
    try:
        with torch.autocast("cpu", torch.bfloat16):
            one = PerExampleClip(0.01).summed(linear(), half, 1)
            batch = {name: torch.from_numpy(array) for name, array in rows(1).items()}
            one.add(batch, torch.ones(1, dtype=torch.bool))
            with exact_fp32(torch.device("cpu")):
                product = torch.full((64, 64), 1 + 2**-9) @ torch.ones(64, 64)
                assert [each.fp32_precision for each in PRODUCTS] == ["ieee", "ieee"]
        assert [each.fp32_precision for each in PRODUCTS] == lowered
    finally:
        torch.set_float32_matmul_precision("highest")
        for each, precision in zip(PRODUCTS, before, strict=True):
            each.fp32_precision = precision
    assert product.dtype == torch.float32
    assert product[0, 0] == 64 * (1 + 2**-9)
    assert one.flat.norm().item() == pytest.approx(clipped_norm(0.01), rel=1e-6)


@pytest.mark.rule(4)
@pytest.mark.parametrize(
    ("name", "value", "harmless"),
    [
        ("NVIDIA_TF32_OVERRIDE", "1", "0"),
        ("TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", "1", "0"),
        ("CUBLAS_EMULATE_SINGLE_PRECISION", "1", "0"),
        ("ONEDNN_DEFAULT_FPMATH_MODE", "bf16", "strict"),
        ("DNNL_DEFAULT_FPMATH_MODE", "ANY", "STRICT"),
        ("MKL_BLAS_COMPUTE_MODE", "FLOAT_TO_BF16X2,FLOAT_TO_TF32", "STANDARD"),
    ],
)
def test_switches_outside_the_process_are_found(name, value, harmless):
    assert list(lowering_switches({name: value})) == [name]
    assert lowering_switches({name: harmless}) == lowering_switches({name: ""}) == {}


@pytest.mark.rule(4)
@pytest.mark.parametrize("count", [1, 31, 32, 33, 64, 100])
@pytest.mark.parametrize("columns", [0, 1, 300, 1000])
def test_a_weighted_sum_is_that_of_fp64(count, columns, monkeypatch):
    monkeypatch.setattr(contraction, "_CACHED_COLUMNS", 300)
    generator = torch.Generator().manual_seed(0)
    rows_ = torch.randn(count, columns, generator=generator)
    weights = torch.rand(count, generator=generator)
    found = weighted_sum(weights, rows_)
    assert found.dtype == torch.float64
    bound = 32 * 2**-24 * (weights.double() @ rows_.double().abs())
    assert ((found - weights.double() @ rows_.double()).abs() <= bound).all()


@pytest.mark.rule(4)
@pytest.mark.parametrize("place", [0, 31, 32, 63, 64, 70])
def test_a_row_rounds_no_other_chain_anew(place):
    """What a row changes is the same whatever lies in the other chains.

    A chain by itself would not do to compare: libraries choose their kernels by shape.
    """
    generator = torch.Generator().manual_seed(0)
    rows_, others = (torch.randn(71, 50, generator=generator) for _ in range(2))
    chain = slice(place // 32 * 32, place // 32 * 32 + 32)
    others[chain] = rows_[chain]
    weights = torch.ones(71)
    without = weights.clone()
    without[place] = 0
    among, among_others = (
        weighted_sum(weights, each) - weighted_sum(without, each) for each in (rows_, others)
    )
    assert (among - rows_[place].double()).abs().max() > 0  # the chain itself is rounded
    assert (among - among_others).abs().max() <= 2**-45
