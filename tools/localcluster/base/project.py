"""The project that the clusters are for: all that this package knows of it.

Another project has clusters by another file of this kind, and by a `__main__` of its own.
"""

from __future__ import annotations

from pathlib import Path

NAME = "dtjob"
"""What names of clusters, nodes, interfaces, cgroups and images begin with; the cache's folder."""
DOMAIN = "dtjob.dev"
"""What Kubernetes' objects of this package are named below."""

CACHE_VARIABLE = "DTJOB_CACHE"
"""Names the folder in which everything is kept, if not the one in the user's cache folder."""
TOOLS_CACHE_VARIABLE = "DTJOB_TOOLS_CACHE"
"""Names the folder with binaries, if not the one below the cache."""
KUBECONFIG_VARIABLE = "DTJOB_KUBECONFIG"
"""Names the kubeconfig of a cluster that exists."""
REGISTRY_VARIABLE = "DTJOB_REGISTRY"
"""Names a registry from which that cluster pulls."""

CHECKOUT = Path(__file__).resolve().parents[3]
"""The folder with a `Dockerfile.<image>` for each of the project's images."""
BASE_IMAGE = "trainer"
"""The image that users build theirs on."""
IMAGES = (BASE_IMAGE, "operator")
"""The project's own images."""
CODE_FOLDER = "/opt/dtjob/app/"
"""Where an image that a user builds has the user's code."""
