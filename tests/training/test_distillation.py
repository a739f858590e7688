"""The first loss: its terms by hand, what it teaches, and that it leaves nothing in the student."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from optiprune.curvature import Batch
from optiprune.training import Callback, Distillation, Step, TrainingError, train

from .conftest import Net, make_net, make_stripes

DATA = make_stripes(400, 0)
TEST = make_stripes(600, 1)
EXAMPLE = ((DATA[0][:2],), {})
NAMES = ["stem", "grouped", "hidden"]


def accuracy(model: nn.Module) -> float:
    model.eval()
    with torch.no_grad():
        return float((model(TEST[0]).argmax(1) == TEST[1]).float().mean())


@pytest.fixture(scope="module")
def teacher() -> nn.Module:
    net = make_net()
    optimizer = torch.optim.Adam(net.parameters(), lr=5e-3)
    train(net, [make_stripes(2000, 5)], optimizer, epochs=8, batch_size=50)
    assert accuracy(net) > 0.95
    return net.eval()


def step_of(student, x, y) -> Step:
    return Step(0, 1, 0, Batch(x, y), student(x))


def test_outputs_alone_by_hand(teacher) -> None:
    student = make_net(3)
    x, y = DATA[0][:20], DATA[1][:20]
    copied = copy.deepcopy(teacher)
    copied.zero_grad()
    term = Distillation(copied, student, EXAMPLE, temperature=2.0, output_weight=0.7)
    with term.attached():
        value = term.loss(step_of(student, x, y))
    p, q = student(x).detach() / 2, teacher(x).detach() / 2
    kl = (q.softmax(1) * (q.log_softmax(1) - p.log_softmax(1))).sum(1).mean()
    # batch norm of the student in training mode gave other statistics, not other batch outputs
    torch.testing.assert_close(value.detach(), 0.7 * 4 * kl, rtol=1e-4, atol=1e-6)
    assert not list(term.parameters())
    value.backward()
    assert not any(p.requires_grad and p.grad is not None for p in copied.parameters())


def test_no_loss_against_itself_but_for_classifiers(teacher) -> None:
    same = copy.deepcopy(teacher)
    term = Distillation(teacher, same, EXAMPLE, features=NAMES, auxiliary_weight=0.0)
    with term.attached():
        assert float(term.loss(step_of(same, *DATA)).detach()) == pytest.approx(0.0, abs=1e-6)
    nothing = Distillation(teacher, same, EXAMPLE, output_weight=0.0)
    assert nothing.loss(step_of(same, *DATA)) is None


def test_auxiliary_classifiers_learn_labels_or_the_teacher(teacher) -> None:
    student = make_net(3)
    x, y = DATA
    term = Distillation(
        teacher, student, EXAMPLE, features=["hidden"], output_weight=0, feature_weight=0
    )
    assert len(list(term.parameters())) == 2
    with term.attached():
        step = step_of(student, x, y)
        hidden = term._mine["hidden"]
        want = 0.3 * F.cross_entropy(term.classifiers[0](hidden), y)
        torch.testing.assert_close(term.loss(step), want)
        without = term.loss(step_of(student, x, None))
    assert float(without.detach()) != pytest.approx(float(want.detach()))


class Narrow(Net):
    """A student of another width: adapters make up for it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 6, 3, padding=1)
        self.a = nn.Conv2d(6, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.b = nn.Conv2d(8, 6, 1)
        self.grouped = nn.Conv2d(6, 8, 3, padding=1, groups=2)
        self.hidden = nn.Linear(8, 12)
        self.head = nn.Linear(12, 4)


def narrow() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Narrow()


def test_a_student_learns_without_labels(teacher) -> None:
    """From a third of the pictures, none of them labelled."""
    x, _ = make_stripes(150, 8)
    student = narrow()
    keys = list(student.state_dict())
    untaught = accuracy(student)
    term = Distillation(teacher, student, EXAMPLE, features=NAMES)
    optimizer = torch.optim.Adam([*student.parameters(), *term.parameters()], lr=5e-3)
    before = [p.detach().clone() for p in term.parameters()]
    train(student, [x], optimizer, loss=None, epochs=25, batch_size=25, callbacks=[term])
    assert accuracy(student) > 0.8 > untaught + 0.3
    assert all(not torch.equal(p, b) for p, b in zip(term.parameters(), before, strict=True))
    # nothing of it stays in the student
    assert list(student.state_dict()) == keys
    assert not any(m._forward_hooks for m in (*student.modules(), *teacher.modules()))


def test_resumed_with_its_adapters(teacher, tmp_path: Path) -> None:
    class Stop(Callback):
        def __init__(self, at: int) -> None:
            self.at = at

        def after_step(self, step: Step) -> None:
            if step.index == self.at:
                raise InterruptedError

    def run(stop: int, file: Path | None) -> nn.Module:
        student = narrow()
        term = Distillation(teacher, student, EXAMPLE, features=NAMES)
        optimizer = torch.optim.Adam([*student.parameters(), *term.parameters()], lr=5e-3)
        train(
            student,
            [DATA],
            optimizer,
            epochs=2,
            batch_size=50,
            callbacks=[term, Stop(stop)],
            checkpoint=file,
            checkpoint_steps=3,
        )
        return student

    whole = run(-1, None)
    with pytest.raises(InterruptedError):
        run(10, tmp_path / "d.ckpt")
    again = run(-1, tmp_path / "d.ckpt")
    for a, b in zip(whole.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_what_is_refused(teacher) -> None:
    student = make_net(3)
    for bad in ({"temperature": 0.0}, {"output_weight": -1.0}, {"feature_weight": float("nan")}):
        with pytest.raises(TrainingError, match="temperature = "):
            Distillation(teacher, student, EXAMPLE, **bad)
    term = Distillation(teacher, student, EXAMPLE, features=NAMES)
    with pytest.raises(TrainingError, match="attached"):
        term.loss(step_of(student, *DATA))
    optimizer = torch.optim.Adam(student.parameters())
    with pytest.raises(TrainingError, match="does not hold the parameters of Distillation"):
        train(student, [DATA], optimizer, epochs=1, callbacks=[term])
