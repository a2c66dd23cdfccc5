"""Names of Services and pods: CoreDNS on the bridge's address."""

from __future__ import annotations

from localcluster.base.files import write_atomically
from localcluster.cluster.component import Component, answers
from localcluster.cluster.instance import CLUSTER_DOMAIN, Instance
from localcluster.install import binaries

_TTL_SECONDS = 2  # a pod that comes back with another address is found at once


def corefile(instance: Instance) -> str:
    """Return CoreDNS' configuration; a name outside of the cluster is refused at once."""
    return f""".:53 {{
    bind {instance.bridge_address}
    ready 127.0.0.1:8181
    errors
    cache {_TTL_SECONDS}
    kubernetes {CLUSTER_DOMAIN} {{
        kubeconfig {instance.folder / "admin-inside.kubeconfig"}
        ttl {_TTL_SECONDS}
    }}
}}
"""


def server(instance: Instance) -> Component:
    """Write the configuration and return the DNS server."""
    config = instance.folder / "Corefile"
    write_atomically(config, corefile(instance))
    argv = [str(binaries.path(binaries.COREDNS, "coredns")), "-conf", str(config)]
    return Component("coredns", argv, answers("http://127.0.0.1:8181/ready"))
