"""The AdamW optimizer."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from rowcast.training.models.adamw import AdamW

torch = pytest.importorskip("torch")  # PyTorch is an optional extra; CI treats a skipped test as a failure


def test_the_optimizer_updates_tensors_like_pytorch() -> None:
    generator = torch.Generator().manual_seed(1)
    start = [torch.randn((4, 3), generator=generator), torch.randn(3, generator=generator)]
    inputs = torch.randn((50, 4), generator=generator)
    ours, theirs = ([tensor.clone().requires_grad_() for tensor in start] for _ in range(2))
    optimizer = AdamW(ours[:1], ours[1:], rate=0.01, decay=0.2)
    reference = torch.optim.AdamW(
        [{"params": theirs[:1], "weight_decay": 0.2}, {"params": theirs[1:], "weight_decay": 0.0}], lr=0.01
    )

    for _ in range(100):
        for weights, bias in (ours, theirs):
            ((inputs @ weights + bias).sin() ** 2).mean().backward()
        optimizer.step()
        reference.step()
        reference.zero_grad()

    for tensor, expected, initial in zip(ours, theirs, start, strict=True):
        torch.testing.assert_close(tensor, expected, rtol=1e-5, atol=1e-6)
        assert not torch.allclose(tensor, initial, atol=0.1)


def test_training_a_network_does_not_import_the_compiler_of_pytorch() -> None:
    code = (
        "import sys; from support.training import train_model; from pathlib import Path; import tempfile\n"
        "from rowcast.training.models import network; network.MOST_ROUNDS = 2\n"
        "columns = {'a': list(range(200)), 'b': [n % 7 for n in range(200)], 'y': [n % 2 for n in range(200)]}\n"
        "train_model(Path(tempfile.mkdtemp()), columns, candidates=('mlp',), trials=1)\n"
        "sys.exit('torch._dynamo' in sys.modules)"
    )

    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=False).returncode == 0
