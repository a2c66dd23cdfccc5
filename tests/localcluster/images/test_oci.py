"""Names of layers are the specification's."""

from __future__ import annotations

from localcluster.images import oci


def test_layers_are_named_by_all_below_them() -> None:
    # The example of the specification of OCI images: ChainID(a, b) = sha256("a b").
    assert oci.chain(["sha256:a"]) == ["sha256:a"]
    assert oci.chain(["sha256:a", "sha256:b"])[1] == oci.digest(b"sha256:a sha256:b")
