"""Learning to answer: what is read, what a step learns, and that it ends in a model that answers."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from demonstrations import TINY, tiny_config, write_set
from fabricate_vlm import write_vlm
from PIL import Image

from vlaser_gym import cli
from vlaser_gym.agents.vlaser.agent import load_agent, nano_processor
from vlaser_gym.agents.vlaser.answering import AnsweringPolicy, reasoning_settings
from vlaser_gym.agents.vlaser.chat import Request
from vlaser_gym.agents.vlaser.policy import VlaserPolicy
from vlaser_gym.agents.vlaser.tokenizer import AnswerTokenizer
from vlaser_gym.agents.vlaser.trainable import TrainableVlaser
from vlaser_gym.commands.train import main
from vlaser_gym.errors import InvalidConfigError, MissingAssetError, StorageError, UnknownNameError
from vlaser_gym.settings.algorithms import VlmSettings
from vlaser_gym.training.answering import AnswerTraining
from vlaser_gym.training.data.augment import Augmentation
from vlaser_gym.training.data.conversations import Answers, read_conversations
from vlaser_gym.training.metrics import read_metrics
from vlaser_gym.training.trainer import RunOptions

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40)}
PLACES = {"left": "<point>[[250, 500]]</point>", "right": "<point>[[750, 500]]</point>"}
LENGTH = 64


def write_questions(folder: Path, count: int = 8) -> Path:
    """A coloured square to the left or right in every image; its colour and its place are asked for."""
    (folder / "images").mkdir(parents=True)
    (folder / "truth").mkdir()
    lines, truths = [], []
    for number in range(count):
        colour, side = list(COLOURS)[number % 2], list(PLACES)[number // 2 % 2]
        picture = np.full((32, 40, 3), 120, np.uint8)
        columns = slice(2, 18) if side == "left" else slice(22, 38)
        picture[8:24, columns] = COLOURS[colour]
        picture[number, 0] = 0
        name = f"images/{number}.png"
        Image.fromarray(picture).save(folder / name)
        for kind, question, answer in (("colour", "Colour?", colour), ("place", "Point.", PLACES[side])):
            turns = [{"from": "human", "value": f"<image>\n{question}"}, {"from": "gpt", "value": answer}]
            lines.append({"id": len(lines), "image": name, "width": 40, "height": 32, "conversations": turns})
            truths.append({"kind": kind, "family": "spatial" if kind == "place" else "look"})
    for file, rows in ((folder / "train.jsonl", lines), (folder / "truth/train.jsonl", truths)):
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture(scope="module")
def questions(tmp_path_factory) -> Path:
    return write_questions(tmp_path_factory.mktemp("questions") / "q")


def agent_of(seed: int = 1, **options) -> TrainableVlaser:
    config = tiny_config(**reasoning_settings(LENGTH))
    policy = VlaserPolicy.initialise(config, seed)
    return TrainableVlaser(policy, nano_processor(config), teach=True, acts=False, **options)


# --- what is read


def test_kinds_and_families_are_chosen_by_the_truth(questions):
    everything = read_conversations(questions)
    assert len(everything) == 16
    assert everything[1].answer == PLACES["left"]
    assert everything[1].sizes == ((40, 32),)
    assert [one.question for one in read_conversations(questions, ["spatial"])] == ["<image>\nPoint."] * 8
    assert len(read_conversations(questions, ["spatial", "colour"])) == 16
    with pytest.raises(UnknownNameError, match="place"):
        read_conversations(questions, ["plaice"])


def test_every_turn_is_an_answer_to_learn(tmp_path):
    turns = [("system", "S"), ("human", "a"), ("gpt", "b"), ("human", "c"), ("gpt", "d")]
    line = {"conversations": [{"from": who, "value": text} for who, text in turns]}
    (tmp_path / "talk.jsonl").write_text(json.dumps(line) + "\n")
    first, second = read_conversations(tmp_path / "talk.jsonl")
    assert (first.question, first.answer, first.history) == ("a", "b", ())
    assert (second.question, second.answer, second.history) == ("c", "d", (("a", "b"),))


def test_what_is_no_folder_of_questions_is_a_sentence(questions, tmp_path):
    with pytest.raises(StorageError, match=r"a data set of demonstrations"):
        read_conversations(write_set(tmp_path / "set", 1))
    with pytest.raises(StorageError, match="not there"):
        read_conversations(tmp_path / "nothing")
    (tmp_path / "train.jsonl").write_text('{"image": "x.png"}\n')
    with pytest.raises(StorageError, match=r"Line 1 of .* should be a conversation"):
        read_conversations(tmp_path)
    line = json.loads((questions / "train.jsonl").read_text().splitlines()[0])
    (tmp_path / "train.jsonl").write_text(json.dumps(line) + "\n")
    with pytest.raises(MissingAssetError, match=r"1 images of .* are missing, the first is"):
        read_conversations(tmp_path)
    with pytest.raises(StorageError, match=r"leave algo\.kinds out"):
        read_conversations(tmp_path, ["place"])


# --- what a step learns


def test_an_epoch_has_every_answer_once_and_a_picture_is_encoded_once(questions):
    answers = Answers(questions, agent_of(), seed=4)
    rows = np.concatenate([answers.rows(step, 4) for step in range(4)])
    assert sorted(rows) == list(range(16))
    assert not np.array_equal(rows, np.concatenate([answers.rows(step, 4) for step in range(4, 8)]))
    assert all(first // 2 == second // 2 for first, second in rows.reshape(-1, 2))
    pictures, text = answers.batch(answers.rows(0, 4), torch.zeros(4, 8))
    assert pictures.tiles.shape == (2, 24, 24, 3)
    assert sorted(pictures.index.tolist()) == [0, 0, 1, 1]
    assert int((text.labels >= 0).sum()) == sum(len(answers.samples[row].answer) for row in answers.rows(0, 4))


def test_parts_of_a_step_and_packed_rows_have_the_batchs_loss(questions):
    agent = agent_of()
    generator = torch.Generator().manual_seed(0)
    answers = Answers(questions, agent, seed=4, packing=False, augmentation=Augmentation("colour"))
    changes = answers.augmentation.draw(8, torch.Generator().manual_seed(0))
    with torch.no_grad():
        whole = agent.answer_loss(*answers.batch(answers.rows(2, 8), changes))
        answers.packing = True
        packed = answers.batch(answers.rows(2, 8), changes)
        shares = np.array_split(np.arange(8), 2)
        parts = [agent.answer_loss(*part) for part in answers.parts(2, 8, shares, 2.0, generator)]
    assert len(packed[1].input_ids) < 8
    torch.testing.assert_close(agent.answer_loss(*packed).detach(), whole)
    torch.testing.assert_close(sum(parts) / 2, whole)


def test_a_near_miss_of_a_place_costs_less_than_a_far_one(questions):
    """The loss by hand: a normal distribution over the tens of a place's number, everything else as it is."""
    answers = Answers(questions, agent_of(), seed=4)
    batch = answers.batch(answers.rows(0, 4), torch.zeros(4, 8))
    heard: dict[str, torch.Tensor] = {}

    def loss_of(spread: float) -> float:
        agent = agent_of(place_spread=spread)
        agent.policy.lm_head.register_forward_hook(lambda _, __, output: heard.update(logits=output))
        with torch.no_grad():
            return float(agent.answer_loss(*batch))

    plain, spread = loss_of(0), loss_of(1.5)
    labels = batch[1].labels[batch[1].labels >= 0].tolist()
    weights = batch[1].weights[batch[1].labels >= 0].tolist()
    tokens = AnswerTokenizer()
    tens = [tokens.encode(f"<point>[[{number}")[2] for number in range(0, 1001, 10)]
    likelihoods = heard["logits"].double().log_softmax(-1).tolist()
    expected = 0.0
    for label, weight, row in zip(labels, weights, likelihoods, strict=True):
        shares = {label: 1.0}
        if label in tens:
            shares = {token: math.exp(-((token - label) ** 2) / (2 * 1.5**2)) for token in tens}
        expected -= weight * sum(share * row[token] for token, share in shares.items()) / sum(shares.values())
    assert sum(label in tens for label in labels) >= 4
    assert spread == pytest.approx(expected, rel=1e-5)
    assert plain != pytest.approx(spread, rel=1e-4)


