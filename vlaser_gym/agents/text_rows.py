"""Rows of text to learn answers from, and their images: samples as tokens, side by side in packed rows.

A sample is a question, images included, and its answer. Samples of one row do not see each other, and each has
positions of its own, so that packing changes nothing but time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn import functional

#: Label of a token whose successor is not learned.
NOT_LEARNED = -100
#: How answers of different lengths count: the weight of each of an answer's n tokens is n to the power of this.
POWERS = {"token": 0.0, "square": -0.5, "sample": -1.0}


@dataclass(frozen=True)
class TextSample:
    """One question with its answer, as token ids.

    Attributes:
        question: with an image token for every image feature.
        answer: with the token that ends it.
    """

    question: Sequence[int]
    answer: Sequence[int]

    def __len__(self) -> int:
        return len(self.question) + len(self.answer)


@dataclass(frozen=True)
class TextRows:
    """Rows of samples, ``[R, T]`` each.

    Attributes:
        input_ids: tokens, padding on the right.
        positions: of each token within its sample, from 0 on.
        segments: number of the sample within its row; -1 for padding.
        is_question: whether a token belongs to a question.
        labels: the next token where it is an answer's, else :data:`NOT_LEARNED`.
        weights: of each label in the loss, fp32.
    """

    input_ids: Tensor
    positions: Tensor
    segments: Tensor
    is_question: Tensor
    labels: Tensor
    weights: Tensor

    def to(self, device: torch.device) -> Self:
        """The same rows on another device."""
        return type(self)(**{entry.name: getattr(self, entry.name).to(device) for entry in fields(self)})

    def visible(self, *, prefix: bool) -> Tensor:
        """The attention mask, booleans ``[R, T, T]``.

        Within its own sample every token sees what stands before it, itself, and with ``prefix`` the whole question.
        Padding sees itself, so that no row is empty.
        """
        own = self.segments[:, :, None] == self.segments[:, None, :]
        index = torch.arange(self.segments.shape[1], device=self.segments.device)
        allowed = (index[None, :, None] >= index) | (self.is_question[:, None, :] & prefix)
        real = (self.segments >= 0)[:, None, :] | torch.eye(len(index), dtype=torch.bool, device=index.device)
        return own & allowed & real

    def loss(self, hidden: Tensor, head: Any, targets: Tensor | None = None) -> Tensor:
        """Weighted sum of the cross entropies of the learned tokens (nat), at least fp32.

        Args:
            hidden: ``[R, T, width]``.
            head: from hidden states to logits; it is run on the learned places only.
            targets: ``[V, V]``, the distribution that stands for each label (:func:`spread_targets`); ``None``: the
                label alone.
        """
        learned = self.labels != NOT_LEARNED
        logits = head(hidden[learned])
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        labels = self.labels[learned]
        errors = functional.cross_entropy(logits, labels if targets is None else targets[labels], reduction="none")
        return (errors * self.weights[learned]).sum()


@dataclass(frozen=True)
class Pictures:
    """The images of rows of text, each once.

    Attributes:
        tiles: ``[n, S, S, 3]`` uint8.
        index: which tile stands at each place, in the order of the places, row after row.
    """

    tiles: Tensor
    index: Tensor


def spread_targets(ordered: range, spread: float, vocabulary: int) -> Tensor:
    """Distributions over tokens that stand for a label, ``[V, V]``: itself, but for tokens that have an order.

    Args:
        ordered: ids of tokens of which neighbours mean nearly the same, such as the numbers of a place.
        spread: standard deviation of a label's normal distribution over them, in tokens; more than 0.
        vocabulary: V.

    Example:
        >>> spread_targets(range(1, 4), 1.0, 5)[1]
        tensor([0.0000, 0.5741, 0.3482, 0.0777, 0.0000])
    """
    targets, numbers = torch.eye(vocabulary), torch.arange(len(ordered))
    distance = (numbers[:, None] - numbers) / spread
    targets[ordered.start : ordered.stop, ordered.start : ordered.stop] = (-distance.square() / 2).softmax(-1)
    return targets


def packed(lengths: Sequence[int], room: int) -> list[list[int]]:
    """First-fit packing: each sample goes into the first row that has room for it.

    Example:
        >>> packed([5, 4, 3, 2], 8)
        [[0, 2], [1, 3]]
    """
    rows: list[list[int]] = []
    left: list[int] = []
    for number, length in enumerate(lengths):
        place = next((i for i, space in enumerate(left) if space >= length), len(rows))
        if place == len(rows):
            rows.append([])
            left.append(room)
        rows[place].append(number)
        left[place] -= length
    return rows


def answer_weights(samples: Sequence[TextSample], weighting: str) -> list[float]:
    """The weight of every token of each sample's answer; over all tokens of all samples they sum to 1.

    Args:
        samples: all that one update learns from.
        weighting: a key of :data:`POWERS`.
    """
    counts = [len(sample.answer) for sample in samples]
    each = [count ** POWERS[weighting] for count in counts]
    total = sum(count * weight for count, weight in zip(counts, each, strict=True))
    return [weight / total for weight in each]


def text_rows(
    samples: Sequence[TextSample], weights: Sequence[float], groups: Sequence[Sequence[int]], pad_id: int
) -> TextRows:
    """Samples as tensors on the CPU.

    Args:
        samples: any number.
        weights: of a token of each sample's answer.
        groups: numbers of the samples of each row, as :func:`packed` gives them.
        pad_id: fills rows up.
    """
    rows = [[(samples[number], weights[number]) for number in group] for group in groups]
    length = max(sum(len(sample) for sample, _ in row) for row in rows)
    columns = [_columns(row) for row in rows]
    fill = (pad_id, 0, -1, False, NOT_LEARNED, 0.0)
    tensors = [
        torch.tensor([column[i] + [blank] * (length - len(column[i])) for column in columns])
        for i, blank in enumerate(fill)
    ]
    return TextRows(*tensors)


def _columns(row: Sequence[tuple[TextSample, float]]) -> list[list[Any]]:
    """Ids, positions, segments, flags, labels and weights of one row, in the order of :class:`TextRows`."""
    columns: list[list[Any]] = [[] for _ in range(6)]
    for segment, (sample, weight) in enumerate(row):
        before, after = len(sample.question), len(sample.answer)
        unlearned = before - 1
        parts: tuple[list[Any], ...] = (
            [*sample.question, *sample.answer],
            list(range(before + after)),
            [segment] * (before + after),
            [True] * before + [False] * after,
            [NOT_LEARNED] * unlearned + [*sample.answer] + [NOT_LEARNED],
            [0.0] * unlearned + [weight] * after + [0.0],
        )
        for column, part in zip(columns, parts, strict=True):
            column.extend(part)
    return columns
