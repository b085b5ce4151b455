"""Attention modules, those of timm and those it lacks, as a table of baselines."""

from zoo.layers.attention.bam import BottleneckAttentionModule
from zoo.layers.attention.channel_gate import ChannelGate
from zoo.layers.attention.dual import DualAttention
from zoo.layers.attention.gather_excite import GatherExcite
from zoo.layers.attention.gsop import SecondOrderPooling
from zoo.layers.attention.mhsa import MultiHeadSelfAttention2d
from zoo.layers.attention.sagan import SAGANAttention
from zoo.layers.attention.table import ATTENTION, Attention, attention, complete_args

__all__ = [
    "ATTENTION",
    "Attention",
    "BottleneckAttentionModule",
    "ChannelGate",
    "DualAttention",
    "GatherExcite",
    "MultiHeadSelfAttention2d",
    "SAGANAttention",
    "SecondOrderPooling",
    "attention",
    "complete_args",
]
