"""What the tests of the public verbs share: a model with everything in it, and states compared bit by bit."""

import copy
import zipfile

import torch
from torch import nn


class Net(nn.Module):
    """Convolution, normalisation (with a version and a counter), embedding tied to a head."""

    def __init__(self, classes=4):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.embed = nn.Embedding(classes, 6)
        self.head = nn.Linear(6, classes, bias=False)
        self.head.weight = self.embed.weight


def bits(state):
    """Each tensor's dtype, shape and bytes, by name: equal for equal NaNs too."""
    return {
        name: (value.dtype, value.shape, value.detach().cpu().contiguous().view(-1).view(torch.uint8).tolist())
        if value.numel()
        else (value.dtype, value.shape)
        for name, value in state.items()
    }


def plain(model):
    """A model's state as PyTorch gives it, in memory of its own."""
    return copy.deepcopy(model.state_dict())


def fill(model, seed):
    """The model with random values, buffers included."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in model.state_dict().values():
            value.copy_(torch.randint(1, 100, value.shape, generator=generator))
    return model


def damage_last_record(path):
    """Change a byte in the data of the file's last tensor, whose checksum then does not agree."""
    with zipfile.ZipFile(path) as archive:
        # the order of the central directory is that of the file
        last = [info for info in archive.infolist() if "/data/" in info.filename][-1]
    content = bytearray(path.read_bytes())
    start = last.header_offset
    start += 30 + int.from_bytes(content[start + 26 : start + 28], "little")
    start += int.from_bytes(content[last.header_offset + 28 : last.header_offset + 30], "little")
    content[start + last.file_size - 1] ^= 0x55
    path.write_bytes(content)


class Api:
    """The helpers above, as one value."""

    Net = Net
    bits = staticmethod(bits)
    plain = staticmethod(plain)
    fill = staticmethod(fill)
    damage_last_record = staticmethod(damage_last_record)
