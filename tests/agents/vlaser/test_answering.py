"""The language head of a policy: who sees whom, greedy answers, and what becomes of checkpoints."""

from __future__ import annotations

import math
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from demonstrations import tiny_config
from safetensors import safe_open

from vlaser_gym.agents.text_rows import NOT_LEARNED, TextSample, answer_weights, packed, text_rows
from vlaser_gym.agents.vlaser.agent import SHIPPED, load_agent, nano_processor
from vlaser_gym.agents.vlaser.answering import AnsweringPolicy, Prompter, greedy_answers, reasoning_settings
from vlaser_gym.agents.vlaser.chat import Request
from vlaser_gym.agents.vlaser.checkpoint import CheckpointError, load_policy, save_pretrained, save_released
from vlaser_gym.agents.vlaser.config import VlaserConfig
from vlaser_gym.agents.vlaser.policy import VlaserPolicy
from vlaser_gym.agents.vlaser.processor import Processor
from vlaser_gym.agents.vlaser.tokenizer import AnswerTokenizer, ByteTokenizer
from vlaser_gym.agents.vlaser.trainable import TrainableVlaser
from vlaser_gym.errors import InvalidConfigError

LENGTH = 96


def config(**changes) -> VlaserConfig:
    return tiny_config(**reasoning_settings(LENGTH), **changes)


@pytest.fixture(scope="module")
def policy() -> VlaserPolicy:
    # Larger than fresh weights, so that who sees whom matters.
    made = VlaserPolicy.initialise(replace(config(), init_std=0.4), seed=3)
    return made.double()


