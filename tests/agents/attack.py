"""Attackers of a policy server, in a process of their own: ``python attack.py URL MESSAGES CLIENTS``."""

from __future__ import annotations

import random
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import msgpack
import numpy as np
from test_admission import Raw
from test_wire import bombs, tree
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect


def array(values: np.ndarray) -> dict[bytes, Any]:
    return {b"__ndarray__": True, b"data": values.tobytes(), b"dtype": values.dtype.str, b"shape": list(values.shape)}


def good() -> dict[str, Any]:
    return {
        "observation/image": array(np.full((4, 6, 3), 9, np.uint8)),
        "observation/state": array(np.array([0.5, 1.0])),
        "prompt": "stack",
    }


def fuzzed(rng: random.Random) -> bytes:
    """Random bytes, random trees, good messages with an entry, a few bytes or the end spoiled."""
    kind, message = rng.randrange(5), good()
    if kind == 0:
        return rng.randbytes(rng.randrange(200))
    if kind == 1:
        return msgpack.packb({"observation/image": tree(rng), "prompt": tree(rng)})
    if kind == 2:
        message[rng.choice(list(message))] = tree(rng)
        return msgpack.packb(message)
    if kind == 3:
        entry = message[rng.choice(["observation/image", "observation/state"])]
        entry[rng.choice(list(entry))] = rng.choice(
            [tree(rng), "S9999999999", "O", "f4,f4", [2**40], [-1], [[]], 2**63]
        )
        return msgpack.packb(message)
    data = bytearray(msgpack.packb(message))
    for _ in range(rng.randrange(1, 9)):
        data[rng.randrange(len(data))] = rng.randrange(256)
    return bytes(data[: rng.randrange(1, len(data) + 1)])


def send(url: str, data: bytes) -> None:
    """One message over a connection of its own; the answer does not matter here, but that there is one does."""
    with connect(url, compression=None, proxy=None, open_timeout=60, close_timeout=1) as client:
        client.recv(timeout=60)
        try:
            client.send(data)
            client.recv(timeout=60)
        except ConnectionClosed:
            return


def send_fuzzed(url: str, seed: float) -> None:
    """Made only now: ten thousand of them would fill the memory."""
    send(url, fuzzed(random.Random(seed)))


def floods(url: str) -> None:
    """What websockets' own client would not send."""
    for flood in (
        lambda raw: raw.frame(9) * 100_000,
        lambda raw: raw.frame(2, fin=False) + raw.frame(0, fin=False) * 100_000,
        lambda raw: raw.frame(2, b"\x80") * 50_000,
        lambda raw: raw.frame(2, b"\0" * 15_000_000, claim=15_900_000),
        lambda raw: raw.frame(1, "\U0001f980".encode() + b"a" * 15_000_000),
    ):
        raw = Raw(url)
        raw.send(flood(raw))
        with suppress(TimeoutError):  # it need not be told that it is bad before it has sent all
            raw.farewell(0.5)


def run(work: list[Callable[[], None]]) -> None:
    while work:
        try:
            task = work.pop()
        except IndexError:
            return
        task()


def main(url: str, messages: int, clients: int) -> None:
    rng = random.Random(0)
    named = list(bombs().values())
    work = [partial(send_fuzzed, url, rng.random()) for _ in range(messages)]
    rounds = 1 + messages // 2500
    work += [partial(send, url, data) for data in named * rounds] + [partial(floods, url)] * rounds
    rng.shuffle(work)
    threads = [threading.Thread(target=run, args=(work,)) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
