"""Policies that answer questions: prompts, and greedy answers of several questions at once.

Images and question see each other, as image and instruction do in the policy; an answer sees them and what of itself
stands before (``reasoning_mask="prefix"`` in the checkpoint).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vlaser_gym.agents.text_rows import TextSample
from vlaser_gym.agents.vlaser.chat import SYSTEM_MESSAGE, Reply, Request, chat_prompt, short_prompt
from vlaser_gym.agents.vlaser.checkpoint import load_policy
from vlaser_gym.agents.vlaser.config import PREFIX_MASK, VlaserConfig
from vlaser_gym.agents.vlaser.language import KeyValue
from vlaser_gym.agents.vlaser.policy import VlaserPolicy
from vlaser_gym.agents.vlaser.processor import Processor, ResizeImage, normalize_pixels
from vlaser_gym.agents.vlaser.statistics import OF_ROBOT
from vlaser_gym.agents.vlaser.tokenizer import IM_END, IMAGE, AnswerTokenizer, ByteTokenizer, Tokenizer
from vlaser_gym.errors import InvalidConfigError

#: How a policy is asked for the next sub-task while it acts; a wording of ``next_subtask`` among the questions.
SUBTASK_QUESTION = "The robot shall {instruction}. What must it do next?"
#: Tokens of images, question and answer together, for a policy that gets a language head.
REASONING_LENGTH = 256


def answer_tokenizer(tokenizer: Tokenizer) -> Tokenizer:
    """The tokenizer of questions and answers, derived from that of a policy's prompts."""
    return AnswerTokenizer() if isinstance(tokenizer, ByteTokenizer) else tokenizer


class Prompter:
    """Questions and answers as tokens, for a policy.

    Args:
        config: of the policy.
        tokenizer: of its prompts.
        system: system message; the small model has none.
    """

    def __init__(self, config: VlaserConfig, tokenizer: Tokenizer, system: str = SYSTEM_MESSAGE) -> None:
        self.config, self.system = config, system
        self.tokenizer, self.is_short = answer_tokenizer(tokenizer), isinstance(tokenizer, ByteTokenizer)

    def question(self, question: str, pictures: int, history: Sequence[tuple[str, str]] = ()) -> list[int]:
        """The tokens that the answer follows.

        Raises:
            InvalidConfigError: for special tokens in the text.
        """
        counts = [self.config.num_image_tokens] * pictures
        if self.is_short:
            text = short_prompt(question, counts, history)
        else:
            text = chat_prompt(question, counts, self.system, history)
        ids = self.tokenizer.encode(text)
        if ids.count(self.config.image_token_id) != sum(counts) or self.config.pad_id in ids:
            raise InvalidConfigError(f"Questions and system messages are plain text without {IMAGE}; got {question!r}.")
        return ids

    def sample(self, question: str, answer: str, pictures: int, history: Sequence[tuple[str, str]] = ()) -> TextSample:
        """A question and its answer, to learn from."""
        # A word's token has the space before it, which an answer's first word gets too; reading takes it off again.
        answer = f" {answer}" if self.is_short and answer[:1].isalpha() else answer
        answered = [*self.tokenizer.encode(answer), self.tokenizer.end_id]
        return TextSample(self.question(question, pictures, history), answered)

    def text(self, ids: Sequence[int]) -> str:
        """An answer from its tokens."""
        return self.tokenizer.decode(ids).split(IM_END)[0].strip()


