"""The machine of a run."""

import pytest

from export.benchmark.environment import on_whole_machine


@pytest.mark.parametrize(
    ("cores", "usable", "whole"), [(None, 2, True), (2, None, True), (2, 1, False), (2, 2, True)]
)
def test_a_run_is_held_where_the_system_says_so(cores, usable, whole):
    assert on_whole_machine({"cores": cores, "usable_cores": usable}) is whole
    assert on_whole_machine({})
