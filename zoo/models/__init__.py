"""Backbones crossed with families, and the conversion of any network."""

from zoo.models.backbones import BACKBONES, Backbone
from zoo.models.convert import is_spatial, warm_start
from zoo.models.dynamic_kernels import build, check_name, create_model, list_models, register
from zoo.models.dynamize import Dynamized, dynamize
from zoo.models.sites import Site, find_sites

__all__ = [
    "BACKBONES",
    "Backbone",
    "Dynamized",
    "Site",
    "build",
    "check_name",
    "create_model",
    "dynamize",
    "find_sites",
    "is_spatial",
    "list_models",
    "register",
    "warm_start",
]
