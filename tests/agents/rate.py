"""How many requests a policy server answers: ``python tests/agents/rate.py 50 1000 CHECKOUT [CHECKOUT ...]``.

So many clients send so many requests each, with an image of 24 x 24, to an agent that costs nothing. Servers of
several checkouts of this package take turns; what else the machine does falls on all of them, and the processor time of
a server on none.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import msgpack
import numpy as np
from websockets.asyncio.client import connect

#: A server that prints its port.
_SERVE = """
import asyncio
import numpy as np
from vlaser_gym.agents.server import PolicyServer

class Costless:
    observes = ("image", "proprio", "instruction")

    def reset(self, lanes, addresses):
        pass

    def act(self, observations, lanes):
        return np.zeros((len(lanes), 4, 7), np.float32)

asyncio.run(PolicyServer(Costless(), "costless").run("127.0.0.1", 0, lambda port: print(port, flush=True)))
"""
_TURNS = 3


def observation() -> bytes:
    def array(values: np.ndarray) -> dict[bytes, object]:
        entries = {b"data": values.tobytes(), b"dtype": values.dtype.str, b"shape": list(values.shape)}
        return {b"__ndarray__": True, **entries}

    image, state = array(np.full((24, 24, 3), 9, np.uint8)), array(np.array([0.3, 0.0, 0.9, 1.0, 0.0, 0.0, 0.0, 1.0]))
    return msgpack.packb(
        {"observation/image": image, "observation/state": state, "prompt": "put the green block on the yellow block"}
    )


async def ask(url: str, requests: int) -> None:
    data = observation()
    async with connect(url, compression=None, proxy=None, open_timeout=60) as connection:
        await connection.recv()
        for _ in range(requests):
            await connection.send(data)
            answer = await connection.recv()
            assert isinstance(answer, bytes), answer


async def ask_all(url: str, clients: int, requests: int) -> None:
    await asyncio.gather(*(ask(url, requests) for _ in range(clients)))


def processor_time(pid: int) -> float:
    """Seconds that a process has computed (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(checkout: str, clients: int, requests: int) -> tuple[float, float]:
    """Requests per second, and per second of the server's processor time."""
    server = subprocess.Popen(
        [sys.executable, "-c", _SERVE], env={**os.environ, "PYTHONPATH": checkout}, stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        url = f"ws://127.0.0.1:{int(server.stdout.readline())}"
        begun, computed = time.perf_counter(), processor_time(server.pid)
        asyncio.run(ask_all(url, clients, requests))
        seconds, computed = time.perf_counter() - begun, processor_time(server.pid) - computed
    finally:
        server.kill()
        server.wait()
    return clients * requests / seconds, clients * requests / computed


if __name__ == "__main__":
    clients, requests, checkouts = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
    turns = [[measure(checkout, clients, requests) for checkout in checkouts] for _ in range(_TURNS)]
    first = [median(turn[0][kind] for turn in turns) for kind in (0, 1)]
    for number, checkout in enumerate(checkouts):
        wall, own = (median(turn[number][kind] for turn in turns) for kind in (0, 1))
        shares = f"{100 * wall / first[0]:.0f} % and {100 * own / first[1]:.0f} % of the first"
        print(f"{checkout}: {wall:.0f} requests/s, {own:.0f} per second of the server's processor; {shares}")  # noqa: T201
