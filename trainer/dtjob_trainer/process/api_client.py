"""The way of a worker to the API server."""

from __future__ import annotations

import os

from kubernetes import client, config


def api_client() -> client.ApiClient:
    """The API server with this pod's own rights, or those of a kubeconfig outside of pods."""
    settings = client.Configuration()
    try:
        config.load_incluster_config(client_configuration=settings)
    except config.ConfigException:
        # Named here: the client takes its own default when it is imported.
        config.load_kube_config(os.environ.get("KUBECONFIG"), client_configuration=settings)
    settings.retries = False  # each answer is judged by who asks
    return client.ApiClient(settings)