def picture(seed: int, height: int = 30, width: int = 40) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def plainly(policy: VlaserPolicy, embedded: torch.Tensor, before: int) -> torch.Tensor:
    """Logits of one sample, token by token, by Qwen2's formulas: no cache, no mask tensor, no fused attention."""
    config, x = policy.config, embedded.clone()
    count, dim, group = len(x), config.head_dim, config.heads // config.kv_heads

    def norm(layer, rows):
        return rows / torch.sqrt((rows**2).mean(-1, keepdim=True) + 1e-6) * layer.weight

    def turned(vector, place):
        half = dim // 2
        angles = [(place + 1) / config.rope_theta ** (2 * i / dim) for i in range(half)]
        turn = torch.tensor([complex(math.cos(a), math.sin(a)) for a in angles])
        mixed = torch.complex(vector[:half], vector[half:]) * turn
        return torch.cat([mixed.real, mixed.imag])

    for layer in policy.language.layers:
        rows = norm(layer.input_layernorm, x)
        q, k, v = (getattr(layer.self_attn, f"{name}_proj")(rows).view(count, -1, dim) for name in "qkv")
        out = torch.zeros(count, config.heads, dim, dtype=x.dtype)
        for i in range(count):
            seen = range(before) if i < before else range(i + 1)
            for head in range(config.heads):
                query = turned(q[i, head], i)
                scores = torch.stack([query @ turned(k[j, head // group], j) for j in seen]) / math.sqrt(dim)
                weights = torch.softmax(scores, 0)
                out[i, head] = sum(w * v[j, head // group] for w, j in zip(weights, seen, strict=True))
        x = x + layer.self_attn.o_proj(out.flatten(1))
        rows = norm(layer.post_attention_layernorm, x)
        gate = layer.mlp.gate_proj(rows)
        x = x + layer.mlp.down_proj(gate * torch.sigmoid(gate) * layer.mlp.up_proj(rows))
    return policy.lm_head(norm(policy.language.norm, x))


def embedded_by_hand(policy: VlaserPolicy, ids, features: torch.Tensor) -> torch.Tensor:
    places = iter(features)
    table = policy.embed_tokens.weight
    return torch.stack([next(places) if i == policy.config.image_token_id else table[i] for i in ids])


def samples_and_features(policy: VlaserPolicy) -> tuple[list[TextSample], list[torch.Tensor]]:
    """Three questions: about one image, about two, and about none."""
    prompter = Prompter(policy.config, ByteTokenizer())
    pixels = torch.randn(3, 3, 24, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = [
        prompter.sample("<image>\nhow?", "left", 1),
        prompter.sample("Image-1: <image>\nImage-2: <image>\n?", "yes", 2),
        prompter.sample("2 x 2 =", "4.", 0),
    ]
    features = policy.image_features(pixels)
    return found, [features[:1], features[1:], features[:0]]


@torch.no_grad()
def test_logits_and_loss_are_those_of_the_formulas_whatever_shares_a_row(policy):
    """Images and question see each other, an answer what stands before it: recomputed token by token."""
    samples, features = samples_and_features(policy)
    weights = answer_weights(samples, "square")
    losses = []
    for sample, own, weight in zip(samples, features, weights, strict=True):
        ids = [*sample.question, *sample.answer]
        logits = plainly(policy, embedded_by_hand(policy, ids, own.flatten(0, 1)), len(sample.question))
        rows = text_rows([sample], [weight], [[0]], policy.config.pad_id)
        embedded = policy.embed_text(own if len(own) else None, rows.input_ids)
        hidden, _ = policy.read_text(embedded, rows.positions, rows.visible(prefix=True))
        # Angles are fp32 in the policy.
        torch.testing.assert_close(policy.lm_head(hidden)[0], logits, atol=1e-5, rtol=1e-5)
        errors = [-torch.log_softmax(logits[len(sample.question) - 1 + n], 0)[t] for n, t in enumerate(sample.answer)]
        losses.append(weight * sum(errors))
    for groups in ([[0], [1], [2]], [[0, 2], [1]], [[2, 1, 0]]):
        rows = text_rows(samples, weights, groups, policy.config.pad_id)
        ordered = torch.cat([features[i] for group in groups for i in group])
        hidden, _ = policy.read_text(
            policy.embed_text(ordered, rows.input_ids), rows.positions, rows.visible(prefix=True)
        )
        assert float(rows.loss(hidden, policy.lm_head)) == pytest.approx(float(sum(losses)), rel=1e-5)


def test_weights_of_answers_sum_to_one():
    samples = [TextSample([1], [2] * 4), TextSample([1], [2] * 9)]
    assert answer_weights(samples, "token") == pytest.approx([1 / 13, 1 / 13])
    assert answer_weights(samples, "sample") == pytest.approx([1 / 8, 1 / 18])
    assert answer_weights(samples, "square") == pytest.approx([1 / 2 / 5, 1 / 3 / 5])


def test_rows_say_what_is_learned():
    rows = text_rows([TextSample([7, 8], [9, 10]), TextSample([5], [6])], [0.3, 0.4], [[0, 1]], pad_id=0)
    assert rows.input_ids.tolist() == [[7, 8, 9, 10, 5, 6]]
    assert rows.positions.tolist() == [[0, 1, 2, 3, 0, 1]]
    assert rows.labels.tolist() == [[NOT_LEARNED, 9, 10, NOT_LEARNED, 6, NOT_LEARNED]]
    assert rows.weights[0].tolist() == pytest.approx([0, 0.3, 0.3, 0, 0.4, 0])
    seen = rows.visible(prefix=True)[0].int().tolist()
    assert seen[0] == [1, 1, 0, 0, 0, 0]
    assert seen[3] == [1, 1, 1, 1, 0, 0]
    assert seen[4] == [0, 0, 0, 0, 1, 0]
    assert rows.visible(prefix=False)[0, 0].int().tolist() == [1, 0, 0, 0, 0, 0]


def test_packing_never_overfills_a_row():
    lengths = np.random.default_rng(0).integers(1, 40, 60).tolist()
    rows = packed(lengths, 64)
    assert sorted(n for row in rows for n in row) == list(range(60))
    assert all(sum(lengths[n] for n in row) <= 64 for row in rows)


@torch.inference_mode()
def test_eight_answers_at_once_are_those_of_one_by_one_and_of_no_cache(policy):
    asking = AnsweringPolicy(policy, ByteTokenizer(), nano_processor(policy.config).resize)
    requests = [
        Request("<image>\n" + "why " * (i % 4) + "?", [picture(i)]) if i % 3 else Request(f"What is {i}?")
        for i in range(8)
    ]
    together = asking.replies(requests, max_new_tokens=6)
    assert [asking.replies([one], max_new_tokens=6)[0] for one in requests] == together
    assert len({reply.text for reply in together}) > 1
    prompter = Prompter(policy.config, ByteTokenizer())
    for one in requests[1:3]:
        ids = prompter.question(one.question, len(one.images))
        pixels = torch.from_numpy(np.stack([asking.pixels(image) for image in one.images])).permute(0, 3, 1, 2) / 255
        mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
        features = policy.image_features(((pixels - mean) / std).double())
        written = []
        for _ in range(6):
            whole = embedded_by_hand(policy, [*ids, *written], features.flatten(0, 1))
            written.append(int(plainly(policy, whole, len(ids))[-1].argmax()))
            if written[-1] == ByteTokenizer.end_id:
                break
        assert greedy_answers(policy, features, [ids], [6], ByteTokenizer.end_id) == [written]


def test_a_question_that_leaves_no_room_is_one_sentence(policy):
    asking = AnsweringPolicy(policy, ByteTokenizer(), nano_processor(policy.config).resize)
    with pytest.raises(InvalidConfigError, match="less than 96 tokens for this policy; got 12"):
        asking.replies([Request("short"), Request("q" * 120)])
    with pytest.raises(InvalidConfigError, match="plain text without"):
        asking.replies([Request("<IMG_CONTEXT>")])


def test_an_answer_that_never_ends_is_cut(policy):
    asking = AnsweringPolicy(policy, ByteTokenizer(), nano_processor(policy.config).resize)
    with torch.no_grad():
        before = policy.lm_head.weight.clone()
        policy.lm_head.weight[ByteTokenizer.end_id] = 0
        policy.lm_head.weight[65] = 1000 * policy.lm_head.weight[65]
    try:
        replies = asking.replies([Request("go"), Request("go on")], max_new_tokens=1000)
        prompts = [len(Prompter(policy.config, ByteTokenizer()).question(text, 0)) for text in ("go", "go on")]
    finally:
        with torch.no_grad():
            policy.lm_head.weight.copy_(before)
    assert all(reply.cut for reply in replies)
    assert all(prompt < LENGTH for prompt in prompts)


# --- tokens


def test_places_and_words_are_few_tokens_and_come_back():
    tokenizer = AnswerTokenizer()
    assert tokenizer.vocab_size <= VlaserConfig.preset("nano").vocab_size
    for number in range(1001):
        text = f"<point>[[{number}, {1000 - number}]]</point>"
        ids = tokenizer.encode(text)
        assert len(ids) == 9
        assert tokenizer.decode(ids) == text
    texts = [
        "Where is <ref>green block</ref>? <box>[[0, 10, 200, 1000]]</box> 12 [[1]] <point>[[1, 2], [30, 44]]</point>",
        "<point>[[007, 1001], [0.5, x1]]</point> Größe 🙂 the  gripper the",
        "<|im_start|>the left<|im_end|>",
    ]
    for text in texts:
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert len(tokenizer.encode(" move the gripper to the eggplant")) == 6
    # A number of the same tens begins with the same token; a cut one is read as its tens.
    assert tokenizer.encode("<point>512")[:2] == tokenizer.encode("<point>519")[:2]
    assert tokenizer.decode(tokenizer.encode("<point>[[512, 340")[:-1]) == "<point>[[512, 340"


def test_prompts_of_policies_know_nothing_of_it():
    text = "point to <point>[[12, 5]]</point> the gripper"
    assert ByteTokenizer().encode(text) == list(text.encode())


# --- checkpoints


def test_the_shipped_policy_is_written_as_it_was(tmp_path):
    source = SHIPPED / "nano"
    policy, _ = load_policy(source)
    assert not policy.config.answers
    assert "lm_head.weight" not in policy.state_dict()
    save_pretrained(policy, tmp_path)
    Processor.load(source, policy.config).save(tmp_path)
    for file in ("config.json", "processor.json", "statistics.json"):
        assert (tmp_path / file).read_bytes() == (source / file).read_bytes(), file
    with (
        safe_open(source / "model.safetensors", "pt") as shipped,
        safe_open(tmp_path / "model.safetensors", "pt") as new,
    ):
        assert set(shipped.keys()) == set(new.keys())
        assert all(torch.equal(shipped.get_tensor(name), new.get_tensor(name)) for name in new.keys())  # noqa: SIM118


def test_a_policy_gets_a_head_keeps_it_and_acts_as_before(tmp_path):
    old, _ = load_policy(SHIPPED / "nano")
    new, report = load_policy(SHIPPED / "nano", settings=reasoning_settings())
    assert report.missing == ["lm_head.weight"]
    assert new.lm_head.weight.std() == pytest.approx(0.05, rel=0.05)
    assert all(torch.equal(value, new.state_dict()[name]) for name, value in old.state_dict().items())
    save_pretrained(new, tmp_path)
    Processor.load(SHIPPED / "nano", old.config).save(tmp_path)
    again, report = load_policy(tmp_path)
    assert not report.missing
    assert again.config.reasoning_mask == "prefix"
    assert torch.equal(again.lm_head.weight, new.lm_head.weight)
    assert AnsweringPolicy.load(tmp_path).replies([Request("?")], max_new_tokens=2)[0].cut is not None
    file = tmp_path / "policy.pt"
    save_released(new, file)
    assert torch.equal(load_policy(file)[0].lm_head.weight, new.lm_head.weight)
    (tmp_path / "config.json").write_text((tmp_path / "config.json").read_text().replace('"prefix"', '"causal"'))
    with pytest.raises(CheckpointError, match="reasoning_mask should be 'prefix'"):
        load_policy(tmp_path)


def test_a_policy_without_a_head_is_refused():
    with pytest.raises(InvalidConfigError, match="nano is a policy without a language head"):
        AnsweringPolicy.load("nano")


def test_a_model_without_a_trained_expert_is_no_policy(tmp_path):
    policy = VlaserPolicy.initialise(config(), seed=1)
    TrainableVlaser(policy, nano_processor(policy.config), acts=False).save(tmp_path)
    assert not (tmp_path / "statistics.json").exists()
    with pytest.raises(InvalidConfigError, match="without an action expert, which cannot act"):
        load_agent(str(tmp_path))
    grown, report = load_policy(tmp_path, robot="google_robot")
    assert report.layout == "vlm"
    assert grown.config.proprio_dim == 8
    assert torch.equal(grown.lm_head.weight, policy.lm_head.weight)
    asking = AnsweringPolicy.load(tmp_path)
    assert torch.equal(asking.policy.lm_head.weight, policy.lm_head.weight)


def test_only_what_answers_depend_on_is_trained_beside_frozen_parts():
    policy = VlaserPolicy.initialise(config(), seed=1)
    agent = TrainableVlaser(policy, nano_processor(policy.config), teach=True)
    agent.freeze("vision", "embedding", "language", "expert")
    assert agent.encoding_is_frozen
    trained = {name for name, parameter in agent.named_parameters() if parameter.requires_grad}
    last = "policy.language.layers.1."
    assert {name for name in trained if "k_proj" in name or "v_proj" in name or "layers.0" in name} == set()
    assert "policy.lm_head.weight" in trained
    assert last + "self_attn.q_proj.weight" in trained
    pixels, ids = torch.randn(2, 3, 24, 24), torch.full((2, 48), 256)
    ids[:, :4], ids[:, 4] = 261, 65
    arguments = (pixels, ids, torch.randn(2, 7), torch.randn(2, 4, 7))
    before = policy.decide(*arguments)
    with torch.no_grad():
        for parameter in agent.parameters():
            if parameter.requires_grad:
                parameter.add_(1.0)
    assert torch.equal(policy.decide(*arguments), before)
    agent = TrainableVlaser(policy, nano_processor(policy.config))
    agent.freeze()
    assert not policy.lm_head.weight.requires_grad


@pytest.mark.slow
def test_eight_questions_at_once_take_two_fifths_of_the_time():
    """Processor time of nano's size on one thread, so that other programs do not count."""
    torch.set_num_threads(1)
    policy = VlaserPolicy.initialise(VlaserConfig.preset("nano", **reasoning_settings()))
    asking = AnsweringPolicy(policy, ByteTokenizer(), nano_processor(policy.config).resize)
    requests = [
        Request("<image>\nWhere is the green block? Answer with a point.", [picture(i, 480, 640)]) for i in range(8)
    ]

    def seconds(batches) -> float:
        begun = time.process_time()
        for batch in batches:
            asking.replies(batch, max_new_tokens=12)
        return time.process_time() - begun

    seconds([requests[:1]])
    single = min(seconds([[one] for one in requests]) for _ in range(2))
    together = min(seconds([requests]) for _ in range(2))
    assert single / together > 2.5
