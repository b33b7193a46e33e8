"""Two published models, defined for `nn` alone: with `from torch import nn` they are PyTorch modules.

The speaker encoder of Resemblyzer (github.com/resemble-ai/Resemblyzer) and the pitch estimator of torchcrepe
(github.com/maxrmorrison/torchcrepe), by their layers' names and sizes.
"""

from statedict import nn

F = nn.functional


class VoiceEncoder(nn.Module):
    """Log-mel frames (utterances, frames, 40) to embeddings of length 1, (utterances, 256)."""

    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(40, 256, 3, batch_first=True)
        self.linear = nn.Linear(256, 256)
        self.relu = nn.ReLU()

    def forward(self, mels):
        _, (hidden, _) = self.lstm(mels)
        return F.normalize(self.relu(self.linear(hidden[-1])), dim=1)


class Crepe(nn.Module):
    """Frames of sound (frames, 1024) to probabilities of pitch (frames, 360)."""

    widths = {"tiny": (128, 16, 16, 16, 32, 64), "full": (1024, 128, 128, 128, 256, 512)}

    def __init__(self, size):
        super().__init__()
        before = 1
        for i, width in enumerate(self.widths[size], start=1):
            kernel, stride = ((512, 1), (4, 1)) if i == 1 else ((64, 1), (1, 1))
            setattr(self, f"conv{i}", nn.Conv2d(before, width, kernel, stride))
            setattr(self, f"conv{i}_BN", nn.BatchNorm2d(width, eps=0.0010000000474974513, momentum=0.0))
            before = width
        self.classifier = nn.Linear(before * 4, 360)

    def forward(self, x):
        x = x[:, None, :, None]
        for i in range(1, 7):
            conv, norm = getattr(self, f"conv{i}"), getattr(self, f"conv{i}_BN")
            x = F.pad(x, (0, 0, 254, 254) if i == 1 else (0, 0, 31, 32))
            x = F.max_pool2d(norm(F.relu(conv(x))), (2, 1), (2, 1))
        # (frames, channels, 4, 1) as (frames, 4 · channels), the channels of each place together.
        x = x.swapaxes(1, 2).reshape((x.shape[0], -1))
        return F.sigmoid(self.classifier(x))
