"""The Trainer of Transformers leaves a sparse model sparse, and trains it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from optiprune.masks import MaskError, MaskSet

transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate")

from optiprune.finetuning import KeepMasksInTrainer  # noqa: E402

STEPS = 6


def language_model() -> nn.Module:
    config = transformers.GPT2Config(
        vocab_size=32,
        n_positions=16,
        n_embd=16,
        n_layer=1,
        n_head=2,
        bos_token_id=0,
        eos_token_id=0,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return transformers.GPT2LMHeadModel(config)


def masked() -> tuple[nn.Module, MaskSet]:
    model = language_model()
    g = torch.Generator().manual_seed(1)
    names = [n for n, p in model.named_parameters() if ".c_" in n and p.ndim == 2]
    masks = MaskSet({n: torch.rand(model.get_parameter(n).shape, generator=g) < 0.4 for n in names})
    masks.apply(model).make_permanent()
    return model, masks


def texts() -> list[dict[str, torch.Tensor]]:
    g = torch.Generator().manual_seed(2)
    rows = torch.randint(0, 32, (32, 8), generator=g)
    return [{"input_ids": r, "labels": r} for r in rows]


def trainer(model, masks, folder, *, steps=STEPS, **options):
    arguments = transformers.TrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=4,
        learning_rate=1e-2,
        weight_decay=0.1,
        save_steps=3,
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        seed=3,
        **options,
    )
    callbacks = [] if masks is None else [KeepMasksInTrainer(masks)]
    return transformers.Trainer(
        model=model, args=arguments, train_dataset=texts(), callbacks=callbacks
    )


def assert_zeros(model: nn.Module, masks: MaskSet) -> None:
    for name, mask in masks.items():
        assert not model.get_parameter(name)[~mask].any(), name


def test_zeros_stay_kept_weights_move_and_checkpoints_hold_both(tmp_path):
    model, masks = masked()
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    trainer(model, masks, tmp_path, gradient_accumulation_steps=2).train()
    assert_zeros(model, masks)
    for name, mask in masks.items():
        assert (model.get_parameter(name)[mask] != before[name][mask]).float().mean() > 0.9
    assert not torch.equal(model.transformer.wte.weight, before["transformer.wte.weight"])
    saved = transformers.GPT2LMHeadModel.from_pretrained(tmp_path / f"checkpoint-{STEPS}")
    assert_zeros(saved, masks)
    assert all(torch.equal(p, model.get_parameter(n)) for n, p in saved.named_parameters())


def test_a_training_that_goes_on_from_a_checkpoint(tmp_path):
    whole, masks = masked()
    trainer(whole, masks, tmp_path).train()
    again, _ = masked()
    trainer(again, masks, tmp_path).train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    assert_zeros(again, masks)
    for name in masks:
        torch.testing.assert_close(again.get_parameter(name), whole.get_parameter(name))


def test_without_it_the_zeros_are_lost(tmp_path):
    model, masks = masked()
    trainer(model, None, tmp_path, steps=1).train()
    name = next(iter(masks))
    assert model.get_parameter(name)[~masks[name]].any()


def test_hooks_are_gone_when_training_ends(tmp_path):
    model, masks = masked()
    trainer(model, masks, tmp_path, steps=1).train()
    name = next(iter(masks))
    model(input_ids=torch.arange(8)[None], labels=torch.arange(8)[None]).loss.backward()
    assert model.get_parameter(name).grad[~masks[name]].any()


def test_what_cannot_be_kept_is_refused_before_the_first_step(tmp_path):
    dense = language_model()
    _, masks = masked()
    with pytest.raises(MaskError, match=r"call masks.apply\(model\)"):
        trainer(dense, masks, tmp_path).train()
    model, masks = masked()
    for name in masks:
        model.get_parameter(name).requires_grad_(False)
    with pytest.raises(MaskError, match=r"no optimizer of the Trainer trains a masked parameter"):
        trainer(model, masks, tmp_path).train()
