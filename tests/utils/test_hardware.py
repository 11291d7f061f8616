import json
from importlib.metadata import version

import pytest

from edgemin_hf.utils import hardware
from edgemin_hf.utils.hardware import Environment, cpu_flags, environment


def test_an_environment_tells_the_machine_and_the_versions():
    told = environment(3, "pytest", device="cuda:0")
    assert (told.threads, told.device) == (3, "cuda:0")
    assert told.packages["pytest"] == version("pytest")
    assert told.packages["onnxruntime"] == version("onnxruntime")
    assert told.vnni == bool(cpu_flags() & {"avx512_vnni", "avx_vnni"})
    assert Environment.from_dict(json.loads(json.dumps(told.to_dict()))) == told
    assert "device" not in environment(1).to_dict()


LINES = "flags\t: fpu avx512_vnni\nflags\t: fpu\n"


@pytest.mark.parametrize(("lines", "flags"), [(LINES, {"fpu", "avx512_vnni"}), ("", set())])
def test_flags_are_those_of_the_first_processor(tmp_path, monkeypatch, lines, flags):
    (tmp_path / "cpuinfo").write_text(lines)
    monkeypatch.setattr(hardware, "Path", lambda _: tmp_path / "cpuinfo")
    assert cpu_flags() == flags
