"""A supervisor's side of the hello: sends it, with proof, and returns the directive."""

from __future__ import annotations

import json

import aiohttp

from dtjob_api.wire.gang import Directive, Hello
from dtjob_trainer.gang.endpoints import HELLO_PATH
from dtjob_trainer.gang.members import PING_SECONDS
from dtjob_trainer.identity.credentials import Credentials
from dtjob_trainer.process.logs import Logger

#: No more of a refusal is read than this.
_REFUSAL_BYTES = 1024


class Greeter:
    """Says hello to the coordinator; each reason for a refusal is logged once."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        address: tuple[str, int],
        credentials: Credentials,
        log: Logger,
    ) -> None:
        self._session, self._credentials, self._log = session, credentials, log
        host, port = address
        self._url = f"http://{host}:{port}{HELLO_PATH}"
        self._why = ""

    async def say(self, hello: Hello) -> Directive | None:
        """Exchange one hello for a directive; None if the leader gave none."""
        body = hello.model_dump_json().encode()
        try:
            proof = self._credentials.show(body)
        except OSError as error:
            self._refused(f"{error.filename}: {error.strerror}")
            return None
        try:
            async with self._session.post(
                self._url,
                data=body,
                headers={"Authorization": proof},
                timeout=aiohttp.ClientTimeout(total=2 * PING_SECONDS),
                allow_redirects=False,
            ) as response:
                if response.status != 200:
                    refusal = await response.content.read(_REFUSAL_BYTES)
                    self._refused(refusal.decode(errors="replace"))
                    return None
                directive = Directive.model_validate(json.loads(await response.text()))
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
            return None
        self._why = ""
        return directive

    def _refused(self, why: str) -> None:
        if why != self._why:
            self._log.warning("hello refused", detail=why)
            self._why = why
