import timm

import zoo
from zoo.models import BACKBONES, dynamic_kernels, register

from .registries import restored


def test_what_is_registered_in_the_block_leaves_no_trace():
    before = timm.list_models(), zoo.list_models(), timm.list_models(module="dynamic_kernels")
    with restored():
        register("passing_kw", BACKBONES["resnet10"], "kw")
        assert timm.is_model("passing_kw")
        assert "passing_kw" in zoo.list_models()
    assert (timm.list_models(), zoo.list_models(), timm.list_models(module="dynamic_kernels")) == before
    assert not timm.is_model("passing_kw")
    assert not hasattr(dynamic_kernels, "passing_kw")
    assert not any("passing_kw" in name for name in dynamic_kernels.default_cfgs)