def test_a_policy_whose_instructions_are_bytes_learns_places_by_their_tokens(questions, tmp_path):
    words = ["algo=vlm", "algo.steps=1", "algo.batch_size=4", "device=cpu", f"data={questions}", "init=random:nano"]
    run = [f"run={tmp_path / 'run'}", "algo.place_spread=2"]
    main(cli.load("train", [*words, *run]))
    assert AnsweringPolicy.load(tmp_path / "run/checkpoint").policy.config.reasoning_length


def test_places_that_are_written_digit_by_digit_cannot_be_spread(questions, tmp_path):
    words = ["algo=vlm", "algo.place_spread=1", "algo.steps=1", "device=cpu", f"data={questions}"]
    with pytest.raises(InvalidConfigError, match=r"digit by digit: leave algo\.place_spread out"):
        main(cli.load("train", [*words, f"init={write_vlm(tmp_path / 'vlm')}", f"run={tmp_path / 'run'}"]))


def test_answers_that_are_too_long_are_left_out_and_counted(questions, tmp_path):
    # With their questions: "red" 20 tokens, "green", a frequent word, 17, places 20.
    config = tiny_config(**reasoning_settings(19))
    agent = TrainableVlaser(VlaserPolicy.initialise(config), nano_processor(config), teach=True)
    answers = Answers(questions, agent, seed=0)
    assert (len(answers), answers.skipped) == (4, 12)
    assert "12 longer than 19 tokens are left out" in answers.describe()
    config = tiny_config(**reasoning_settings(9))
    agent = TrainableVlaser(VlaserPolicy.initialise(config), nano_processor(config), teach=True)
    with pytest.raises(InvalidConfigError, match=r"All 16 answers .* give a larger algo.length"):
        Answers(questions, agent, seed=0)
    with pytest.raises(InvalidConfigError, match="do not follow a crop"):
        Answers(questions, agent_of(), seed=0, augmentation=Augmentation("full"))