class AnsweringPolicy:
    """Answers questions by a policy's language head.

    Args:
        policy: with a language head, in evaluation mode.
        tokenizer: of its prompts.
        resize: makes its images.

    Raises:
        InvalidConfigError: for a policy without a language head.
    """

    def __init__(self, policy: VlaserPolicy, tokenizer: Tokenizer, resize: ResizeImage, source: str = "") -> None:
        if not policy.config.answers:
            raise InvalidConfigError(
                f"{source or 'This policy'} is a policy without a language head: it acts and cannot answer. Teach it "
                "with train algo=vlm or algo=sft questions=DIR, or give the vision-language model that it was trained "
                "from."
            )
        self.policy, self.tokenizer, self.resize = policy, tokenizer, resize

    @classmethod
    def load(cls, source: str | Path, device: str = "cpu", dtype: torch.dtype = torch.float32) -> AnsweringPolicy:
        """Load from a checkpoint of ours, of a policy or of a vision-language model of its shape.

        Raises:
            CheckpointError: if its weights cannot be used.
            InvalidConfigError: if it has no language head.
        """
        from vlaser_gym.agents.vlaser.agent import shipped_or_path  # noqa: PLC0415  (it imports this module)

        folder = shipped_or_path(str(source))
        policy, _ = load_policy(folder, dtype=dtype, device=device)
        known = OF_ROBOT[str(policy.config.robot)]
        processor = Processor.load(folder, policy.config, statistics=known)
        return cls(policy, processor.prompt.tokenizer, processor.resize, str(source))

    @torch.inference_mode()
    def replies(
        self,
        requests: Sequence[Request],
        *,
        system: str = SYSTEM_MESSAGE,
        max_tiles: int | None = None,
        max_new_tokens: int = 256,
    ) -> list[Reply]:
        """The answers to several questions at once.

        Args:
            requests: the questions with their images.
            system: system message; the small model has none.
            max_tiles: of no meaning here: a policy reads an image as one square.
            max_new_tokens: length of an answer at most; images, question and answer together have the checkpoint's
                ``reasoning_length`` at most.

        Raises:
            InvalidConfigError: for a question that leaves no room for an answer.
        """
        prompter = Prompter(self.policy.config, self.tokenizer, system)
        prompts = [prompter.question(one.question, len(one.images), one.history) for one in requests]
        rooms = [int(self.policy.config.reasoning_length or 0) - len(prompt) for prompt in prompts]
        if min(rooms) < 1:
            longest = rooms.index(min(rooms))
            raise InvalidConfigError(
                f"Images and question have less than {self.policy.config.reasoning_length} tokens for this policy; "
                f"got {len(prompts[longest])} of {requests[longest].question!r:.80}: shorten it."
            )
        pictures = [self.pixels(image) for one in requests for image in one.images]
        features = None
        if pictures:
            pixels = normalize_pixels(torch.from_numpy(np.stack(pictures)).to(self.policy.device))
            features = self.policy.image_features(pixels.to(self.policy.dtype))
        end = prompter.tokenizer.end_id
        rows = greedy_answers(self.policy, features, prompts, [min(room, max_new_tokens) for room in rooms], end)
        return [Reply(prompter.text(row), not row or row[-1] != end) for row in rows]

    def pixels(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """An image ``[H, W, 3]`` in the policy's size ``[S, S, 3]``."""
        return np.asarray(self.resize({"image": image[None]})["pixels"][0], np.uint8)


class Thinking:
    """The sub-task that a policy says comes next, asked anew every few decisions of an environment.

    What it says does not change how it acts.

    Args:
        model: the policy as one that answers.
        every: decisions from one question to the next.
    """

    def __init__(self, model: AnsweringPolicy, every: int) -> None:
        if isinstance(every, bool) or not isinstance(every, int) or every < 1:
            raise InvalidConfigError(f"agent.think is a number of decisions, 1 or more, or null; got {every!r}.")
        self.model, self.every = model, every
        self._said: dict[int, tuple[int, str]] = {}

    def reset(self, lanes: Iterable[int]) -> None:
        """Episodes begin on these environments."""
        for lane in lanes:
            self._said.pop(int(lane), None)

    def look(self, lanes: Iterable[int], pixels: NDArray[np.uint8], instructions: Sequence[str]) -> None:
        """Ask where it is time to.

        Args:
            lanes: ``[N]``, which decide now.
            pixels: ``[N, S, S, 3]`` in the policy's size.
            instructions: N strings.
        """
        decided = {int(lane): self._said.get(int(lane), (0, "")) for lane in lanes}
        due = [row for row, (count, _) in enumerate(decided.values()) if count % self.every == 0]
        questions = [SUBTASK_QUESTION.format(instruction=instructions[row]) for row in due]
        requests = [Request(f"<image>\n{text}", [pixels[row]]) for text, row in zip(questions, due, strict=True)]
        replies = self.model.replies(requests) if requests else []
        said = dict(zip(due, (reply.text for reply in replies), strict=True))
        for row, (lane, (count, before)) in enumerate(decided.items()):
            self._said[lane] = (count + 1, said.get(row, before))

    def said(self, lanes: Iterable[int]) -> list[str]:
        """The last words on each environment."""
        return [self._said[int(lane)][1] for lane in lanes]

    def get_state(self) -> dict[int, tuple[int, str]]:
        """The environments' memory."""
        return dict(self._said)

    def set_state(self, state: Mapping[int, tuple[int, str]]) -> None:
        """Put back what :meth:`get_state` gave."""
        self._said = {int(lane): (int(count), str(text)) for lane, (count, text) in state.items()}


@torch.inference_mode()
def greedy_answers(
    policy: VlaserPolicy, features: Tensor | None, prompts: Sequence[Sequence[int]], limits: Sequence[int], end_id: int
) -> list[list[int]]:
    """The most likely next tokens of each prompt, one after another, up to and with ``end_id``.

    Args:
        policy: with a language head.
        features: of the images ``[pictures, image tokens, width]``, in the order of the prompts; ``None`` for none.
        prompts: ids with an image token for every image feature.
        limits: tokens of each answer at most, 1 or more.
        end_id: ends an answer.
    """
    lengths = torch.tensor([len(prompt) for prompt in prompts], device=policy.device)
    longest = int(lengths.max())
    pad = policy.config.pad_id
    ids = torch.tensor([[*prompt, *[pad] * (longest - len(prompt))] for prompt in prompts], device=policy.device)
    is_real = torch.arange(longest, device=policy.device) < lengths[:, None]
    embedded, positions = policy.embed_text(features, ids), torch.arange(longest, device=policy.device)[None]
    hidden, past = policy.read_text(embedded, positions, is_real[:, None].expand(-1, longest, -1))
    last = hidden[torch.arange(len(ids), device=policy.device), lengths - 1]
    answers: list[list[int]] = [[] for _ in prompts]
    open_rows = list(range(len(prompts)))
    for number in range(max(limits)):
        tokens = policy.lm_head(last).argmax(-1)
        for row, token in zip(open_rows, tokens.tolist(), strict=True):
            answers[row].append(token)
        still = [i for i, row in enumerate(open_rows) if answers[row][-1] != end_id and number + 1 < limits[row]]
        if not still:
            break
        if len(still) < len(open_rows):
            kept = torch.tensor(still, device=policy.device)
            open_rows = [open_rows[i] for i in still]
            tokens, lengths, is_real = tokens[kept], lengths[kept], is_real[kept]
            past = [(keys[kept], values[kept]) for keys, values in past]
        is_real = torch.cat([is_real, torch.ones_like(is_real[:, :1])], dim=1)
        hidden, own = policy.read_text(
            policy.embed_tokens(tokens)[:, None], (lengths + number)[:, None], is_real[:, None], past
        )
        past = [_joined(before, new) for before, new in zip(past, own, strict=True)]
        last = hidden[:, 0]
    return answers


def _joined(before: KeyValue, new: KeyValue) -> KeyValue:
    keys, values = (torch.cat(pair, dim=2) for pair in zip(before, new, strict=True))
    return keys, values


def reasoning_settings(length: int | None = None) -> dict[str, Any]:
    """The config changes that give a policy a language head."""
    return {"reasoning_length": length or REASONING_LENGTH, "reasoning_mask": PREFIX_MASK}
