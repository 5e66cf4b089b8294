"""A policy with its processor under the Hugging Face hub's own methods."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import torch
from huggingface_hub import ModelCard, ModelHubMixin

from vlaser_gym import __version__
from vlaser_gym.agents.vlaser.agent import open_policy
from vlaser_gym.agents.vlaser.densities import Distribution
from vlaser_gym.agents.vlaser.trainable import TrainableVlaser
from vlaser_gym.storage.hub import hub_errors

#: What the card of a policy says below its metadata.
CARD = """---
{{ card_data }}
---

# A Vlaser policy for {{ robot }}

A vision-language-action policy of [Vlaser](https://github.com/OpenGVLab/Vlaser)'s architecture ({{ name }}, {{ parameters }} parameters), stored by vlaser-gym {{ version }}.

| | |
| --- | --- |
| reads | one camera's image ({{ image_size }} x {{ image_size }} after resizing), the arm's state, an instruction |
| answers | {{ horizon }} actions, of which {{ executed }} are executed: translation (m) and axis-angle rotation (rad) per control step in the base frame, and the gripper; what its sign means is the robot's ({{ gripper }}) |
| decides by | {{ flow_steps }} steps of a flow |

```bash
python -m vlaser_gym.eval agent=vlaser checkpoint=ORG/NAME
```

{{ notes }}
"""  # noqa: E501  (a table's row is a line)
_GRIPPER = {"widowx": "+1 opens", "google_robot": "+1 closes, relatively"}


class PretrainedVlaser(
    ModelHubMixin,
    TrainableVlaser,
    library_name="vlaser-gym",
    pipeline_tag="robotics",
    tags=["robotics", "vision-language-action", "simulation"],
    model_card_template=CARD,
):
    """A policy that learners and evaluations take, with ``from_pretrained``, ``save_pretrained`` and ``push_to_hub``.

    Example:
        >>> policy = PretrainedVlaser.from_pretrained("nano")
        >>> policy.push_to_hub("ORG/NAME", private=True)  # doctest: +SKIP
        >>> policy.robot
        'widowx'
    """

    @classmethod
    def from_pretrained(  # type: ignore[override]  # the mixin's keys of its cache are left to its own variables
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        revision: str | None = None,
        robot: str | None = None,
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
        density: Distribution | None = None,
    ) -> Self:
        """A policy of this package's folders, of the released layout, or of the hub.

        Args:
            pretrained_model_name_or_path: ``"nano"``, a folder, or ``ORG/NAME`` on the hub.
            revision: branch, tag or commit there.
            robot: that it must be for.
            device, dtype: of the weights in memory.
            density: makes likelihoods, for reinforcement learning.

        Raises:
            MissingAssetError: if the hub has it not, or cannot be reached.
            CheckpointError: for a folder that is no policy.
        """
        name = str(pretrained_model_name_or_path) + (f"@{revision}" if revision else "")
        return cls(*open_policy(name, robot=robot, device=device, dtype=dtype), density)

    def _save_pretrained(self, save_directory: Path) -> None:
        self.save(save_directory)

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Store in a repository of the hub, made if absent; options as for :class:`huggingface_hub.ModelHubMixin`.

        Raises:
            MissingAssetError: if the hub cannot be reached, or allows it not.
        """
        with hub_errors(f"The Hugging Face hub's repository {repo_id}"):
            return str(super().push_to_hub(repo_id, **options))

    def generate_model_card(self, *args: Any, **options: Any) -> ModelCard:
        """The model card: the policy's inputs, settings and origin; ``notes=`` is the text below."""
        config = self.policy.config
        told: dict[str, Any] = {
            "robot": self.robot,
            "name": config.name,
            "parameters": f"{sum(p.numel() for p in self.policy.parameters()):,}",
            "version": __version__,
            "image_size": config.image_size,
            "horizon": config.horizon,
            "executed": config.executed_steps,
            "gripper": _GRIPPER.get(self.robot, "see docs/conventions.md"),
            "flow_steps": config.num_flow_steps,
            "notes": "",
        }
        return super().generate_model_card(*args, **{**told, **options})
