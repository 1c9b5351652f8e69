"""What a folded module must survive, and whose it is: DESIGN.md section 4."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from reparamkit.capture.export import capture
from reparamkit.hosts.fx.fold import fold_program
from tests.nets import Folded, Net, assert_same, fold, noise, randomised

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")


class _Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.wide, self.narrow = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(4) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        a, b, c = self.norms
        return torch.relu(a(self.wide(x)) + b(self.narrow(x)) + c(x))


class _Network(nn.Module):
    """Branches, a layer that nothing folds into, a buffer, a linear tail."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU())
        self.stages = nn.ModuleList([_Block(), _Block()])
        self.kept = nn.GroupNorm(2, 4)
        self.position: Tensor
        self.register_buffer("position", noise(1, 4, 6, 6))
        self.head = nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 5))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x)
        x = self.kept(x) * self.position.sigmoid()
        return self.head(x.mean((2, 3)))


X = (2, 3, 6, 6)


@pytest.fixture(scope="module")
def done() -> Folded:
    result = fold(randomised(_Network()), noise(*X))
    result.compare(noise(*X))
    assert result.count(noise(*X)) == (3, 0, 0)
    return result


def _pickled(module: nn.Module) -> nn.Module:
    loaded = pickle.loads(pickle.dumps(module))
    assert isinstance(loaded, nn.Module)
    return loaded


def _saved(module: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=False)
    assert isinstance(loaded, nn.Module)
    return loaded


def _state(module: nn.Module) -> nn.Module:
    fresh = copy.deepcopy(module)
    with torch.no_grad():
        for tensor in [*fresh.parameters(), *fresh.buffers()]:
            tensor.zero_()
    fresh.load_state_dict(module.state_dict(), strict=True)
    return fresh


def _exported(module: nn.Module) -> nn.Module:
    return torch.export.export(module, (noise(*X),), strict=False).module()


SURVIVES: dict[str, Callable[[nn.Module], nn.Module]] = {
    "copy.deepcopy": copy.deepcopy,
    "pickle": _pickled,
    "torch.save": _saved,
    "state_dict": _state,
    "torch.export": _exported,
    "train and eval": lambda m: copy.deepcopy(m).train().eval(),
    "train": lambda m: copy.deepcopy(m).train(),
    "requires_grad": lambda m: copy.deepcopy(m).requires_grad_(False),
    "to the device it is on": lambda m: copy.deepcopy(m).to("cpu"),
    "float and double": lambda m: copy.deepcopy(m).to(torch.float64),
    "twice": lambda m: _pickled(copy.deepcopy(_pickled(m))),
}


@pytest.mark.parametrize("name", SURVIVES)
def test_a_folded_module_answers_the_same_after(name: str, done: Folded) -> None:
    other = SURVIVES[name](done.module)
    x = noise(*X, seed=3)
    assert_same(done.module(x).detach(), other(x).detach(), 1e-12)


def test_a_folded_module_compiles(done: Folded) -> None:
    torch._dynamo.reset()
    compiled = torch.compile(copy.deepcopy(done.module), backend="eager", fullgraph=True)
    assert_same(done.module(noise(*X)).detach(), compiled(noise(*X)).detach(), 1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_folded_module_follows_to_another_number_type(dtype: torch.dtype, done: Folded) -> None:
    module = copy.deepcopy(done.module).to(dtype)
    x = noise(*X)
    answer = module(x.to(dtype))
    assert answer.dtype == dtype
    assert_same(done.module(x).detach(), answer.detach().double(), 200 * torch.finfo(dtype).eps)


def test_a_folded_module_trains_on(done: Folded) -> None:
    module = copy.deepcopy(done.module)
    module(noise(*X)).square().sum().backward()
    assert {n for n, p in module.named_parameters() if p.grad is None or not p.grad.any()} == set()


def test_every_folded_layer_is_a_layer_with_a_bias_where_its_region_was(done: Folded) -> None:
    layers = {
        name: type(m).__name__
        for name, m in done.module.named_modules()
        if isinstance(m, nn.Conv2d | nn.Linear)
    }
    assert layers == {
        "stem.0": "Conv2d",
        "stages.0.reparam_conv": "Conv2d",
        "stages.1.reparam_conv": "Conv2d",
        "head.1": "Linear",
    }
    assert all(done.module.get_submodule(name).bias is not None for name in layers)
    assert done.folds[1].where == "stages.0"


def test_what_did_not_fold_keeps_its_name_in_the_state_dict(done: Folded) -> None:
    state, before = done.module.state_dict(), done.original.state_dict()
    for name in ("kept.weight", "kept.bias"):
        assert torch.equal(state[name], before[name])
    assert torch.equal(state["constant"], before["position"].sigmoid())
    assert not any("norms" in name for name in state)


def test_folding_again_changes_nothing(done: Folded) -> None:
    twice = fold(copy.deepcopy(done.module), noise(*X))
    assert twice.folds == ()
    assert set(twice.module.state_dict()) == set(done.module.state_dict())
    assert torch.equal(twice.module(noise(*X)), done.module(noise(*X)))


def test_the_original_keeps_its_weights_modules_and_storage() -> None:
    net = randomised(_Network()).double()
    state = {k: v.clone() for k, v in net.state_dict().items()}
    modules = {n: type(m) for n, m in net.named_modules()}
    hooks = len(net._forward_hooks)
    module = fold_program(capture(net, (noise(*X),), dynamic=False)).module
    assert {n: type(m) for n, m in net.named_modules()} == modules
    assert all(torch.equal(v, state[k]) for k, v in net.state_dict().items())
    assert len(net._forward_hooks) == hooks

    def storages(m: nn.Module) -> set[int]:
        return {t.untyped_storage().data_ptr() for t in [*m.parameters(), *m.buffers()]}

    assert storages(net) & storages(module) == set()


def test_a_parameter_that_two_layers_share_is_still_one_after() -> None:
    a, b = nn.Linear(4, 4), nn.Linear(4, 4)
    b.weight = a.weight
    net = Net(lambda s, x: s.b(torch.softmax(s.a(x), -1)), a=a, b=b)
    done = fold(randomised(net), noise(2, 4))
    assert len(list(done.module.parameters())) == len(list(net.parameters())) == 3
    with torch.no_grad():
        for module in (done.original, done.module):
            next(p for p in module.parameters() if p.ndim == 2).mul_(2)
    done.compare(noise(2, 4))


class TwiceItself(nn.Conv2d):
    """A convolution that uses its own weight twice: once before its norm, once beside a branch."""

    def __init__(self) -> None:
        super().__init__(4, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(super().forward(x)).relu()
        return super().forward(x) + 0.5 * x


def test_two_folds_that_belong_to_one_convolution_find_a_place_each() -> None:
    model = randomised(nn.Sequential(TwiceItself())).double().eval()
    x = noise(1, 4, 5, 6)
    module = fold_program(capture(model, (x,), dynamic=False)).module
    assert_same(model(x), module(x))
    layers = {path for path, child in module.named_modules() if isinstance(child, nn.Conv2d)}
    assert layers == {"0", "reparam_conv"}
