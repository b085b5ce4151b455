from pathlib import Path

import pytest

from zoo import machine


@pytest.mark.parametrize(
    ("facts", "name"),
    [
        (
            "processor\t: 0\ncpu family\t: 26\nmodel\t\t: 2\nmodel name\t: AMD EPYC\n\n"
            "processor\t: 1\ncpu family\t: 27\nmodel\t\t: 3\nmodel name\t: AMD EPYC\n",
            "AMD EPYC family 26 model 2",
        ),
        ("cpu family\t: 6\nmodel\t\t: 85\nmodel name\t: Xeon Gold 6130\n", "Xeon Gold 6130"),
        (
            "cpu family\t: 6\nmodel\t\t: 85\nmodel name\t: Intel(R) Xeon(R) CPU @ 2.20GHz\n",
            "Intel(R) Xeon(R) CPU @ 2.20GHz family 6 model 85",
        ),
        ("model name\t: Abacus\n", "Abacus"),
        ("BogoMIPS\t: 50\n", "arm"),
    ],
)
def test_a_processor_without_a_number_is_named_by_its_family(
    facts: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "read_text", lambda path, encoding: facts)
    monkeypatch.setattr(machine.platform, "machine", lambda: "arm")
    assert machine.cpu_model() == name
