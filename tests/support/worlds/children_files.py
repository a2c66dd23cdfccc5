"""The folders of children/: a job, the children wanted for it, and how they are stored.

`stored.yaml` is what Kubernetes 1.37 answers to a server-side apply of `wanted.yaml`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from dtjob_api.job.distributed_training_job import DistributedTrainingJob
from dtjob_api.schema.manifest import load
from dtjob_api.wire.positions import Role, positions
from dtjob_api.wire.well_known import CONFIG_VARIABLE
from dtjob_operator.decide.builders.disruption_budget import disruption_budget
from dtjob_operator.decide.builders.ledger import ledger
from dtjob_operator.decide.builders.network_policy import network_policy
from dtjob_operator.decide.builders.role_binding import role_binding
from dtjob_operator.decide.builders.service import service
from dtjob_operator.decide.builders.service_account import service_account
from dtjob_operator.decide.builders.stateful_set import stateful_set
from dtjob_operator.terms import names
from dtjob_operator.terms.kinds import ROLE_LABEL
from dtjob_operator.terms.observed import Endpoint
from dtjob_operator.terms.settings import Settings
from tests.support.checkout import ROOT
from tests.support.worlds.world import PLAN

Json = dict[str, Any]
API_SERVER = (Endpoint(("192.0.2.10/32",), (6443,)), Endpoint(("10.96.0.1/32",), (443,)))
FOLDERS = sorted((ROOT / "tests" / "operator" / "children").iterdir())


def read(path: Path) -> dict[str, Json]:
    """The objects of a file, by kind, and the StatefulSets by role too."""
    documents = YAML(typ="safe").load_all(path.read_text())
    return {key(document): document for document in documents}


def key(child: Json) -> str:
    """The kind of a child; of a StatefulSet with the role of its workers behind it."""
    role = child["metadata"]["labels"].get(ROLE_LABEL)
    return f"{child['kind']} {role}" if role else str(child["kind"])


def build(folder: Path) -> dict[str, Json]:
    """The children of a folder's job, without the workers' configuration: that is tested apart."""
    job = DistributedTrainingJob.from_dict(load(folder / "job.yaml"))
    wanted = [
        service_account(names.namespace(job)),
        role_binding(names.namespace(job)),
        service(job),
        network_policy(job, API_SERVER, Settings(monitoring_namespaces=("monitoring",))),
        disruption_budget(job),
        ledger(job, PLAN),
    ]
    for role in Role:
        of_set = stateful_set(job, role, len(positions(role, job.spec.workers.replicas)))
        del of_set["metadata"]["annotations"]
        (container,) = of_set["spec"]["template"]["spec"]["containers"]
        configured = [v for v in container["env"] if v["name"] == CONFIG_VARIABLE]
        configured[0]["value"] = "{}"
        wanted.append(of_set)
    return {key(child): child for child in wanted}
