"""A played pod's files: where its mounts lie on this machine, and its tokens in them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from pathlib import Path, PurePosixPath
from typing import Any

import aiohttp

from standin.api import Api, ApiError, Json

ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
_RENEWED_AT = 0.8  # of a token's life, as a kubelet does
_AGAIN_SECONDS = 5.0


class Mounts:
    """The volumes of one pod.

    Claims outlive the pod, and a claim that is made anew is another one; the rest is the pod's.

    Parameters
    ----------
    folder
        Of the player; each pod and each claim has one of its own in it.
    """

    def __init__(self, api: Api, pod: Json, folder: Path) -> None:
        self._api, self._pod = api, pod
        self._own = folder / "pods" / str(pod["metadata"]["uid"])
        self._claims = folder / "claims"
        self._places: dict[str, Path] = {}
        self._tokens: list[tuple[Path, Json]] = []

    async def make(self) -> None:
        """Make all folders and files."""
        mounts = {
            mount["name"]: mount["mountPath"]
            for container in self._pod["spec"]["containers"]
            for mount in container.get("volumeMounts", ())
        }
        for volume in self._pod["spec"].get("volumes", ()):
            if (where := mounts.get(volume["name"])) is None:
                continue
            place = await self._place(volume)
            place.mkdir(parents=True, exist_ok=True)
            self._places[where] = place
            for source in volume.get("projected", {}).get("sources", ()):
                await self._project(place, source)

    def here(self, path: str) -> str:
        """Where a path of the pod lies on this machine; what is not mounted stays as it is."""
        wanted = PurePosixPath(path)
        for mount, place in sorted(self._places.items(), key=lambda item: -len(item[0])):
            if wanted.is_relative_to(mount):
                return str(place / wanted.relative_to(mount))
        return path

    def translated(self, value: Any) -> Any:
        """JSON whose paths are those of this machine."""
        if isinstance(value, dict):
            return {key: self.translated(each) for key, each in value.items()}
        if isinstance(value, list):
            return [self.translated(each) for each in value]
        return self.here(value) if isinstance(value, str) and value.startswith("/") else value

    async def renew(self) -> None:
        """Write new tokens before the old ones expire, for ever."""
        async with asyncio.TaskGroup() as group:
            for path, source in self._tokens:
                group.create_task(self._renew(path, source))

    def remove(self) -> None:
        """Remove what is the pod's alone."""
        shutil.rmtree(self._own, ignore_errors=True)

    async def _place(self, volume: Json) -> Path:
        if (source := volume.get("persistentVolumeClaim")) is None:
            return self._own / str(volume["name"])
        namespace = self._pod["metadata"]["namespace"]
        path = f"/api/v1/namespaces/{namespace}/persistentvolumeclaims/{source['claimName']}"
        claim = await self._api.request("GET", path)
        return self._claims / str(claim["metadata"]["uid"])

    async def _project(self, place: Path, source: Json) -> None:
        if (token := source.get("serviceAccountToken")) is not None:
            path = place / token["path"]
            await self._write_token(path, token)
            self._tokens.append((path, token))
        elif (source.get("configMap") or {}).get("name") == "kube-root-ca.crt":
            (place / "ca.crt").write_bytes(self._api.authority.read_bytes())
        for item in source.get("downwardAPI", {}).get("items", ()):
            if item.get("fieldRef", {}).get("fieldPath") == "metadata.namespace":
                (place / item["path"]).write_text(self._pod["metadata"]["namespace"])

    async def _renew(self, path: Path, source: Json) -> None:
        while True:
            await asyncio.sleep(_RENEWED_AT * source.get("expirationSeconds", 3600))
            while True:
                try:
                    await self._write_token(path, source)
                    break
                except (ApiError, aiohttp.ClientError, TimeoutError, OSError):
                    await asyncio.sleep(_AGAIN_SECONDS)

    async def _write_token(self, path: Path, source: Json) -> None:
        metadata, spec = self._pod["metadata"], self._pod["spec"]
        bound = {"apiVersion": "v1", "kind": "Pod"}
        bound |= {"name": metadata["name"], "uid": metadata["uid"]}
        wanted: Json = {"boundObjectRef": bound}
        wanted["expirationSeconds"] = source.get("expirationSeconds", 3600)
        if audience := source.get("audience"):
            wanted["audiences"] = [audience]
        account = spec.get("serviceAccountName", "default")
        answer = await self._api.request(
            "POST",
            f"/api/v1/namespaces/{metadata['namespace']}/serviceaccounts/{account}/token",
            {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": wanted},
        )
        new = path.with_suffix(".new")
        with contextlib.suppress(FileNotFoundError):
            new.unlink()
        new.write_text(answer["status"]["token"])
        os.replace(new, path)  # whoever reads it finds an old token or a new one
