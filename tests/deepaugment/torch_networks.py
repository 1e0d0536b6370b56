"""The two published networks once more, in PyTorch, as an independent reference."""

import torch
from torch import nn


class TorchCAE(nn.Module):
    """The autoencoder, under the names of the published file."""

    def __init__(self, width, code, blocks, detail):
        super().__init__()
        w = width

        def conv(i, o, size, stride=1, padding=0):
            return nn.Conv2d(i, o, size, stride, padding)

        def residual():
            pad = nn.ZeroPad2d(1)
            return nn.Sequential(
                pad, conv(2 * w, 2 * w, 3), nn.LeakyReLU(), pad, conv(2 * w, 2 * w, 3)
            )

        halve = nn.ZeroPad2d((1, 2, 1, 2))
        self.e_conv_1 = nn.Sequential(halve, conv(3, w, 5, 2), nn.LeakyReLU())
        self.e_conv_2 = nn.Sequential(halve, conv(w, 2 * w, 5, 2), nn.LeakyReLU())
        self.e_conv_3 = nn.Sequential(conv(2 * w, code, 5, padding=2), nn.Tanh())
        for side in "ed":
            for i in range(1, blocks + 1):
                setattr(self, f"{side}_block_{i}", residual())
        self.blocks = blocks

        def up(i, o):
            return nn.ConvTranspose2d(i, o, 2, 2)

        self.d_up_conv_1 = nn.Sequential(
            conv(code, w, 3), nn.LeakyReLU(), nn.ZeroPad2d(1), up(w, 2 * w)
        )
        self.d_up_conv_2 = nn.Sequential(
            conv(2 * w, w // 2, 3), nn.LeakyReLU(), nn.ZeroPad2d(1), up(w // 2, 4 * w)
        )
        self.d_up_conv_3 = nn.Sequential(
            conv(4 * w, detail, 3),
            nn.LeakyReLU(),
            nn.ReflectionPad2d(2),
            conv(detail, 3, 3),
            nn.Tanh(),
        )

    def encode(self, x):
        x = self.e_conv_2(self.e_conv_1(x))
        for i in range(1, self.blocks + 1):
            x = x + getattr(self, f"e_block_{i}")(x)
        return self.e_conv_3(x)

    def decode(self, bits):
        x = self.d_up_conv_1(2 * bits - 1)
        for i in range(1, self.blocks + 1):
            x = x + getattr(self, f"d_block_{i}")(x)
        return self.d_up_conv_3(self.d_up_conv_2(x))


class _Residual(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1)
        )

    def forward(self, x):
        return x + self.body(x)


class TorchEDSR(nn.Module):
    """EDSR baseline x4, under the names of the published file."""

    def __init__(self, width, blocks):
        super().__init__()
        mean = 255 * torch.tensor([0.4488, 0.4371, 0.4040])
        for name, sign in (("sub_mean", -1), ("add_mean", 1)):
            shift = nn.Conv2d(3, 3, 1)
            shift.weight.data = torch.eye(3).view(3, 3, 1, 1)
            shift.bias.data = sign * mean
            setattr(self, name, shift)
        self.head = nn.Sequential(nn.Conv2d(3, width, 3, padding=1))
        self.body = nn.Sequential(
            *(_Residual(width) for _ in range(blocks)), nn.Conv2d(width, width, 3, padding=1)
        )
        up = [
            nn.Conv2d(width, 4 * width, 3, padding=1),
            nn.PixelShuffle(2),
            nn.Conv2d(width, 4 * width, 3, padding=1),
            nn.PixelShuffle(2),
        ]
        self.tail = nn.Sequential(nn.Sequential(*up), nn.Conv2d(width, 3, 3, padding=1))

    def forward(self, x):
        x = self.head(self.sub_mean(x))
        return self.add_mean(self.tail(x + self.body(x)))
