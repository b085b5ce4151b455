"""A zoo of dynamic-kernel networks for timm that export with a dynamic batch.

Importing this package registers its models: ``timm.create_model("resnet18_kw", pretrained=True)``.
"""

from zoo import layers, models, pretrained
from zoo.errors import ZooError
from zoo.models import Dynamized, create_model, dynamize, list_models

__version__ = "0.1.0"

__all__ = [
    "Dynamized",
    "ZooError",
    "create_model",
    "dynamize",
    "layers",
    "list_models",
    "models",
    "pretrained",
]
