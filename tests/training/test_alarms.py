from __future__ import annotations

from vlaser_gym.training.alarms import Alarms


def test_a_policy_that_runs_away_is_said_once():
    alarms = Alarms(target_kl=0.05)
    assert alarms.look({"train/approx_kl": 0.4}) == []
    (said,) = alarms.look({"train/approx_kl": 1e5})
    assert "moved 1e+05 nat" in said
    assert "more than 0.5" in said
    assert alarms.ran_away
    assert alarms.look({"train/approx_kl": 1e5}) == []
    assert alarms.look({"train/approx_kl": 0.01}) == []
    assert not alarms.ran_away
    assert len(alarms.look({"train/approx_kl": float("inf")})) == 1


def test_what_teaches_nothing_is_said():
    alarms = Alarms()
    assert alarms.look({"rollout/useful_groups": 0.0}) == []
    (said,) = alarms.look({"rollout/useful_groups": 0.0})
    assert "no group had both successes and failures" in said
    (said,) = Alarms().look({"train/clip_fraction": 0.55})
    assert said.startswith("55 % of the likelihood ratios")


def test_a_critic_has_time_to_learn():
    alarms = Alarms()
    said = [alarms.look({"train/explained_variance": -0.1}) for _ in range(12)]
    assert [len(sentences) for sentences in said] == [0] * 9 + [1, 0, 0]


def test_a_collapse_is_measured_from_the_best():
    alarms = Alarms()
    rates = (0.1, 0.02, 0.6, 0.4, 0.29, 0.1)
    assert [len(alarms.look({"rollout/success_rate": rate})) for rate in rates] == [0, 0, 0, 0, 1, 0]


def test_an_evaluation_neither_ends_nor_repeats_an_alarm():
    """Its lines hold other numbers: they made the last update harmless, and began every count anew."""
    alarms, scored = Alarms(target_kl=0.05), {"success/mean": 0.0}
    assert len(alarms.look({"train/approx_kl": 3.0})) == 1
    assert alarms.look(scored) == []
    assert alarms.ran_away
    assert alarms.look({"train/approx_kl": 3.0}) == []
    found = [len(alarms.look(row)) for row in ({"rollout/useful_groups": 0.0}, scored, {"rollout/useful_groups": 0.0})]
    assert found == [0, 0, 1]
    lines = [row for _ in range(10) for row in ({"train/explained_variance": 0.0}, scored)]
    assert [len(alarms.look(row)) for row in lines] == [0] * 18 + [1, 0]


def test_rollouts_far_below_the_evaluated_policy_are_said():
    """With noise 0.5 nano succeeded in 43 % of its rollouts and in 68 without, and PPO mended the noise."""
    alarms = Alarms()
    assert alarms.look({"rollout/success_rate": 0.43}) == []
    assert alarms.look({"success/mean": 0.68}) == []
    (said,) = alarms.look({"rollout/success_rate": 0.43})
    assert said.startswith("noisy rollouts succeed in 43 %, the evaluated policy in 68")
    assert alarms.look({"rollout/success_rate": 0.43}) == []
    assert alarms.look({"rollout/success_rate": 0.6}) == []
    assert Alarms().look({"success/mean": 0.1, "rollout/success_rate": 0.02}) == []
