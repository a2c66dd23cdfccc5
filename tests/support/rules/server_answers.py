"""What a real API server says of the same manifests and changes.

`compare` needs a kubeconfig of any cluster, real or a bare kube-apiserver, that has dtjob's
CustomResourceDefinitions; it creates and deletes objects in the namespace that it is given.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

from kubernetes import client, config

from dtjob_api.schema.validation import validate
from tests.support.rules.job_transitions import JOB_TRANSITIONS
from tests.support.rules.ledger_attacks import BAD_LEDGERS, LEDGER_CHANGES
from tests.support.rules.manifest_cases import BAD_CASES, GOOD_CASES, Case, mistakes
from tests.support.rules.transitions import Transition

Json = dict[str, Any]
_PLURALS = {"DistributedTrainingJob": "distributedtrainingjobs", "PrivacyLedger": "privacyledgers"}
_REPETITIONS = ("accessor error", "Checked value must be of type")
"""The API server reports some wrong types twice: once more for `scale`, once for the format."""
_NO_VALUE = "Invalid value: "


class ApiServer:
    """The custom resources of one namespace of a cluster."""

    def __init__(self, kubeconfig: str, namespace: str = "default") -> None:
        api_client: Any = config.new_client_from_config(kubeconfig)
        self._objects: Any = client.CustomObjectsApi(api_client)
        self._namespace = namespace

    def refusal_of_creation(self, manifest: Json) -> list[str]:
        """The messages with which the server refuses a new object, sent as kubectl sends it."""
        if isinstance(metadata := manifest.get("metadata"), dict):
            manifest = manifest | {"metadata": metadata | {"namespace": self._namespace}}
        return self._refusal(
            self._objects.create_namespaced_custom_object,
            self._kind(manifest),
            manifest,
            dry_run="All",
            field_validation="Strict",
        )

    def refusal_of_change(self, transition: Transition) -> list[str]:
        """The messages with which the server refuses to replace a stored object."""
        kind, name = self._kind(transition.stored), transition.stored["metadata"]["name"]
        self._objects.create_namespaced_custom_object(**kind, body=transition.stored)
        here = kind | {"name": name}
        try:
            if "status" in transition.stored:
                body = {"status": transition.stored["status"]}
                self._objects.patch_namespaced_custom_object_status(**here, body=body)
            stored = self._objects.get_namespaced_custom_object(**here)
            body = transition.changed | {"metadata": stored["metadata"]}
            replace = self._objects.replace_namespaced_custom_object
            if transition.part == "status":
                replace = self._objects.replace_namespaced_custom_object_status
            return self._refusal(replace, here, body, dry_run="All", field_validation="Strict")
        finally:
            self._objects.delete_namespaced_custom_object(**here)

    def _kind(self, manifest: Json) -> Json:
        return {
            "group": "dtjob.dev",
            "version": "v1alpha1",
            "namespace": self._namespace,
            "plural": _PLURALS[manifest["kind"]],
        }

    def _refusal(self, call: Any, where: Json, body: Json, **options: str) -> list[str]:
        try:
            call(**where, body=body, **options)
        except client.ApiException as error:
            return _messages(json.loads(error.body or "{}"))
        return []


def _messages(status: Json) -> list[str]:
    causes = status.get("details", {}).get("causes", [])
    if not causes:
        message: str = status["message"]
        return message.rsplit("strict decoding error: ", maxsplit=1)[-1].split(", ")
    # Servers before 1.37 put the word "object" where there is no value to show.
    messages = [
        f"{cause['field']}: {cause['message']}".replace('Invalid value: "object": ', _NO_VALUE)
        for cause in causes
    ]
    return [m for m in messages if not any(words in m for words in _REPETITIONS)]


def compare(
    server: ApiServer,
    cases: Iterable[Case] = (*BAD_CASES, *BAD_LEDGERS, *GOOD_CASES),
    transitions: Iterable[Transition] = (*JOB_TRANSITIONS, *LEDGER_CHANGES),
) -> list[str]:
    """Where the server's answers and those of the offline rules differ; empty if nowhere."""
    differences = []
    for case in cases:
        offline = mistakes([str(error) for error in validate(case.manifest)])
        online = mistakes(server.refusal_of_creation(case.manifest))
        if offline != online:
            differences.append(f"{case.name}: offline {offline}, server {online}")
    for transition in transitions:
        errors = [str(error) for error in validate(transition.changed, old=transition.stored)]
        if transition.part == "status":
            # Of a status that is written alone the schema reports paths from there.
            errors = [re.sub(r"\bstatus\.(\S+ in body)", r"\1", error) for error in errors]
        offline = mistakes(errors)
        online = mistakes(server.refusal_of_change(transition))
        if offline != online:
            differences.append(f"{transition.name}: offline {offline}, server {online}")
    return differences
