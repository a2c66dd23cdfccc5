"""The control plane: etcd, API server, controller manager, scheduler."""

from __future__ import annotations

from localcluster.cluster.component import Component, answers
from localcluster.cluster.instance import Instance
from localcluster.control import audit
from localcluster.install import binaries

# Whoever has a second node waits for what becomes of its loss: by default 50 s, looked at every 5.
# Its kubelet then renews its Lease more often (see localcluster.node.kubelet).
_LOSS_OF_A_NODE = ("--node-monitor-grace-period=20s", "--node-monitor-period=2s")


def etcd(instance: Instance) -> Component:
    """Return the store; it never waits for the disk, since no cluster outlives its daemon."""
    client, peer = "http://127.0.0.1:2379", "http://127.0.0.1:2380"
    argv = [
        str(binaries.path(binaries.ETCD, "etcd")),
        f"--data-dir={instance.folder / 'etcd'}",
        "--unsafe-no-fsync",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=default={peer}",
        "--log-level=warn",
    ]
    return Component("etcd", argv, answers(f"{client}/health"))


def api_server(instance: Instance) -> Component:
    """Return the API server.

    It serves on port 443 of every address of the cluster's network, the first Service address
    among them (the bridge has it): so `kubernetes.default` works in pods without kube-proxy.
    """
    pki = instance.folder / "pki"
    argv = [
        str(binaries.path(binaries.KUBERNETES, "kube-apiserver")),
        "--etcd-servers=http://127.0.0.1:2379",
        "--bind-address=0.0.0.0",
        "--secure-port=443",
        f"--advertise-address={instance.bridge_address}",
        f"--service-cluster-ip-range={instance.services}",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged=true",
        f"--client-ca-file={pki / 'ca.crt'}",
        f"--tls-cert-file={pki / 'apiserver.crt'}",
        f"--tls-private-key-file={pki / 'apiserver.key'}",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={pki / 'service-accounts.pub'}",
        f"--service-account-signing-key-file={pki / 'service-accounts.key'}",
        f"--kubelet-client-certificate={pki / 'kubelet-client.crt'}",
        f"--kubelet-client-key={pki / 'kubelet-client.key'}",
        f"--kubelet-certificate-authority={pki / 'ca.crt'}",
        "--kubelet-preferred-address-types=InternalIP,Hostname",
        f"--requestheader-client-ca-file={pki / 'front-proxy-ca.crt'}",
        "--requestheader-allowed-names=front-proxy-client",
        "--requestheader-username-headers=X-Remote-User",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        f"--proxy-client-cert-file={pki / 'front-proxy-client.crt'}",
        f"--proxy-client-key-file={pki / 'front-proxy-client.key'}",
        "--enable-aggregator-routing=true",
        *audit.arguments(instance),
    ]
    # /version answers some seconds before /readyz; the others have enough to do by themselves.
    ready = answers("https://127.0.0.1:443/version", pki / "ca.crt")
    return Component("kube-apiserver", argv, ready)


def controller_manager(instance: Instance) -> Component:
    """Return the controller manager, each controller with an account of its own."""
    pki = instance.folder / "pki"
    config = instance.folder / "kube-controller-manager.kubeconfig"
    argv = [
        str(binaries.path(binaries.KUBERNETES, "kube-controller-manager")),
        f"--kubeconfig={config}",
        f"--authentication-kubeconfig={config}",
        f"--authorization-kubeconfig={config}",
        "--leader-elect=false",
        "--use-service-account-credentials=true",
        f"--service-account-private-key-file={pki / 'service-accounts.key'}",
        f"--root-ca-file={pki / 'ca.crt'}",
        f"--cluster-signing-cert-file={pki / 'ca.crt'}",
        f"--cluster-signing-key-file={pki / 'ca.key'}",
        f"--requestheader-client-ca-file={pki / 'front-proxy-ca.crt'}",
        f"--flex-volume-plugin-dir={instance.folder / 'volume-plugins'}",
        # An autoscaler is waited for by whoever tries one; by default it looks four times a minute,
        # and at no pod that is younger than five.
        "--horizontal-pod-autoscaler-sync-period=5s",
        "--horizontal-pod-autoscaler-cpu-initialization-period=10s",
        "--horizontal-pod-autoscaler-initial-readiness-delay=5s",
    ]
    if instance.node_count > 1:
        argv += _LOSS_OF_A_NODE
    return Component("kube-controller-manager", argv)


def scheduler(instance: Instance) -> Component:
    """Return the scheduler."""
    config = instance.folder / "kube-scheduler.kubeconfig"
    argv = [
        str(binaries.path(binaries.KUBERNETES, "kube-scheduler")),
        f"--kubeconfig={config}",
        f"--authentication-kubeconfig={config}",
        f"--authorization-kubeconfig={config}",
        "--leader-elect=false",
    ]
    return Component("kube-scheduler", argv)