def test_steps_are_the_same_in_parts_and_after_an_interruption(questions, tmp_path):
    settings = VlmSettings(steps=4, batch_size=8, warmup=1, ema=0.9)

    def trained(name: str, stop=lambda: False, **changes) -> AnswerTraining:
        agent = agent_of()
        given = dataclasses.replace(settings, **changes)
        options = RunOptions(seed=2, save_every=2)
        made = AnswerTraining(agent, Answers(questions, agent, 2), given, tmp_path / name, options)
        made.run(stop)
        return made

    whole = trained("whole")
    parts = trained("parts", accumulate=4)
    for name, value in whole.agent.state_dict().items():
        torch.testing.assert_close(parts.agent.state_dict()[name], value, atol=2e-4, rtol=1e-3)
    count = iter(range(9))
    trained("halves", lambda: next(count) >= 2)
    again = trained("halves")
    assert again.done == 4
    assert all(torch.equal(value, again.agent.state_dict()[n]) for n, value in whole.agent.state_dict().items())
    assert not any("expert" in name for name, weight in again.agent.named_parameters() if weight.requires_grad)


# --- the command


def words_of(*more: str) -> list[str]:
    sizes = [f"settings.{name}={value}" for name, value in TINY.items()]
    return ["init=random:nano", *sizes, "evaluate_episodes=0", "device=cpu", "log_every=5", *more]


def test_it_learns_to_answer_and_a_policy_grown_from_it_still_does(questions, tmp_path):
    """Colours and places of squares; then demonstrations and questions together."""
    run = tmp_path / "vlm"
    algo = [
        "algo=vlm",
        "algo.steps=150",
        "algo.batch_size=16",
        "algo.warmup=5",
        "algo.learning_rate=6e-3",
        "algo.ema=0",
    ]
    wide = ["settings.width=32", "settings.head_dim=16", "settings.vision_width=32", "settings.mlp_width=64"]
    main(cli.load("train", [*words_of(*algo, f"data={questions}", f"run={run}", "algo.length=64"), *wide]))
    losses = [row["loss/answers"] for row in read_metrics(run / "metrics.jsonl")]
    assert losses[-1] < 0.1 * losses[0]
    pictures = [np.asarray(Image.open(questions / f"images/{i}.png")) for i in range(4)]
    asked = [Request("<image>\nColour?", [one]) for one in pictures] + [Request("<image>\nPoint.", [pictures[2]])]
    model = AnsweringPolicy.load(run / "checkpoint")
    assert [reply.text for reply in model.replies(asked)] == ["red", "green", "red", "green", PLACES["right"]]
    with pytest.raises(InvalidConfigError, match="without an action expert"):
        load_agent(str(run / "checkpoint"))

    data, both = write_set(tmp_path / "set", 3), tmp_path / "both"
    algo = ["algo.steps=4", "algo.batch_size=4", "algo.warmup=2", "algo.answers=4", "algo.learning_rate=1e-4"]
    start = ["evaluate_episodes=0", "device=cpu", "log_every=2", f"init={run / 'checkpoint'}", f"data={data}"]
    main(cli.load("train", [*start, *algo, f"questions={questions}", "questions_weight=0.5", f"run={both}"]))
    row = read_metrics(both / "metrics.jsonl")[-1]
    assert row["loss/answers"] > 0
    assert row["loss/imitation"] > 0
    model = AnsweringPolicy.load(both / "checkpoint")
    assert [reply.text for reply in model.replies(asked)][:2] == ["red", "green"]
    agent = load_agent(str(both / "checkpoint"), think=2)
    assert agent.thinking is not None
    assert json.loads((both / "settings.json").read_text())["questions_weight"] == 0.5


