"""The API server's proxy: from the kubeconfig, else from the environment, read once."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from dtjob_operator.kube.api_server import credentials

PROXY = "http://proxy.example.com:3128"


def found(folder: Path, **cluster: str) -> str | None:
    file = folder / "kubeconfig"
    named = {"server": "https://api.example.com:6443"} | cluster
    context = {"cluster": "c", "user": "u"}
    file.write_text(
        json.dumps(
            {
                "current-context": "x",
                "clusters": [{"name": "c", "cluster": named}],
                "users": [{"name": "u", "user": {"token": "t"}}],
                "contexts": [{"name": "x", "context": context}],
            }
        )
    )
    configuration = asyncio.run(credentials(str(file)))
    assert configuration.client_session_kwargs == {"trust_env": False}
    proxy: str | None = configuration.proxy
    return proxy


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("https_proxy", "http_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def test_the_environment_names_a_proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert found(tmp_path) is None
    monkeypatch.setenv("HTTP_PROXY", "http://other.example.com")
    assert found(tmp_path) is None
    monkeypatch.setenv("HTTPS_PROXY", PROXY)
    assert found(tmp_path) == PROXY


@pytest.mark.parametrize("excepted", ["localhost,api.example.com", "localhost,.example.com", "*"])
def test_the_environment_excepts_the_api_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, excepted: str
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", PROXY)
    monkeypatch.setenv("NO_PROXY", excepted)
    assert found(tmp_path) is None


def test_a_kubeconfig_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://other.example.com")
    assert found(tmp_path, **{"proxy-url": PROXY}) == PROXY
