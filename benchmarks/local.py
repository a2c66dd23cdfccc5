"""How much privacy costs on one machine, as ratios within this one run.

    .venv/bin/python benchmarks/local.py [--steps 60] [--skip-runs]

1. The private step against plain SGD of the same model over the same rows.
2. What part of a step draw, noise, lease and journal take.
3. A whole run: start to first step, and from SIGKILL of a rank to the next step.
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import multiprocessing
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
TASKS = {
    "digits linear (650 parameters)": "dtjob_trainer.tasks.digits",
    "digits CNN (25,970 parameters)": "dtjob_trainer.tasks.digits_cnn",
}


def plan(steps: int) -> Any:
    from dtjob_api.job.privacy import PrivacyMode
    from dtjob_api.ledger.privacy_ledger import PrivacyPlan

    return PrivacyPlan(
        mode=PrivacyMode.DPSGD,
        noise_multiplier=2.2,
        sample_rate=256 / 1437,
        delta=1e-5,
        max_grad_norm=1.0,
        batch_size=256,
        dataset_size=1437,
        steps=steps,
        replay_reserve_steps=30,
        lease_steps=10,
        accountant_version="benchmark",
    )


def timed(work: Callable[[int], None], steps: int) -> float:
    """Median seconds of a step."""
    seconds = []
    for step in range(steps):
        start = time.perf_counter()
        work(step)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def rank(
    number: int, world: int, port: int, module: str, steps: int, folder: str, pipe: Any
) -> None:
    """One rank: the private step, then plain SGD over the same shapes, then the leases."""
    import numpy as np
    import torch
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    from dtjob_trainer.mechanism import optim
    from dtjob_trainer.mechanism.group import Group
    from dtjob_trainer.mechanism.keys import derive_keys
    from dtjob_trainer.mechanism.mechanism import Mechanism
    from dtjob_trainer.mechanism.step import Learner, PrivateData, PrivateStep

    torch.set_num_threads(1)
    group = Group()
    if world > 1:
        store = TCPStore("127.0.0.1", port, world, is_master=number == 0)
        group = Group.join(store, number, world, torch.device("cpu"), timedelta(minutes=5))
    task = importlib.import_module(module).task({})
    model, records = task.model(), task.dataset()
    optimizer = optim.make_optimizer("sgd", model.parameters())
    step = PrivateStep(
        Learner(model, task.losses, optimizer, lambda _: 0.1),
        PrivateData(records, task.example_spec),
        Mechanism.of(plan(steps)),
        derive_keys(bytes(32), "benchmark", 1),
        group,
    )
    step.run(0, 0)
    step.seconds.clear()
    private = timed(lambda s: step.run(s + 1, s), steps)
    shares = {part: seconds / steps for part, seconds in step.seconds.items()}
    step.close()

    plain_model = task.model()
    sgd = torch.optim.SGD(plain_model.parameters(), lr=0.1)
    shape = (step.layout.micro_batches, step.layout.rows)
    ids = number * math.prod(shape) + np.arange(math.prod(shape)).reshape(shape)
    fields = task.example_spec

    def plain_batch(rows: Any) -> dict[str, Any]:
        """Of as many records, read as plainly as training without privacy would."""
        read = [records[i] for i in rows.tolist()]
        return {name: torch.from_numpy(np.stack([r[name] for r in read])) for name in fields}

    def plain_step(_: int) -> None:
        sgd.zero_grad()
        for rows in ids:
            task.losses(plain_model, plain_batch(rows)).sum().backward()
        flat = torch.cat([p.grad.reshape(-1) for p in plain_model.parameters()])
        if world > 1:
            torch.distributed.all_reduce(flat)
        sgd.step()

    plain_step(0)
    plain = timed(plain_step, steps)
    lease = account_seconds(Path(folder), model, optimizer) if number == 0 else 0.0
    pipe.send({"private": private, "plain": plain, "shares": shares, "lease": lease})


def account_seconds(folder: Path, model: Any, optimizer: Any) -> float:
    """Median seconds of one `publish`: checkpoint, ledger write with the next lease, journal."""
    from dtjob_api.ledger.privacy_ledger import LedgerSpec, Order, PrivacyLedger, Provenance
    from dtjob_api.model import ObjectMeta
    from dtjob_trainer.gang.attempts import begin_attempt
    from dtjob_trainer.ledger.checkpoint import CheckpointStore, TrainingState, expected_bytes
    from dtjob_trainer.ledger.file_ledger import FileLedger
    from dtjob_trainer.ledger.leasing import LeasedDraws

    ledger = FileLedger(folder / "ledger")
    spec = LedgerSpec(
        job_uid="benchmark",
        job_name="benchmark",
        stateful_set="benchmark",
        plan=plan(400),
        reserved_draws=430,
        run=Order(generation=1, workers=1),
    )
    ledger.create(PrivacyLedger(metadata=ObjectMeta(name="benchmark"), spec=spec))
    attempt = begin_attempt(ledger, datetime.now(UTC)).ledger.status.attempt
    (folder / "state").mkdir()
    store = CheckpointStore(folder / "state", "benchmark", spec.plan, keep=2)
    leased = LeasedDraws(ledger, store, attempt, clock=lambda: datetime.now(UTC))
    leased.resume()
    state = TrainingState(model.state_dict(), optimizer.state_dict())
    leased.open(state, expected_bytes(state), Provenance(image="x"))
    seconds = []
    for lease in range(1, 21):
        while leased.next_draw() is not None:
            pass
        start = time.perf_counter()
        leased.publish(lease * 10, state)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def measure(module: str, world: int, steps: int) -> dict[str, Any]:
    """Run the ranks in processes of their own; the figures of rank 0."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "opacus"])
    with tempfile.TemporaryDirectory() as folder:
        port = 20000 + os.getpid() % 20000
        ours, theirs = context.Pipe()
        processes = [
            context.Process(target=rank, args=(r, world, port, module, steps, folder, theirs))
            for r in range(world)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
            if process.exitcode != 0:
                raise SystemExit(f"a rank ended with {process.exitcode}")
        figures = [ours.recv() for _ in processes]
    return max(figures, key=lambda f: f["lease"])


def steps_table(steps: int) -> None:
    print("| model | ranks | private step | plain step | ratio | draw | noise | lease + journal |")
    print("|---|---|---|---|---|---|---|---|")
    for name, module in TASKS.items():
        for world in (1, 2):
            got = measure(module, world, steps)
            whole = sum(got["shares"].values()) + got["lease"] / 10

            def share(seconds: float, whole: float = whole) -> str:
                return f"{100 * seconds / whole:.1f} %"

            private, plain = got["private"], got["plain"]
            print(
                f"| {name} | {world} | {1000 * private:.2f} ms | {1000 * plain:.2f} ms "
                f"| {private / plain:.2f} | {share(got['shares']['draw'])} "
                f"| {share(got['shares']['noise'])} | {share(got['lease'] / 10)} |",
                flush=True,
            )


def whole_run() -> None:
    """Start a real run, kill one of its ranks, and watch the ledger's and the report's figures."""
    import httpx

    from dtjob_api.wire.well_known import REPORT_PATH

    with tempfile.TemporaryDirectory() as folder:
        started = time.monotonic()
        port = 21000 + os.getpid() % 20000
        url = f"http://127.0.0.1:{port}{REPORT_PATH}"
        command = [sys.executable, "-m", "dtjob_cli.main", "run", "examples/digits.yaml"]
        run = subprocess.Popen(
            [*command, "--workers", "2", "--dir", folder, "--port", str(port)],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
        )

        def report() -> dict[str, Any]:
            try:
                got: dict[str, Any] = httpx.get(url, timeout=1).json()
            except (httpx.HTTPError, ValueError):
                return {"step": 0, "attempt": 0, "state": "none"}
            return got

        while report()["step"] < 1:
            time.sleep(0.02)
        print(f"start to first step: {time.monotonic() - started:.1f} s")
        while report()["step"] < 40:
            time.sleep(0.02)
        (log,) = Path(folder).glob("*/logs/worker-1.jsonl")
        pids = [
            json.loads(line)["pids"]
            for line in log.read_text().splitlines()
            if '"ranks started"' in line
        ][-1]
        os.kill(int(next(iter(pids.values()))), signal.SIGKILL)
        killed = time.monotonic()
        while not ((now := report())["attempt"] == 2 and now["state"] == "Running"):
            time.sleep(0.01)
        print(f"SIGKILL of a rank to the next step: {time.monotonic() - killed:.2f} s")
        run.wait()
        took = time.monotonic() - started
        print(f"whole run, the kill included: {took:.1f} s, exit {run.returncode}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=60, help="steps of each measurement")
    parser.add_argument("--skip-runs", action="store_true", help="leave the whole run out")
    options = parser.parse_args()
    steps_table(options.steps)
    if not options.skip_runs:
        whole_run()
