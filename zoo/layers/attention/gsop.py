"""GSoP: channel gates from the covariance of channels instead of from their means."""

from torch import Tensor, nn

from zoo.layers.attention.checks import check_positive


class SecondOrderPooling(nn.Module):
    """Gate every channel by how the channels of the map vary together.

        z     = relu(BN(reduce x))                                  (N, d, H, W)
        cov   = (z - mean z) (z - mean z)^T / (H W)                 (N, d, d)
        y     = x * sigmoid(expand(rows(BN(cov))))

    ``rows`` turns each row of the covariance into 4 numbers with weights of its own, ``expand`` those into C
    gates. Covariance needs d >= 2 to say anything about pairs of channels.

    Paper: Global Second-order Pooling Convolutional Networks, https://arxiv.org/abs/1811.12006; this is its
    channel-wise block.

    Args:
        channels: C.
        covariance_dim: d, at most C: a narrower map keeps its C.

    Parameters:
        reduce ``Conv2d(C, d, 1)`` and batch norm, row_norm, rows ``Conv2d(d, 4 d, (d, 1), groups=d)``,
        expand ``Conv2d(4 d, C, 1)``.

    Shapes:
        input and output ``(N, C, H, W)``.

    Raises:
        ZooError: ``covariance_dim`` is not positive.
    """

    def __init__(self, channels: int, covariance_dim: int = 128):
        super().__init__()
        dim = min(check_positive("covariance_dim", covariance_dim), channels)
        self.reduce = nn.Sequential(
            nn.Conv2d(channels, dim, 1, bias=False), nn.BatchNorm2d(dim), nn.ReLU(inplace=True)
        )
        self.row_norm = nn.BatchNorm2d(dim)
        self.rows = nn.Conv2d(dim, 4 * dim, (dim, 1), groups=dim)
        self.expand = nn.Conv2d(4 * dim, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Gate x (N, C, H, W)."""
        z = self.reduce(x).flatten(2)
        z = z - z.mean(dim=2, keepdim=True)
        covariance = z @ z.transpose(1, 2) / (x.shape[2] * x.shape[3])
        return x * self.expand(self.rows(self.row_norm(covariance.unsqueeze(3)))).sigmoid()
