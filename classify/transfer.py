"""Which parameters are trained, and how fast each learns."""

from torch import nn

from classify.networks.network import Network
from classify.own_statistics import keeps_statistics
from classify.training_config import Transfer


def blocks_of(network: Network) -> list[nn.Module]:
    """The trunk in blocks from input to output, for transfer and layer-wise rates.

    A trunk that lists its own blocks (``transfer_blocks``) is asked; otherwise its children
    that hold parameters are the blocks, and a child that is a plain sequence is opened.
    """
    listed = getattr(network.trunk, "transfer_blocks", None)
    if listed is not None:
        return _join_normalisation(list(listed()))
    blocks: list[nn.Module] = []
    for child in network.trunk.children():
        parts = list(child.children()) if isinstance(child, nn.Sequential) else [child]
        blocks += [part for part in parts if any(True for _ in part.parameters())]
    return _join_normalisation(blocks) or [network.trunk]


def _join_normalisation(blocks: list[nn.Module]) -> list[nn.Module]:
    """A layer of scales and offsets alone belongs to the convolution before it."""
    joined: list[nn.Module] = []
    for block in blocks:
        if joined and all(parameter.ndim <= 1 for parameter in block.parameters()):
            joined[-1] = nn.ModuleList([joined[-1], block])
        else:
            joined.append(block)
    return joined


def choose_trainable(network: Network, transfer: Transfer) -> None:
    """Set ``requires_grad``: ``all``, ``last`` (last block and head) or ``frozen`` (head)."""
    network.requires_grad_(True)
    if transfer == "all":
        return
    network.trunk.requires_grad_(False)
    if transfer == "last":
        blocks_of(network)[-1].requires_grad_(True)


def frozen_modules(network: Network, *, pretrained: bool = False) -> list[nn.Module]:
    """Modules that stay in evaluation mode while the rest trains.

    Blocks whose every parameter is frozen must not drift. With ``pretrained`` weights every
    batch normalisation keeps the statistics it came with: small batches of other images would
    replace them, and weights whose normalisation was folded away would be undone at once.
    """
    kept = [m for m in network.modules() if keeps_statistics(m)] if pretrained else []
    return kept + [
        block
        for block in [network.trunk, *blocks_of(network)]
        if not any(parameter.requires_grad for parameter in block.parameters())
    ]


def rate_groups(network: Network, layer_decay: float) -> list[tuple[list[nn.Parameter], float]]:
    """Parameters with the factor of their learning rate: 1 for the head, then falling.

    Each block nearer to the input learns at ``layer_decay`` of the rate of the next (Howard &
    Ruder 2018, arXiv:1801.06146, section 3.2).
    """
    groups = [(list(network.head.parameters()), 1.0)]
    seen = {id(parameter) for parameter in groups[0][0]}
    factor = 1.0
    for block in reversed(blocks_of(network)):
        factor *= layer_decay
        members = [p for p in block.parameters() if id(p) not in seen]
        seen.update(id(p) for p in members)
        groups.append((members, factor))
    rest = [p for p in network.parameters() if id(p) not in seen]
    if rest:  # what belongs to no block lies nearest to the input
        groups.append((rest, factor * layer_decay))
    return groups