def test_a_policy_learns_to_answer_and_acts_bit_for_bit_as_before(questions, tmp_path):
    config = tiny_config()
    policy = VlaserPolicy.initialise(config, seed=9)
    TrainableVlaser(policy, nano_processor(config)).save(tmp_path / "policy")
    frozen = "algo.freeze=[vision,embedding,language]"
    words = [f"init={tmp_path / 'policy'}", "algo=vlm", "algo.steps=3", "algo.batch_size=8", frozen, "device=cpu"]
    main(cli.load("train", [*words, f"data={questions}", f"run={tmp_path / 'run'}"]))
    learned = AnsweringPolicy.load(tmp_path / "run/checkpoint").policy
    changed = {n for n, v in policy.state_dict().items() if not torch.equal(v, learned.state_dict()[n])}
    assert changed
    assert all(name.startswith(("language.norm", "language.layers.1.")) for name in changed)
    assert not any(".k_proj" in name or ".v_proj" in name or "input_layernorm" in name for name in changed)
    arguments = (torch.randn(1, 3, 24, 24), torch.full((1, 48), 65), torch.randn(1, 7), torch.randn(1, 4, 7))
    arguments[1][:, :4] = 261
    # Both in memory of their own: what is read from a file lies there as it does in the file, which moves last digits.
    copied = VlaserPolicy.initialise(learned.config)
    copied.load_state_dict(learned.state_dict())
    assert torch.equal(copied.decide(*arguments), policy.decide(*arguments))


def test_an_internvl_model_learns_by_transformers_own_loss(questions, tmp_path):
    from vlaser_gym.agents.vlaser.trainable_vlm import TrainableVlm
    from vlaser_gym.agents.vlaser.vlm import Vlm

    folder = write_vlm(tmp_path / "vlm")
    agent = TrainableVlm.from_folder(folder, "cpu", length=600, max_tiles=2)
    answers = Answers(questions, agent, seed=0, weighting="token")
    pictures, rows = answers.batch(np.array([1]), torch.zeros(1, 8))
    pixels = (pictures.tiles.permute(0, 3, 1, 2) / 255 - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / (
        torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    )
    with torch.no_grad():
        embedded = agent.model.embed(rows.input_ids, pixels, agent.vlm.tokenizer.image_id)
        labels = torch.where(rows.is_question, -100, rows.input_ids)
        theirs = agent.model.language_model(inputs_embeds=embedded, labels=labels).loss
        torch.testing.assert_close(agent.answer_loss(pictures, rows), theirs, atol=1e-5, rtol=1e-5)
    words = ["algo=vlm", "algo.steps=2", "algo.batch_size=4", "algo.lora=2", "algo.length=600", "device=cpu"]
    main(cli.load("train", [*words, f"init={folder}", f"data={questions}", f"run={tmp_path / 'run'}"]))
    before, after = Vlm.from_folder(folder), Vlm.from_folder(tmp_path / "run/checkpoint")
    changed = [n for n, v in before.model.state_dict().items() if not torch.equal(v, after.model.state_dict()[n])]
    assert changed
    assert not any("lm_head" in name or "embed_tokens" in name for name in changed)
    assert after.config == before.config
