"""One policy as a file that needs nothing of this package, and what such a file says when it is read again.

Every writer takes a policy and a path; every reader takes a path, raw policy inputs (N, O) and the task, and gives what
`Policy.decide` does: actions (N, A), of agents that decide on several at once all of them (N, h A), or numbers of
choices (N,).
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.torch
import torch
from torch import Tensor
from torch.utils import _pytree

from toolkit import checkpoint
from toolkit.nn import Net, optimised
from toolkit.policy import Policy, describe, fresh_state, policy_tensors, read_description
from toolkit.tasks import TaskCard
from toolkit.types import FloatArray, ToolkitError

Actions = npt.NDArray[Any]

OPSET = 17
POLICY = "policy"  # key of the JSON in a safetensors header


class Greedy(torch.nn.Module):
    """The greedy policy of one seed with its normaliser inside: raw inputs (N, O) to (N, A), of choices to (N,)."""

    mean: Tensor
    std: Tensor

    def __init__(self, policy: Policy) -> None:
        super().__init__()
        self.agent = policy.agent
        leaves, self.structure = _pytree.tree_flatten(policy.state)
        self.count = len(leaves)
        for place, leaf in enumerate(leaves):
            self.register_buffer(f"leaf{place}", leaf)
        self.register_buffer("mean", policy.mean)
        self.register_buffer("std", policy.std)

    def forward(self, observation: Tensor) -> Tensor:
        """Actions of a batch."""
        leaves = [getattr(self, f"leaf{place}") for place in range(self.count)]
        state = _pytree.tree_unflatten(leaves, self.structure)
        noise = observation.new_zeros(observation.shape[0], self.agent.act_noise_dim)
        action = self.agent.act(state, self.agent.features((observation - self.mean) / self.std), noise)
        return action.argmax(-1) if self.agent.spec.discrete else action


def write_torchscript(policy: Policy, path: Path) -> None:
    """The policy as TorchScript; what its greedy action does not read is left out."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # torch.jit is deprecated in favour of torch.export, and widely read
        traced = torch.jit.trace(Greedy(policy).eval(), torch.zeros(3, policy.agent.spec.obs_dim), check_trace=False)
        torch.jit.save(torch.jit.freeze(traced), str(path))


def read_torchscript(path: Path, observation: FloatArray, card: TaskCard) -> Actions:
    """Actions of a TorchScript file."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        return np.asarray(torch.jit.load(str(path))(torch.from_numpy(observation)).numpy())


def write_onnx(policy: Policy, path: Path) -> None:
    """The policy as ONNX with a free number of rows. Raises ToolkitError without the packages it takes."""
    try:
        import onnx  # noqa: F401 the exporter asks for it
        import onnxruntime  # noqa: F401
    except ImportError:
        raise ToolkitError(
            "onnx needs the export extra (pip install 'offline2online-toolkit[export]'); torchscript needs nothing"
        ) from None
    register: Any = torch.onnx.register_custom_op_symbolic  # type: ignore[attr-defined]
    for name, symbolic in (("special_ndtr", _ndtr), ("special_log_ndtr", _log_ndtr)):
        register(f"aten::{name}", symbolic, OPSET)
    rows = {"observation": {0: "rows"}, "action": {0: "rows"}}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter(
            "ignore"
        )  # the exporter that reads traces is deprecated; the other needs one package more
        torch.onnx.export(
            Greedy(policy).eval(),
            (torch.zeros(3, policy.agent.spec.obs_dim),),
            str(path),
            input_names=["observation"],
            output_names=["action"],
            dynamic_axes=rows,
            opset_version=OPSET,
            dynamo=False,
        )


def read_onnx(path: Path, observation: FloatArray, card: TaskCard) -> Actions:
    """Actions of an ONNX file."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"observation": observation})[0])


def _ndtr(g: Any, x: Any) -> Any:
    """The normal's distribution function in ONNX's own terms."""
    half, one, root = (g.op("Constant", value_t=torch.tensor(value)) for value in (0.5, 1.0, 0.5**0.5))
    return g.op("Mul", half, g.op("Add", one, g.op("Erf", g.op("Mul", x, root))))


def _log_ndtr(g: Any, x: Any) -> Any:
    return g.op("Log", _ndtr(g, x))


def write_safetensors(policy: Policy, path: Path) -> None:
    """All networks of one seed without their optimisers, the normaliser, and in the header what they are.

    Names are `NETWORK/w0`, `NETWORK/b0`, ...: the layers, inputs first; `g0`, `h0` are scale and shift of a LayerNorm.
    An ensemble has one axis more.
    """
    nets = {name: part.p if isinstance(part, Net) else part for name, part in policy.state._asdict().items()}
    tensors = checkpoint.flatten({**nets, "normalizer": {"mean": policy.mean, "std": policy.std}})
    about = describe(policy.agent_name, policy.agent, policy.card, [policy.seeds[policy.seed]], policy.far_starts)
    whole = {name: torch.as_tensor(leaf).contiguous().clone() for name, leaf in tensors.items()}
    safetensors.torch.save_file(whole, str(path), metadata={POLICY: json.dumps(about)})


def load_safetensors(path: Path) -> Policy:
    """The policy in a file that `write_safetensors` wrote. Raises ToolkitError for any other."""
    try:
        with safetensors.safe_open(str(path), "pt") as file:
            about = json.loads((file.metadata() or {})[POLICY])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 it is no dictionary
        mean, std = (tensors[f"normalizer/{name}"] for name in ("mean", "std"))
    except (safetensors.SafetensorError, OSError, KeyError, ValueError) as error:
        raise ToolkitError(f"{path}: expected a file of `toolkit export --to safetensors` ({error})") from None
    like = fresh_state(read_description({POLICY: about})[1], tensors)
    parts = {}
    for name, part in like._asdict().items():
        inner = {key.removeprefix(f"{name}/"): leaf for key, leaf in tensors.items() if key.startswith(f"{name}/")}
        found = checkpoint.unflatten(inner, part.p if isinstance(part, Net) else part)
        parts[name] = optimised(found) if isinstance(part, Net) else found
    state = _pytree.tree_map(lambda leaf: leaf.unsqueeze(0), type(like)(**parts))
    return Policy(policy_tensors(state, mean, std), {POLICY: about})


def read_safetensors(path: Path, observation: FloatArray, card: TaskCard) -> Actions:
    """Actions of a safetensors file."""
    return load_safetensors(path).decide(observation)
