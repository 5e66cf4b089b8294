"""The inference engine: every row once, few shapes, and recordings that hold their inputs and outputs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vlaser_gym.agents import inference
from vlaser_gym.agents.batch_sizes import SERVING_SIZES, batch_bounds, batch_size_for
from vlaser_gym.agents.inference import InferenceEngine, NamedRows
from vlaser_gym.errors import GymWarning, InvalidConfigError

CPU = torch.device("cpu")


class Squares:
    """A computation that notes the shapes it was given."""

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []

    def __call__(self, rows: NamedRows) -> NamedRows:
        self.shapes.append(tuple(rows["x"].shape))
        return NamedRows(square=rows["x"] ** 2, total=rows["x"].flatten(1).sum(1))


def rows(count: int, width: int = 3) -> NamedRows:
    return NamedRows(x=torch.arange(1.0, count * width + 1).view(count, width))


@given(count=st.integers(1, 40), sizes=st.sets(st.integers(1, 9), min_size=1))
def test_every_row_is_in_one_batch_and_no_smaller_size_would_have_held_it(count: int, sizes: set[int]) -> None:
    cut = list(batch_bounds(count, sorted(sizes)))
    assert [row for start, end, _ in cut for row in range(start, end)] == list(range(count))
    for start, end, size in cut:
        assert size in sizes
        assert end - start <= size
        assert not any(end - start <= smaller < size for smaller in sizes)


@pytest.mark.parametrize("count", [1, 3, 8, 11])
@pytest.mark.parametrize(("sizes", "seen"), [((8,), {8}), (SERVING_SIZES, set(SERVING_SIZES))])
def test_rows_come_back_in_order_from_batches_of_the_sizes(count: int, sizes: tuple[int, ...], seen: set[int]) -> None:
    compute = Squares()
    found = InferenceEngine(compute, CPU, sizes)(rows(count))
    assert torch.equal(found["square"], rows(count)["x"] ** 2)
    assert torch.equal(found["total"], rows(count)["x"].sum(1))
    assert {shape[0] for shape in compute.shapes} <= seen
    assert len(compute.shapes) == -(-count // 8)
    if len(sizes) > 1:
        assert compute.shapes[-1][0] < 2 * (count % 8 or 8)


@pytest.mark.parametrize("sizes", [(), (0,), (4, -1)])
def test_sizes_that_are_none_are_refused(sizes: tuple[int, ...]) -> None:
    with pytest.raises(InvalidConfigError, match="Batches have at least 1 row"):
        InferenceEngine(Squares(), CPU, sizes)


def test_an_evaluations_size_follows_from_its_plan() -> None:
    assert [batch_size_for(count) for count in (1, 2, 3, 5, 8, 9, 1000)] == [1, 2, 4, 8, 8, 8, 8]


class Recording:
    """In place of a CUDA graph: computes into memory that it keeps, from memory that it keeps."""

    made: list[int]

    def __init__(self, compute: Any, given: NamedRows, pool: Any = None) -> None:
        self.compute, self.inputs = compute, given.map(torch.clone)
        self.output = compute(self.inputs)
        self.made.append(len(given["x"]))

    def __call__(self, given: NamedRows) -> NamedRows:
        for name, held in self.inputs.items():
            held.copy_(given[name])
        for name, fresh in self.compute(self.inputs).items():
            self.output[name].copy_(fresh)
        return self.output.map(torch.clone)


@pytest.fixture
def recording(monkeypatch: pytest.MonkeyPatch) -> type[Recording]:
    monkeypatch.setattr(inference, "RecordedComputation", Recording)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: 1)
    Recording.made = []
    return Recording


def recorded(compute: Any, sizes: tuple[int, ...]) -> InferenceEngine[NamedRows]:
    """An engine that records as it would on a GPU."""
    engine = InferenceEngine(compute, CPU, sizes)
    assert not engine.record
    engine.record = True
    return engine


def test_there_is_one_recording_for_each_size_and_shape(recording: type[Recording]) -> None:
    engine = recorded(Squares(), SERVING_SIZES)
    for count in (1, 3, 8, 2, 11, 7, 1, 4):
        found = engine(rows(count))
        assert torch.equal(found["square"], rows(count)["x"] ** 2)
    assert sorted(recording.made) == [1, 2, 4, 8]
    engine(rows(4, width=5))
    assert sorted(recording.made) == [1, 2, 4, 4, 8]
    engine.reset()
    engine(rows(4))
    assert len(recording.made) == 6


def test_what_a_recording_gave_stays_when_it_replays(recording: type[Recording]) -> None:
    engine = recorded(Squares(), (4,))
    first = engine(rows(4))
    before = first["square"].clone()
    engine(NamedRows(x=torch.zeros(4, 3)))
    assert torch.equal(first["square"], before)


def test_what_cannot_be_recorded_runs_unrecorded_and_says_so_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    monkeypatch.setattr(inference, "RecordedComputation", refuse)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: 1)
    engine = recorded(Squares(), (2,))
    with pytest.warns(GymWarning, match=r"cannot be recorded as a CUDA graph \(operation not permitted .* capturing\)"):
        found = engine(rows(5))
    assert torch.equal(found["square"], rows(5)["x"] ** 2)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a GPU")
def test_cuda_graphs_compute_what_kernels_compute() -> None:
    device = torch.device("cuda")
    weight = torch.ones(3, device=device)
    engine = InferenceEngine(lambda given: NamedRows(y=(given["x"] * weight).sum(1)), device, SERVING_SIZES)
    for count in (1, 3, 11):
        torch.testing.assert_close(engine(rows(count))["y"].cpu(), rows(count)["x"].sum(1))
    weight.mul_(2)  # weights change in place, as an optimizer's step does
    torch.testing.assert_close(engine(rows(3))["y"].cpu(), 2 * rows(3)["x"].sum(1))
    assert len(engine.graphs) == 3
