"""How the ranks of a stand-in meet, in the place of torch's store and collectives.

The hub listens where the store would. A rank connects and names its attempt; once all are
there, every message of rank 0 goes to the others, and `sync` waits for all. As with collectives,
whoever loses one rank has lost the whole meeting.
"""

from __future__ import annotations

import json
import selectors
import socket
from collections.abc import Sequence
from typing import Any

from standin.threads import Killed, Life

_AGAIN_SECONDS = 0.1
_CONNECT_SECONDS = 5.0
_BYTES = 65536


class RankLost(ConnectionError):
    """Another rank, or the way to it, is gone."""


class _Seat:
    def __init__(self, connection: socket.socket) -> None:
        self.connection, self.half = connection, b""
        self.meeting: int | None = None
        self.rank = -1

    def send(self, message: Any) -> None:
        try:
            self.connection.sendall(json.dumps(message).encode() + b"\n")
        except OSError:
            return  # its end is read next


class Hub:
    """Passes on what ranks send; one for all attempts, as the store is."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener.dup()
        self._seats: set[_Seat] = set()
        self._waiting: dict[int, int] = {}

    def serve(self, life: Life) -> int:
        """Serve until the end of the life."""
        with selectors.DefaultSelector() as selector:
            selector.register(life.ended, selectors.EVENT_READ)
            selector.register(self._listener, selectors.EVENT_READ)
            try:
                while not life.over:
                    for key, _ in selector.select():
                        if key.fileobj is self._listener:
                            seat = _Seat(self._listener.accept()[0])
                            self._seats.add(seat)
                            selector.register(seat.connection, selectors.EVENT_READ, seat)
                        elif key.data in self._seats and not self._read(key.data):
                            self._break_up(selector, key.data)
            finally:
                self._listener.close()
                for seat in self._seats:
                    seat.connection.close()
        raise Killed

    def _read(self, seat: _Seat) -> bool:
        """Take what a rank sends; False at its end."""
        try:
            data = seat.connection.recv(_BYTES)
        except OSError:
            return False
        *lines, seat.half = (seat.half + data).split(b"\n")
        for line in lines:
            self._take(seat, json.loads(line))
        return bool(data)

    def _take(self, seat: _Seat, message: Any) -> None:
        if isinstance(message, dict):
            seat.meeting, seat.rank = message["attempt"], message["rank"]
            self._arrived(seat, message["world"])
        elif message == "sync":
            self._arrived(seat, len(self._others(seat)) + 1)
        else:
            for other in self._others(seat):
                other.send(message)

    def _arrived(self, seat: _Seat, world: int) -> None:
        assert seat.meeting is not None
        there = self._waiting[seat.meeting] = self._waiting.get(seat.meeting, 0) + 1
        if there == world:
            del self._waiting[seat.meeting]
            for each in [seat, *self._others(seat)]:
                each.send("go")

    def _others(self, seat: _Seat) -> list[_Seat]:
        return [each for each in self._seats if each.meeting == seat.meeting and each is not seat]

    def _break_up(self, selector: selectors.BaseSelector, seat: _Seat) -> None:
        for each in [seat, *(self._others(seat) if seat.meeting is not None else [])]:
            selector.unregister(each.connection)
            each.connection.close()
            self._seats.discard(each)
        if seat.meeting is not None:
            self._waiting.pop(seat.meeting, None)


class Meeting:
    """One rank's way to the others; `broadcast_ints` is as `mechanism.group.Group`'s."""

    def __init__(
        self, address: tuple[str, int], attempt: int, rank: int, world: int, life: Life
    ) -> None:
        self._rank, self._life, self._half = rank, life, b""
        self._lines: list[bytes] = []
        self._connection: socket.socket | None = None
        if world > 1:
            self._connection = self._connect(address)
            self._send({"attempt": attempt, "rank": rank, "world": world})
            self._receive()

    def broadcast_ints(self, values: Sequence[int]) -> list[int]:
        """Rank 0's integers, on every rank."""
        if self._connection is None:
            return list(values)
        if self._rank == 0:
            self._send(list(values))
            return list(values)
        numbers: list[int] = self._receive()
        return numbers

    def sync(self) -> None:
        """Wait for every rank."""
        if self._connection is not None:
            self._send("sync")
            self._receive()

    def close(self) -> None:
        """Leave; the others lose this rank."""
        if self._connection is not None:
            self._connection.close()

    def _connect(self, address: tuple[str, int]) -> socket.socket:
        while True:
            try:
                return socket.create_connection(address, _CONNECT_SECONDS)
            except OSError:
                self._life.sleep(_AGAIN_SECONDS)

    def _send(self, message: Any) -> None:
        assert self._connection is not None
        self._life.check()
        try:
            self._connection.sendall(json.dumps(message).encode() + b"\n")
        except OSError as error:
            raise RankLost("another rank is gone") from error

    def _receive(self) -> Any:
        assert self._connection is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._life.ended, selectors.EVENT_READ)
            selector.register(self._connection, selectors.EVENT_READ)
            while not self._lines:
                selector.select()
                self._life.check()
                try:
                    data = self._connection.recv(_BYTES)
                except OSError as error:
                    raise RankLost("another rank is gone") from error
                if not data:
                    raise RankLost("another rank is gone")
                *lines, self._half = (self._half + data).split(b"\n")
                self._lines += lines
        return json.loads(self._lines.pop(0))
