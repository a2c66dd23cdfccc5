"""`python -m localcluster`: a Kubernetes cluster on this machine."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from localcluster.base import project
from localcluster.base.errors import ClusterError
from localcluster.base.progress import Progress
from localcluster.cluster.instance import DEFAULT_NAME
from localcluster.cluster.nodes import MOST_NODES
from localcluster.providers import choose, own_image
from localcluster.providers.local import LocalProvider
from localcluster.providers.protocol import Provider

app = typer.Typer(
    help=f"A Kubernetes cluster on this machine, for trying and testing {project.NAME}.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

node = typer.Typer(help="Lose a node, and bring it back.", no_args_is_help=True)
app.add_typer(node, name="node")

Name = Annotated[str, typer.Option(help="Name of the cluster; each has its own.")]
Number = Annotated[int, typer.Argument(help="Of the node, from 2.")]
Which = Annotated[choose.Choice, typer.Option("--provider", help="How to get the cluster.")]


@contextmanager
def _chosen(name: str, choice: choose.Choice) -> Iterator[Provider]:
    with _reported():
        yield choose.provider(name, choice, Progress())


def _of_local_alone(option: str, cluster: Provider, instead: str = "") -> ClusterError:
    return ClusterError(
        f"{option} is of provider local alone, and this cluster is of {cluster.kind}",
        f"Leave it out{instead}, or add --provider local",
    )


@contextmanager
def _reported() -> Iterator[None]:
    try:
        yield
    except ClusterError as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        raise typer.Exit(130) from None


@app.command()
def up(
    name: Name = DEFAULT_NAME,
    provider: Which = choose.Choice.AUTO,
    metrics: Annotated[
        bool, typer.Option("--metrics", help="Measure pods too, as autoscalers need it.")
    ] = False,
    nodes: Annotated[
        int, typer.Option(min=1, max=MOST_NODES, help="With 2, one of them can be lost.")
    ] = 1,
) -> None:
    """Start the cluster and return when pods can run in it."""
    with _chosen(name, provider) as cluster:
        if isinstance(cluster, LocalProvider):
            cluster.up(node_count=nodes)
            if metrics:
                cluster.enable_metrics()
        elif metrics:
            raise _of_local_alone("--metrics", cluster, " and install metrics-server there")
        elif nodes > 1:
            raise _of_local_alone("--nodes", cluster)
        else:
            cluster.up()
        print(f"export KUBECONFIG={cluster.kubeconfig()}")
        print(f"kubectl: {cluster.kubectl()}", file=sys.stderr)


@app.command()
def down(
    name: Name = DEFAULT_NAME,
    provider: Which = choose.Choice.AUTO,
    purge: Annotated[bool, typer.Option(help="Remove its cached images as well.")] = False,
) -> None:
    """Remove the cluster, or whatever a crash left of it."""
    with _chosen(name, provider) as cluster:
        cluster.down(purge=purge)


@app.command()
def status(name: Name = DEFAULT_NAME, provider: Which = choose.Choice.AUTO) -> None:
    """Tell what runs; exit code 3 if the cluster can't be used."""
    with _chosen(name, provider) as cluster:
        found = cluster.status()
    print(found.summary)
    for label, value in found.details.items():
        print(f"  {label}: {value}")
    if not found.running:
        raise typer.Exit(3)


@app.command()
def image(
    folder: Annotated[
        Path, typer.Argument(help="Has the Dockerfile.", exists=True, file_okay=False)
    ],
    image_name: Annotated[str, typer.Argument(metavar="IMAGE", help="What to call it.")],
    name: Name = DEFAULT_NAME,
    provider: Which = choose.Choice.AUTO,
) -> None:
    """Build an image, give it to the cluster and print what pods call it."""
    with _chosen(name, provider) as cluster:
        cluster.kubeconfig()  # a missing one is reported before anything is built
        print(cluster.load_image(own_image.build(cluster, folder, image_name)))


@node.command("kill")
def kill_node(
    number: Number,
    name: Name = DEFAULT_NAME,
    power_off: Annotated[
        bool, typer.Option("--power-off", help="End its pods, containerd and network too.")
    ] = False,
) -> None:
    """Lose a node: its kubelet ends without a word, and its pods go on unless --power-off."""
    with _reported():
        LocalProvider(name, Progress()).kill_node(number, power_off=power_off)


@node.command("start")
def start_node(number: Number, name: Name = DEFAULT_NAME) -> None:
    """Bring a node back that was lost."""
    with _reported():
        LocalProvider(name, Progress()).start_node(number)


@app.command()
def kubeconfig(name: Name = DEFAULT_NAME, provider: Which = choose.Choice.AUTO) -> None:
    """Print the path of the administrator's kubeconfig."""
    with _chosen(name, provider) as cluster:
        print(cluster.kubeconfig())
