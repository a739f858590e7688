"""Lightning leaves a sparse model sparse, and trains it."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from optiprune.masks import MaskError, MaskSet

lightning = pytest.importorskip("lightning.pytorch")

from optiprune.finetuning import FineTuningError, KeepMasksInLightning  # noqa: E402


class Classifier(lightning.LightningModule):
    def __init__(self, two_optimizers: bool = False):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.network = nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 3))
            self.other = nn.Linear(3, 3)
        self.automatic_optimization = not two_optimizers

    def loss(self, batch):
        x, y = batch
        return nn.functional.cross_entropy(self.other(self.network(x)), y)

    def training_step(self, batch, _):
        loss = self.loss(batch)
        if not self.automatic_optimization:
            optimizers = self.optimizers()
            for o in optimizers:
                o.zero_grad()
            self.manual_backward(loss)
            for o in optimizers:
                o.step()
        return loss

    def configure_optimizers(self):
        if self.automatic_optimization:
            return torch.optim.AdamW(self.parameters(), lr=1e-2, weight_decay=0.1)
        return [
            torch.optim.AdamW(self.network.parameters(), lr=1e-2, weight_decay=0.1),
            torch.optim.SGD(self.other.parameters(), lr=0.1),
        ]


def loader() -> DataLoader:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(64, 10, generator=g)
    return DataLoader(TensorDataset(x, (x @ torch.randn(10, 3, generator=g)).argmax(1)), 16)


def masked(**options) -> tuple[Classifier, MaskSet]:
    module = Classifier(**options)
    g = torch.Generator().manual_seed(1)
    masks = MaskSet(
        {
            f"{i}.weight": torch.rand(module.network[i].weight.shape, generator=g) < 0.4
            for i in (0, 2)
        }
    )
    masks.apply(module.network).make_permanent()
    return module, masks


def trainer(folder, *callbacks, epochs=2, **options):
    return lightning.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        default_root_dir=folder,
        callbacks=list(callbacks),
        **options,
    )


def assert_zeros(network, masks):
    for name, mask in masks.items():
        assert not network.get_parameter(name)[~mask].any()


@pytest.mark.parametrize("options", [{}, {"accumulate_grad_batches": 2, "gradient_clip_val": 0.5}])
def test_zeros_stay_and_kept_weights_move(tmp_path, options):
    module, masks = masked()
    before = [p.detach().clone() for p in module.parameters()]
    fit = trainer(tmp_path, KeepMasksInLightning(masks, submodule="network"), **options)
    fit.fit(module, loader())
    assert_zeros(module.network, masks)
    for p, old in zip(module.parameters(), before, strict=True):
        kept = old != 0
        assert (p[kept] != old[kept]).float().mean() > 0.9


def test_a_checkpoint_holds_the_zeros_and_a_fit_goes_on_from_it(tmp_path):
    whole, masks = masked()
    trainer(tmp_path, KeepMasksInLightning(masks, submodule="network"), epochs=4).fit(
        whole, loader()
    )
    first, _ = masked()
    fit = trainer(tmp_path, KeepMasksInLightning(masks, submodule="network"))
    fit.fit(first, loader())
    path = tmp_path / "half.ckpt"
    fit.save_checkpoint(path)
    state = torch.load(path, weights_only=True)["state_dict"]
    for name, mask in masks.items():
        assert not state[f"network.{name}"][~mask].any()
    second, _ = masked()
    trainer(tmp_path, KeepMasksInLightning(masks, submodule="network"), epochs=4).fit(
        second, loader(), ckpt_path=path
    )
    assert_zeros(second.network, masks)
    for a, b in zip(second.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_optimizers_that_train_no_masked_parameter_are_left_alone(tmp_path):
    module, masks = masked(two_optimizers=True)
    trainer(tmp_path, KeepMasksInLightning(masks, submodule="network")).fit(module, loader())
    assert_zeros(module.network, masks)


def test_without_it_the_zeros_are_lost(tmp_path):
    module, masks = masked()
    trainer(tmp_path, epochs=1).fit(module, loader())
    assert module.network[0].weight[~masks["0.weight"]].any()


def test_hooks_are_gone_after_a_fit_that_failed(tmp_path):
    module, masks = masked()

    class Fails(lightning.Callback):
        def on_train_batch_start(self, *_):
            raise RuntimeError("as it happens")

    callback = KeepMasksInLightning(masks, submodule="network")
    with pytest.raises(RuntimeError, match=r"as it happens"):
        trainer(tmp_path, callback, Fails()).fit(module, loader())
    module.zero_grad()
    module.loss(next(iter(loader()))).backward()
    assert module.network[0].weight.grad[~masks["0.weight"]].any()


def test_refusals(tmp_path):
    module, masks = masked()
    with pytest.raises(FineTuningError, match=r"no submodule 'net'; it has: network, other"):
        trainer(tmp_path, KeepMasksInLightning(masks, submodule="net")).fit(module, loader())
    with pytest.raises(MaskError, match=r"has no parameter '0.weight'"):
        trainer(tmp_path, KeepMasksInLightning(masks)).fit(module, loader())
    with pytest.raises(MaskError, match=r"call masks.apply"):
        trainer(tmp_path, KeepMasksInLightning(masks, submodule="network")).fit(
            Classifier(), loader()
        )
