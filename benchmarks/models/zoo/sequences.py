"""Recurrent networks and torch's own transformer: modules that hold what they compute with."""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["LSTMClassifier", "TorchEncoder"]


class LSTMClassifier(nn.Module):
    """Hochreiter and Schmidhuber (1997), two layers on embedded tokens, a hidden layer behind."""

    def __init__(self, vocabulary: int = 100, width: int = 32, hidden: int = 48) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.lstm = nn.LSTM(width, hidden, num_layers=2, batch_first=True)
        self.hidden = nn.Linear(hidden, 64)
        self.head = nn.Linear(64, 5)

    def forward(self, ids: Tensor) -> Tensor:
        states, _ = self.lstm(self.embedding(ids))
        return self.head(self.hidden(states[:, -1]).tanh())


class TorchEncoder(nn.Module):
    """Vaswani et al. (2017): `torch.nn.TransformerEncoder` with `torch.nn.MultiheadAttention`."""

    def __init__(self, width: int = 64, layers: int = 2) -> None:
        super().__init__()
        self.enter = nn.Linear(24, width)
        layer = nn.TransformerEncoderLayer(width, 4, 160, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(self.enter(x)).mean(1))
