"""Backbones crossed with families, and the conversion of any network."""

from zoo.models.backbones import BACKBONES, Backbone
from zoo.models.convert import convert, is_spatial, warm_start
from zoo.models.dynamic_kernels import build, check_name, create_model, list_models, register

__all__ = [
    "BACKBONES",
    "Backbone",
    "build",
    "check_name",
    "convert",
    "create_model",
    "is_spatial",
    "list_models",
    "register",
    "warm_start",
]
