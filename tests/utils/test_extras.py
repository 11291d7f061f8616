import sys

import pytest

from edgemin_hf.utils.extras import check_extra

MISSING = [("inc", "neural_compressor"), ("inc", "optimum"), ("inc", "optimum.intel"), ("openvino", "openvino")]


@pytest.mark.parametrize(("extra", "package"), MISSING)
def test_a_missing_package_is_one_line_that_names_the_extra(extra, package, monkeypatch):
    """Optimum Intel, whose configuration is written when training is over, is asked for before it begins."""
    if package.startswith("optimum"):
        pytest.importorskip("neural_compressor")
    monkeypatch.setitem(sys.modules, package, None)
    for part in [name for name in sys.modules if name.startswith(f"{package}.")]:
        monkeypatch.delitem(sys.modules, part)
    with pytest.raises(ValueError, match=rf"^provider: inc without .*; allowed: .*edgemin-hf\[{extra}\]'$"):
        check_extra(extra, "provider: inc")
