"""Where the API server is, who the operator is there, and by way of which proxy it asks."""

from __future__ import annotations

import os
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from kubernetes.aio import config
from kubernetes.aio.client import Configuration


async def credentials(kubeconfig: str | None = None) -> Configuration:
    """From a kubeconfig, else from the pod's own account.

    Raises
    ------
    kubernetes.aio.config.ConfigException
        There is neither.
    """
    configuration = Configuration()
    path = kubeconfig or os.environ.get("KUBECONFIG")
    if path is None and "KUBERNETES_SERVICE_HOST" in os.environ:
        config.load_incluster_config(client_configuration=configuration)
    else:
        await config.load_kube_config(path, client_configuration=configuration)
    # Asked here once; aiohttp would read the environment and ~/.netrc again for each request.
    configuration.proxy = configuration.proxy or _proxy_of(configuration.host)
    configuration.client_session_kwargs = {"trust_env": False}
    return configuration


def _proxy_of(url: str) -> str | None:
    """What the environment names as the proxy for a URL, by HTTPS_PROXY and NO_PROXY."""
    parts = urlsplit(url)
    if not parts.hostname or proxy_bypass(parts.hostname):
        return None
    return getproxies().get(parts.scheme)
